"""A human's program that may be killed: it acts on jobs of a queue when it is told to.

Run as `python -m tests.control.hand QUEUE ACT IDS…`; where the broker is comes from the environment.
"""

from __future__ import annotations

import sys

import kq
from kq.errors import NotRepaired


def main(queue: str, act: str, *ids: str) -> None:
    app = kq.App("repair")
    with kq.Control(app) as control:
        control.jobs(queue)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
        for id in ids:
            do(control, queue, act, id)


def do(control: kq.Control, queue: str, act: str, id: str) -> None:
    """One act; somebody else may have been faster."""
    try:
        if act == "kick":
            control.kick(queue, ids=[id])
        elif act == "edit":
            control.edit(id, args=["edited"])
        elif act == "bury":
            control.bury(id)
    except NotRepaired:
        return


if __name__ == "__main__":
    main(*sys.argv[1:])
