"""What nobody sees on the page or through its API, whatever he may do: arguments, results and errors without secrets.

An argument is hidden by its name or its look (`kq.redaction`); who edits a job leaves what is hidden as it is, or
writes another value. Ids, keys and names of things are shown as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kq.control import Control, JobInfo
from kq.redaction import redacted, redacted_text, restored

#: Fields of which the text is shown without what looks like a secret, whatever they are part of.
_TEXTS = {"error", "exception", "traceback", "log", "body", "message", "note", "reason", "why"}
#: Fields that are hidden by the names in them.
_VALUES = {"args", "arguments", "kwargs", "result", "outcome", "headers"}


class Veil:
    """hide: names of arguments that are hidden beside those that look like a secret; * stands for anything."""

    def __init__(self, hide: Sequence[str] = ()) -> None:
        self._hide = tuple(hide)

    def data(self, data: Any) -> Any:
        """Anything that is told as JSON."""
        match data:
            case dict():
                return {name: self._field(str(name), value) for name, value in data.items()}
            case list() | tuple():
                return [self.data(each) for each in data]
            case _:
                return data

    def value(self, value: Any) -> Any:
        """A result, or a part of one."""
        return redacted(value, "", self._hide, None)

    def _field(self, name: str, value: Any) -> Any:
        if name in _VALUES and value is not None:
            return self.value(value)
        if name in _TEXTS and isinstance(value, str):
            return redacted_text(value)
        return self.data(value)

    def arguments(self, control: Control, job: JobInfo) -> tuple[list[Any], dict[str, Any]]:
        """A job's arguments as they are shown. Those without a name of their own are called as its type calls them."""
        names = _names(control, job)
        args = [redacted(value, name, self._hide, None) for value, name in zip(job.args, names, strict=True)]
        return args, {name: redacted(value, name, self._hide, None) for name, value in job.kwargs.items()}

    def whole(
        self, control: Control, job: JobInfo, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None
    ) -> tuple[list[Any] | None, dict[str, Any] | None]:
        """Arguments that somebody wrote who saw those of job as they are shown. Raises ValueError."""
        shown_args, shown_kwargs = self.arguments(control, job)
        return (
            None if args is None else restored(list(args), shown_args, job.args),
            None if kwargs is None else restored(dict(kwargs), shown_kwargs, job.kwargs),
        )


def _names(control: Control, job: JobInfo) -> list[str]:
    known = control.app.jobs.get(job.type)
    names = [] if known is None else list(known.signature.positional)
    return [*names[: len(job.args)], *[""] * (len(job.args) - len(names))]
