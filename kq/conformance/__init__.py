"""The suites that prove what kq promises, for kq itself and for stores and transports in other repositories."""

from __future__ import annotations

import sys

# Workers, which import jobs from here, have no pytest.
if pytest := sys.modules.get("pytest"):
    # Else a test of another repository would fail with no more than "AssertionError".
    pytest.register_assert_rewrite(*(f"{__name__}.{part}" for part in ("between", "contract", "store")))
