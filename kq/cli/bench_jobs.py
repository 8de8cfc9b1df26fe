"""The job of `kq bench`: nothing, so that what is measured is kq and its broker."""

from __future__ import annotations

import kq

app = kq.App("bench")


@app.job(name="kq.bench.nothing", keep=60)
def nothing(number: int) -> int:
    """Return number."""
    return number
