"""`kq worker`: execute jobs."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import click

from kq.app import App
from kq.cli import USUAL_THRESHOLD
from kq.cli.changes import watch
from kq.cli.frame import Duration, verb
from kq.cli.lines import LOG_FORMAT, start_logging
from kq.cli.near import did_you_mean
from kq.cli.target import named_app, settings
from kq.errors import ConfigError
from kq.values.config import Worker as Wish
from kq.worker import Worker
from kq.worker.cradle import Forked
from kq.worker.kin import be_private
from kq.worker.nursery import fork_nursery
from kq.worker.processes import Processes
from kq.worker.program import CONCURRENCY

log = logging.getLogger("kq.worker")


@verb("worker")
@click.option("-Q", "--queues", metavar="A,B:2", help="Queues, and how many jobs of each at once. [those of the app]")
@click.option(
    "-c", "--concurrency", type=click.IntRange(1), help="Jobs at once. [one per CPU, 10 threads, 100 coroutines]"
)
@click.option("--pool", type=click.Choice(list(CONCURRENCY)), help="What executors are made of. [process]")
@click.option("--processes", type=click.IntRange(1), help="Workers side by side. [1]")
@click.option("--grace", type=Duration(), help="When told to end, finish what runs within this. [30s]")
@click.option("--max-jobs", type=click.IntRange(1), help="Replace an executor after so many jobs.")
@click.option("--max-rss", metavar="SIZE", help="Let no executor hold more memory, such as 512MiB.")
@click.option("--control/--no-control", default=None, help="Make control's rounds, unless another does. [--control]")
@click.option("--health", metavar="HOST:PORT", help="Answer /livez, /readyz and /metrics there. [nowhere]")
@click.option("--reload/--no-reload", help="Begin anew when code or config is saved. [--no-reload]")
@LOG_FORMAT
@click.option("--orders", type=int, default=-1, hidden=True)
def command(orders: int, reload: bool, format: str | None, **given: object) -> int | Callable[[], None]:
    """Execute jobs until told to end.

    TERM or INT (ctrl-C): finish what runs, give back the rest; a second time: at once, nothing is lost either.
    HUP: the same, then start anew with new code, if that imports. USR1: log what runs where. USR2: kill the longest
    job's executor.
    When bad storage ended several jobs within a minute, it ends by itself, with exit code 74.
    """
    loaded = settings(**{f"worker__{name}": value for name, value in given.items()})
    wish = loaded.config.worker
    if not wish.debuggable:
        be_private()  # before there is a secret in it that another process could read, and a nursery that shares it
    several = reload or wish.processes > 1
    nursery = None if several or threading.active_count() > 1 else fork_nursery(loaded.config.url, loaded.config.state)
    if not isinstance(nursery, Forked | None):
        gc.set_threshold(*USUAL_THRESHOLD)
        return nursery
    start_logging(format)
    alone = [*sys.argv[1:], "--processes", "1", "--no-reload"]
    if reload:
        return reloading([alone] * wish.processes, loaded.file)
    if wish.processes > 1:
        if wish.health is not None:
            raise ConfigError(
                f"worker.health is one address, and worker.processes is {wish.processes}",
                fix="Run one worker with as many jobs at once, or several commands with an address each.",
            )
        return Processes([_program(alone)] * wish.processes).run()
    worker = make_worker(named_app(loaded), wish, str(loaded.config.app))
    if nursery is not None:
        worker.supervisor.pool.cradle.adopt(nursery)
    gc.freeze()  # what is there now stays to the end: nobody need look for garbage in it
    worker.run(orders)
    return 0


def reloading(lines: Sequence[Sequence[str]], config: Path | None) -> int:
    """Run command lines of kq, and let them begin anew when code or config is saved; returns the exit code.

    One that does not start is started again when something was saved.
    """

    def told(changed: Collection[str]) -> None:
        log.info("changed: %s", ", ".join(changed))
        os.kill(os.getpid(), signal.SIGHUP)

    programs = Processes(list(map(_program, lines)), lasting=True)
    watch(Path.cwd(), config, told)
    return programs.run()


def _program(line: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "kq", *line]


def make_worker(app: App, wish: Wish, where: str) -> Worker:
    """A worker as the settings wish, that tells when it is ready."""
    worker = Worker(
        app,
        queues=queues_of(wish),
        concurrency=wish.concurrency,
        pool=wish.pool,
        grace=wish.grace,
        max_jobs=wish.max_jobs or 0,
        max_rss=wish.max_rss or 0,
        unfit_after=wish.unfit_after,
        unfit_within=wish.unfit_within,
        accept=wish.accept,
        remote_control=wish.remote_control,
        debuggable=wish.debuggable,
        where=where,
        control=wish.control,
        health=wish.health,
    )
    if not app.broker.traits.shared:
        log.warning("%s lives in this process only: no other program can submit to it", app.address.redacted)

    for name, hint in misspelt(wish.queues, app).items():
        log.warning("no job type of app %s uses the queue %s. %s", app.name, name, hint)
    for name, hint in misspelt(_queues_of_rules(app), app).items():
        log.warning("no job type of app %s uses the queue %s of alerts.rules. %s", app.name, name, hint)

    def ready() -> None:
        log.info("ready: app %s at %s, pool %s", app.name, app.address.redacted, wish.pool)

    worker.supervisor.on_connect = ready
    return worker


def misspelt(queues: Iterable[str], app: App) -> dict[str, str]:
    """Those of queues that are much like one that the app's job types use, and are none of those: what was meant."""
    used = {job_type.settings.queue or "" for job_type in app.jobs.values()}
    return {name: hint for name in queues if name not in used and (hint := did_you_mean(name, used))}


def _queues_of_rules(app: App) -> Iterator[str]:
    if app.alerts.wanted:
        # Here and not above: who wants none does not pay for all that a snapshot is made of.
        from kq.values.condition import parse_condition

        yield from filter(None, (parse_condition(text).queue for text in app.alerts.rules))


def queues_of(wish: Wish) -> Mapping[str, int] | Sequence[str] | None:
    """The queues to take jobs from, and limits where there are any."""
    if not any(wish.queues.values()):
        return list(wish.queues) or None
    size = wish.concurrency or CONCURRENCY[wish.pool]
    return {name: limit or size for name, limit in wish.queues.items()}
