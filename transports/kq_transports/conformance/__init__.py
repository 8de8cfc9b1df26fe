"""What a kq transport promises, as tests that any transport can run.

EngineSuite asks an Engine for all that `engine.py` says. KombuSuite asks a Kombu transport, through
Kombu's own API, for what kq needs; it runs on any transport, Kombu's own included. Subclass them in a
test module and say how to open a connection; needs pytest and hypothesis.

    class TestMyEngine(EngineSuite):
        def open(self, where, options):
            return MyEngine(where / "jobs", options)
"""

from __future__ import annotations

import sys

if pytest := sys.modules.get("pytest"):
    # Else a test of another repository would fail with no more than "AssertionError".
    pytest.register_assert_rewrite(*(f"{__name__}.{part}" for part in ("engine", "kombu", "model", "peer")))
