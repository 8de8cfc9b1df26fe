"""Every error that kq raises, and those that a job raises to steer kq.

A class exists when somebody would catch it apart. `str()` of an error is one or two lines: what is
wrong with which value, and what to do. `code` names its page in the docs; the families are
KQ1xx config, KQ2xx jobs and messages, KQ3xx broker, KQ4xx worker and lease, KQ5xx control and state.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, TypeAlias

Stored: TypeAlias = Literal["yes", "no", "unknown"]


class KqError(Exception):
    """Something that kq could not do. message: what and why, one line; fix: the next step, one line."""

    code: ClassVar[str] = "KQ001"

    def __init__(self, message: str = "", *, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message}\n{self.fix}" if self.fix else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # An exception is pickled as its class and args, which does not fit the constructors below;
        # errors travel between processes.
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(kind: type[KqError], args: tuple[Any, ...], state: dict[str, Any]) -> KqError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class ConfigError(KqError, ValueError):
    """A setting is wrong. The message says which key, which value, where it came from, what would be right."""

    code = "KQ101"


class AppNotFound(ConfigError):
    """The application named by -A, KQ_APP or `app:` cannot be imported."""

    code = "KQ102"


class MissingDriver(ConfigError):
    """The URL needs a package that is not installed; the fix names the extra."""

    code = "KQ103"


class MessageError(KqError, ValueError):
    """A message cannot be used; it is buried with this reason and the worker lives on (promise C19)."""

    code = "KQ201"

    @property
    def reason(self) -> str:
        return self.message


class NotUnique(KqError):
    """The job was not stored: another one has its unique key. job: the id of that one."""

    code = "KQ203"

    def __init__(self, message: str = "", *, job: str = "", fix: str = "") -> None:
        super().__init__(message, fix=fix)
        self.job = job


class JobError(KqError):
    """Why a job has no result. job: its id; error: what it raised, one line; traceback: text or empty."""

    code = "KQ210"
    _fact: ClassVar[str] = "has no result"
    _fix: ClassVar[str] = "kq jobs show {job} tells what happened."

    def __init__(self, job: str, error: str = "", *, traceback: str = "") -> None:
        message = f"job {job} {self._fact}"
        super().__init__(f"{message}: {error}" if error else message, fix=self._fix.format(job=job))
        self.job = job
        self.error = error
        self.traceback = traceback


class JobFailed(JobError):
    """It failed, will not be tried again and is not kept for a human."""

    code = "KQ211"
    _fact = "failed"


class JobBuried(JobError):
    """It was set aside for a human, whole: it can be looked at and is not lost."""

    code = "KQ212"
    _fact = "was buried"
    _fix = "kq jobs show {job} tells why, with its arguments and history."


class ExecutorDied(JobBuried):
    """It was set aside because the processes that ran it died: killed, crashed, or out of memory."""

    code = "KQ216"


class JobRevoked(JobError):
    """Somebody revoked it, or its deadline passed before it started."""

    code = "KQ213"
    _fact = "was revoked"


class ResultTimeout(JobError, TimeoutError):
    """Waiting for the result ended before the job did; the job goes on."""

    code = "KQ214"
    _fact = "has not ended yet"
    _fix = "It goes on: wait longer, or see kq jobs show {job} and kq workers ls."


class ResultExpired(JobError):
    """The job ended and its result is no longer kept."""

    code = "KQ215"
    _fact = "ended, but its result is no longer kept"
    _fix = "Ask sooner, or set results: {{keep: 1d}} in kq.yaml."


class StreamCut(JobError):
    """The job has ended, and of what it emitted not all was kept."""

    code = "KQ217"
    _fact = "ended, and not all that it emitted is kept"
    _fix = "Emit less, or in larger pieces, or set streams.most and streams.size in kq.yaml."


class BrokerError(KqError):
    """The broker did not do what was asked."""

    code = "KQ301"


#: The next step when something does not answer.
LOOK = "kq doctor looks at the whole way there."
#: How the message begins where nobody has made a broker yet: a file that is not there.
NO_BROKER = "there is no broker yet"


class BrokerUnreachable(BrokerError, ConnectionError):
    """The broker did not answer in time. stored: whether the job was stored (promise C1)."""

    code = "KQ302"

    def __init__(self, message: str = "", *, stored: Stored = "unknown", fix: str = LOOK) -> None:
        super().__init__(message, fix=fix)
        self.stored: Stored = stored


class Unsupported(BrokerError):
    """A promise that this server cannot keep. The message says from which version on it can."""

    code = "KQ303"


class BrokerFull(BrokerError):
    """The broker refuses to store more: memory, disk or queue length. Nothing was stored."""

    code = "KQ304"
    #: As with BrokerUnreachable.
    stored: ClassVar[Stored] = "no"


class LeaseLost(BrokerError):
    """The broker declared this worker dead; what it held is delivered to others. End (promise C4)."""

    code = "KQ401"


class WorkerUnfit(KqError):
    """This worker has ended itself: bad storage ended too many jobs here. Others may do better on another host."""

    code = "KQ403"
    #: With which a worker's program ends then (EX_IOERR of BSD's sysexits.h).
    exit_code: ClassVar[int] = 74


class NotStarted(KqError):
    """A program could not begin, for want of a thread, or as what imports its application was killed. It may again."""

    code = "KQ404"
    #: With which it ends then (EX_OSERR of BSD's sysexits.h).
    exit_code: ClassVar[int] = 71


class BadArguments(KqError):
    """The arguments do not fit the job type."""

    code = "KQ202"


class NotFound(KqError):
    """There is no such job, queue, worker or effect."""

    code = "KQ502"


class NotRepaired(KqError):
    """Nothing was done to the job: it is not there, has changed meanwhile, or is held, and the message says which."""

    code = "KQ503"


class Forbidden(KqError):
    """Somebody asked the web page for what he may not do, or nobody knows who he is."""

    code = "KQ602"


class Busy(KqError):
    """The web page does as much of that as it may at a time."""

    code = "KQ603"


class Steering(KqError):
    """Raised by a job's own code to say what shall become of it."""

    code = "KQ220"


class BadJob(Steering):
    """This job can't be done, now or later: it is not retried but buried for a human."""

    code = "KQ221"


class BadStorage(Steering):
    """This machine can't do it (disk full, database gone): let another worker try; attempts stay as they are."""

    code = "KQ222"


class BadNetwork(Steering):
    """The network to something this job needs is gone: let it run again later; attempts stay as they are."""

    code = "KQ223"


class Retry(Steering):
    """Run this job again, as often as its retry policy allows; 5 times where that is by_error and names no such thing.

    delay: seconds until then, at most a year, or None for what the policy says.
    """

    code = "KQ224"

    def __init__(self, message: str = "", *, delay: float | None = None) -> None:
        if delay is not None and not 0 <= delay <= 366 * 86400:
            raise ValueError(f"delay {delay} is out of range; use 0 s to a year")
        super().__init__(message)
        self.delay = delay


class Bury(Steering):
    """Set this job aside for a human, now."""

    code = "KQ225"


class InDoubt(Bury):
    """A side effect was begun, and nobody knows whether it happened: a human has to say (promise C13)."""

    code = "KQ226"


class DoubtStands(BadJob):
    """A side effect is in doubt and stays so, as its type says: this job is not done that way, its fallback answers."""

    code = "KQ228"


class EffectBusy(BadNetwork):
    """Another job is at the same side effect right now: this one waits; its attempts stay as they are."""

    code = "KQ227"


class NotDone(KqError):
    """Raised inside a side effect that failed when it is certain that nothing happened: it may be tried again."""

    code = "KQ230"


class SoftTimeout(KqError, TimeoutError):
    """Raised inside a job that ran past its timeout, so that it can clean up; soon after it is killed."""

    code = "KQ402"


def all_errors() -> list[type[KqError]]:
    """KqError and every class below it, by code."""
    found: list[type[KqError]] = []
    waiting: list[type[KqError]] = [KqError]
    while waiting:
        kind = waiting.pop()
        found.append(kind)
        waiting.extend(kind.__subclasses__())
    return sorted(found, key=lambda kind: kind.code)
