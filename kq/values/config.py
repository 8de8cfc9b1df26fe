"""Settings: which there are, in which groups, and what counts when nobody says. Where they are found is given.py's."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, Literal, get_type_hints

import msgspec

from kq.mailurl import MAIL
from kq.url import DEFAULT
from kq.values.policy import MESSAGE_RETRIES, PublishPolicy
from kq.values.setting import (
    Accepted,
    Addresses,
    AtLeastOne,
    Conditions,
    Credentials,
    Names,
    Queues,
    Seconds,
    Size,
    Webhook,
)

#: The least and the most that some durations may be, in seconds: clocks and brokers can't wait for everything.
SPANS = {"lease.length": (1.0, 86400.0), "submit_timeout": (0.001, 86400.0)}


class Lease(msgspec.Struct, frozen=True):
    """length: seconds of silence after which a worker is taken for dead and its jobs go to others; 1 s to a day."""

    length: float = 15.0


class Worker(msgspec.Struct, frozen=True):
    """How `kq worker` runs.

    queues: what it takes jobs from, and how many of each at once; none named: the queues of the app's job types.
    pool: what its executors are made of. concurrency: jobs at once, None for one per CPU, 10 threads or 100 coroutines.
    processes: supervisors, each with executors of its own. grace: seconds that running jobs are given when it is told
    to end.
    max_jobs: an executor that ran so many jobs is replaced. max_rss: one that holds four fifths of
    so many bytes is too, and one that passes them while jobs run is killed.
    unfit_after: when bad storage ended so many different jobs here, the worker ends with exit code 74; 0: never.
    unfit_within: the time within which they are counted.
    max_retries: the most retries that the policy of a message may grant; those that the app declares have no limit.
    accept: job types that may run from queues that they are not declared for, TYPE@QUEUE; * stands for anything.
    remote_control: whether it obeys orders: pause, resume, revoke, retire, set, and who listens to events.
    debuggable: whether its processes may leave core files, and be traced by others of their user (gdb, py-spy).
    control: whether it makes control's rounds, unless another does.
    health: HOST:PORT where it answers /livez, /readyz and /metrics over HTTP; nowhere by default.
    """

    queues: Queues = msgspec.field(default_factory=Queues)
    pool: Literal["process", "thread", "async"] = "process"
    concurrency: AtLeastOne | None = None
    processes: AtLeastOne = 1
    grace: float = 30.0
    max_jobs: AtLeastOne | None = None
    max_rss: Size | None = None
    unfit_after: Annotated[int, msgspec.Meta(ge=0)] = 3
    unfit_within: float = 60.0
    max_retries: Annotated[int, msgspec.Meta(ge=0)] = MESSAGE_RETRIES
    accept: Accepted = Accepted()
    remote_control: bool = True
    debuggable: bool = False
    control: bool = True
    health: str | None = None


class Results(msgspec.Struct, frozen=True):
    """keep: seconds that results are kept; 0 keeps none."""

    keep: float = 3600.0


class Events(msgspec.Struct, frozen=True):
    """What is remembered of events for `kq events --since 10m`.

    keep: seconds that each is; 0: none, and then none is made while nobody listens. most: so many of each worker.
    """

    keep: float = 0.0
    most: AtLeastOne = 10_000


class Streams(msgspec.Struct, frozen=True):
    """How much is kept of what one attempt of a job emits. most: so many chunks; size: so many bytes of them."""

    most: AtLeastOne = 10_000
    size: Size = Size(2**20)


class Alerts(msgspec.Struct, frozen=True):
    """Who is told of what a human must look at, and how often.

    mail: addresses; their server is that of `mail`. sender: whom these mails come from, kq@ this host by default.
    webhook: a URL that JSON is posted to. command: what is started, with the text as its input.
    at_most_every: the time between two digests. most_an_hour: alerts in all; what is too much is in the next digest.
    rules: conditions as kq status --fail-if has them, of which people are told, and again when they are over; none with
    []. after: the time that one must be so, or over.
    """

    mail: Addresses | None = None
    sender: str | None = None
    webhook: Webhook | None = None
    command: str | None = None
    at_most_every: float = 600.0
    most_an_hour: Annotated[int, msgspec.Meta(ge=2)] = 12
    rules: Conditions = Conditions(("oldest>15m", "burials>30/m", "unserved>0", "control<1"))
    after: float = 120.0

    @property
    def wanted(self) -> bool:
        """Whether anybody is to be told."""
        return bool(self.mail or self.webhook or self.command)


class Web(msgspec.Struct, frozen=True):
    """The web page, `kq web`.

    listen: HOST:PORT. users: who may sign in, `NAME: ROLE HASH`; kq web --hash-password makes a hash. tokens: the same
    for programs that use the API; kq web --new-token makes one. hosts: the names by which browsers reach it, where that
    is not this host's own address. proxies: addresses of proxies whose X-Forwarded-For and -Proto are believed.
    certificate, key: files (PEM); with them it speaks HTTPS. hide: names of arguments whose values are not shown,
    beside those that kq knows; * stands for anything. traces: where traces are looked at, a URL in which {trace} stands
    for the id of one.
    """

    listen: str = "127.0.0.1:8520"
    users: Credentials = msgspec.field(default_factory=Credentials)
    tokens: Credentials = msgspec.field(default_factory=Credentials)
    hosts: Names = Names()
    proxies: Names = Names()
    certificate: str | None = None
    key: str | None = None
    hide: Names = Names()
    traces: str | None = None


class Config(msgspec.Struct, frozen=True):
    """Every setting. url: the broker. state: where results are kept, the broker itself where it can. app: module:name.

    mail: the server for mailers that name none, or file:///folder, or log: for a dry run.
    submit_timeout: seconds that one submit may take in all.
    protected: `kq monitor` and `kq web` only look, the monitor unless it is told otherwise; for what must not be
    changed by mistake.
    """

    url: str = DEFAULT
    state: str | None = None
    app: str | None = None
    mail: str = MAIL
    submit_timeout: float = 5.0
    protected: bool = False
    lease: Lease = Lease()
    worker: Worker = msgspec.field(default_factory=Worker)
    publish_retry_policy: PublishPolicy = PublishPolicy()
    results: Results = Results()
    streams: Streams = Streams()
    events: Events = Events()
    alerts: Alerts = Alerts()
    web: Web = msgspec.field(default_factory=Web)


# Which keys there are.


@cache
def fields_of(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Its fields and their types, which are text until they are looked up."""
    return get_type_hints(kind, include_extras=True)


def _keys(kind: type[msgspec.Struct], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, hint in fields_of(kind).items():
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            yield from _keys(hint, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", Seconds if hint is float else hint


#: Dotted key and type of every setting.
SCHEMA: dict[str, Any] = dict(_keys(Config))
SECTIONS = {key.rpartition(".")[0] for key in SCHEMA if "." in key}
#: Keys whose value may lie in a file of its own, named by key_file.
SECRET = ("url", "state", "mail", "alerts.webhook")
