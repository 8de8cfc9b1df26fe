"""Jobs whose costs are counted."""

from __future__ import annotations

import kq

app = kq.App("costs", keep=600, lease=120)


@app.job
def answer(text: str) -> int:
    """Return something that is kept."""
    return len(text)


@app.job(keep=0)
def nothing(text: str) -> None:
    """Do nothing that anybody asks for."""


@app.job(retry_policy=kq.Fixed(delay=3600, retries=5))
def fail(text: str) -> None:
    """Fail, to be repeated in an hour."""
    raise ConnectionError(text)


@app.job
def bad(text: str) -> None:
    """Fail, to be buried."""
    raise ValueError(text)


@app.effect(key=lambda text: text)
def effect(text: str) -> None:
    """Happen once."""
