"""What the shell offers for an argument that is begun: names that the broker, or the application, knows."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import click
from click.shell_completion import CompletionItem

from kq.app import App
from kq.cli.frame import flags
from kq.cli.target import any_app, settings
from kq.control import Control, JobInfo
from kq.job import State

#: Seconds that the broker may take to answer: somebody waits with a finger on the tab key.
PATIENCE = 1.0
#: So many are offered at most.
MOST = 50

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def offering(look: Callable[[], Iterable[tuple[str, str]]]) -> Completer:
    """What completes a parameter by names that look() finds, each with what is said about it."""

    def complete(context: click.Context, option: click.Parameter, begun: str) -> list[CompletionItem]:
        quiet = io.StringIO()
        try:
            with context.scope(cleanup=False), redirect_stdout(quiet), redirect_stderr(quiet):
                found = dict(look())
        except Exception:  # whatever is wrong, a shell that completes is not the place to tell
            return []
        return [CompletionItem(name, help=about) for name, about in found.items() if name.startswith(begun)][:MOST]

    return complete


@contextmanager
def _control() -> Iterator[Control]:
    """Control that does not wait for long, and imports no application."""
    settings()
    app = App("kq", flags().url, submit_timeout=PATIENCE)
    try:
        with Control(app) as control:
            yield control
    finally:
        app.close()


def _queues() -> Iterator[tuple[str, str]]:
    with _control() as control:
        yield from ((name, "") for name in control.queue_names())


def _types() -> Iterator[tuple[str, str]]:
    app = any_app(settings())
    yield from ((name, (job_type.__doc__ or "").partition("\n")[0]) for name, job_type in app.jobs.items())
    yield from ((name.rpartition(".")[2], "") for name in app.jobs)


def _jobs(*states: State) -> Callable[[], Iterator[tuple[str, str]]]:
    def look() -> Iterator[tuple[str, str]]:
        with _control() as control:
            for state in states or (None,):
                yield from ((job.id, _about(job)) for job in control.jobs(None, state, MOST))

    return look


def _about(job: JobInfo) -> str:
    return f"{job.type}, {job.state.value}" + (f": {job.error[:60]}" if job.error else "")


def _workers() -> Iterator[tuple[str, str]]:
    with _control() as control:
        yield from ((beat.worker.name, beat.health.value) for beat in control.heartbeat_check())


def _effects() -> Iterator[tuple[str, str]]:
    with _control() as control:
        yield from ((entry.key, entry.stage) for entry in control.effects(limit=MOST))


QUEUE, TYPE, WORKER, EFFECT = map(offering, (_queues, _types, _workers, _effects))
JOB, BURIED = offering(_jobs()), offering(_jobs(State.BURIED))
