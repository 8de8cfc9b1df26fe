"""What nobody sees on the monitor, the page or through its API, whatever he may do: what a job says without secrets.

An argument is hidden by its name or its look (`kq.values.redaction`); who edits a job leaves what is hidden as it is,
or writes another value. Ids, keys and names of things are shown as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from msgspec import structs

from kq.control import Control, JobInfo
from kq.values.redaction import redacted, redacted_text, restored

#: Fields of which the text is shown without what looks like a secret, whatever they are part of.
_TEXTS = {
    *("error", "exception", "traceback", "log", "body", "message", "note", "reason", "why", "text", "fix", "stopped"),
    "missing",
}
#: Fields that are hidden by the names in them.
_VALUES = {"args", "arguments", "kwargs", "result", "outcome", "headers", "emitted"}


class Veil:
    """hide: names of arguments that are hidden beside those that look like a secret; * stands for anything.

    longest: characters that a text among them keeps; None: all.
    """

    def __init__(self, hide: Sequence[str] = (), longest: int | None = None) -> None:
        self._hide, self._longest = tuple(hide), longest

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
        return redacted(value, "", self._hide, self._longest)

    def text(self, text: str) -> str:
        """An error's, a log's, or a sentence about a job."""
        return redacted_text(text)

    def job(self, control: Control, job: JobInfo) -> JobInfo:
        """All that is known of a job."""
        args, kwargs = self.arguments(control, job)
        stream = job.emitted
        if stream is not None:
            last = tuple(structs.replace(each, value=self.value(each.value)) for each in stream.last)
            stream = structs.replace(stream, last=last)
        return replace(
            job,
            emitted=stream,
            args=args,
            kwargs=kwargs,
            headers=self.value(job.headers),
            result=self.value(job.result),
            error=self.text(job.error),
            traceback=self.text(job.traceback),
            body=self.text(job.body),
            log=self.text(job.log),
            history=tuple(structs.replace(each, error=self.text(each.error)) for each in job.history),
        )

    def _field(self, name: str, value: Any) -> Any:
        if name in _VALUES and value is not None:
            return self.value(value)
        if name in _TEXTS:
            return self._texts(value)
        return self.data(value)

    def _texts(self, value: Any) -> Any:
        match value:
            case str():
                return self.text(value)
            case list() | tuple():
                return [self._texts(each) for each in value]
            case _:
                return self.data(value)

    def arguments(self, control: Control, job: JobInfo, longest: int | None = None) -> tuple[list[Any], dict[str, Any]]:
        """A job's arguments as they are shown. Those without a name of their own are called as its type calls them.

        longest: characters that a text keeps here; None: as everywhere.
        """
        names, longest = _names(control, job), longest or self._longest
        args = [redacted(value, name, self._hide, longest) for value, name in zip(job.args, names, strict=True)]
        return args, {name: redacted(value, name, self._hide, longest) for name, value in job.kwargs.items()}

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
