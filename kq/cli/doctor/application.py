"""The doctor on the application: that it imports, what job types it has, and what of their arguments is not checked."""

from __future__ import annotations

from collections.abc import Iterator

from kq.app import App
from kq.cli.doctor.finding import Finding


def look(app: App, where: str | None) -> Iterator[Finding]:
    """where: as it was named; None when nothing was. Who calls has imported it."""
    types = ", ".join(sorted(app.jobs))
    if where is None:
        fix = "-A module:app, KQ_APP, or app: in kq.yaml; kq init makes one."
        yield Finding("warn", "application", "none is named", fix)
    elif types:
        yield Finding("ok", "application", f"{where} has {len(app.jobs)} job types: {types}")
    else:
        yield Finding("warn", "application", f"{where} has no job types", "Define one: @app.job")
    for job_type in app.jobs.values():
        for name in job_type.signature.unchecked:
            what = f"parameter {name!r} of {job_type.name} has an annotation that JSON can't be checked against"
            fix = "Any JSON arrives as it is. Use a dataclass, a TypedDict or a msgspec.Struct, or no annotation."
            yield Finding("warn", "application", what, fix)
