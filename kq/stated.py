"""The version of what is told as JSON, by command line, web and logs alike (docs/schema/cli-1.json)."""

from __future__ import annotations

from typing import Any

#: What a later version adds keeps the number; what is taken away, or means something else, gets another.
SCHEMA = 1


def stated(data: Any) -> Any:
    """data, in which each object that stands alone, on a line or in a list, says first by which version it is told."""
    if isinstance(data, dict):
        return {"schema": SCHEMA, **data}
    return [stated(each) for each in data] if isinstance(data, list) else data
