"""The command `kq`. Each verb is a module of its own here and is imported when it is called.

`main` is what the installed script runs.
"""

import gc
import sys

from kq import __version__

#: How often Python looks for garbage when nobody says.
USUAL_THRESHOLD = gc.get_threshold()


def main() -> None:
    """Carry out the command line of this process and exit with its code."""
    if sys.argv[1:] == ["--version"]:
        # Package managers and health checks ask this often: answer before click is imported (30 ms).
        print(f"kq {__version__}")  # noqa: T201
        return
    # What is imported stays to the end. A tenth of a short verb's time would go for looking for garbage in it
    # meanwhile, and as much when the process ends.
    gc.set_threshold(10_000)
    from kq.cli.frame import run

    code = run()
    gc.freeze()
    sys.exit(code)
