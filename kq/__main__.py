"""`python -m kq` is the command `kq`."""

from kq.cli import main

main()
