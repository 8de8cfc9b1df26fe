"""An entry of the ledger as people and scripts see it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from kq.control import Entry


def as_data(entry: Entry) -> dict[str, Any]:
    """The form that scripts rely on."""
    return {
        "key": entry.key,
        "stage": entry.stage,
        "type": entry.type,
        "job": entry.job,
        "attempt": entry.attempt,
        "worker": entry.worker,
        "since": entry.since,
        "outcome": msgspec.json.decode(entry.outcome),
        "note": entry.note,
        "keep": entry.keep,
    }


def when(instant: float) -> str:
    """An instant for people, by the clock on their wall."""
    return datetime.fromtimestamp(instant).strftime("%Y-%m-%d %H:%M:%S")
