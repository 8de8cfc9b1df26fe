"""Two threads of a program may both be the first that needs a Redis: what they import is there for both."""

from __future__ import annotations

import subprocess
import sys

#: One thread imports redis and rests in the middle of that; another imports what kq needs of it, which may not fail.
PROGRAM = """
import sys, threading

class Rest:
    def find_spec(self, name, path, target=None):
        if name == "redis.asyncio" and threading.current_thread() is first:
            resting.set()
            over.wait(1)

def import_what_needs_it():
    resting.wait()
    try:
        import {module}
    finally:
        over.set()

resting, over = threading.Event(), threading.Event()
sys.meta_path.insert(0, Rest())
first = threading.Thread(target=__import__, args=("redis",))
second = threading.Thread(target=import_what_needs_it)
for each in (first, second):
    each.start()
for each in (first, second):
    each.join()
"""


def test_what_two_threads_import_at_a_time_is_there_for_both() -> None:
    for module in ("redislink", "redislink.wire", "redislink.bell", "redis"):
        code = PROGRAM.format(module=f"kq_transports.{module}")
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
