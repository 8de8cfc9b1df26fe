"""kq: jobs and workers under one contract, on whatever broker you have.

What is public is listed in `__all__`; everything else may change. Names are imported when
they are first used, so that `kq --version` costs no more than the interpreter.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # typing's own would cost 8 ms; type checkers know it by its name
if TYPE_CHECKING:
    from kq import logging as logging
    from kq import mail as mail
    from kq import otel as otel
    from kq import sentry as sentry
    from kq.app import App
    from kq.control import Control, Where
    from kq.effects.context import current_job
    from kq.effects.observer import Execution, Observer
    from kq.errors import (
        BadJob,
        BadNetwork,
        BadStorage,
        BrokerError,
        BrokerFull,
        BrokerUnreachable,
        Bury,
        ConfigError,
        EffectBusy,
        ExecutorDied,
        InDoubt,
        JobBuried,
        JobError,
        JobFailed,
        JobRevoked,
        KqError,
        MessageError,
        NotDone,
        NotRepaired,
        NotUnique,
        ResultExpired,
        ResultTimeout,
        Retry,
        SoftTimeout,
        StreamCut,
    )
    from kq.handles.handle import Handle, as_completed
    from kq.jobtype import JobType
    from kq.values.failure import FAILURES
    from kq.values.job import Job, State
    from kq.values.policy import Delays, Exponential, Fixed, Never, Polynomial, PublishPolicy, RetryPolicy, by_error
    from kq.values.secret import Secret
    from kq.values.unique import Unique, by_arguments
    from kq.worker import Worker

__version__ = "0.1.0"

#: The public names of each module.
_NAMES = {
    "kq.app": "App",
    "kq.control": "Control Where",
    "kq.effects.context": "current_job",
    "kq.effects.observer": "Execution Observer",
    "kq.errors": (
        "BadJob BadNetwork BadStorage BrokerError BrokerFull BrokerUnreachable Bury ConfigError EffectBusy "
        "ExecutorDied InDoubt JobBuried JobError JobFailed JobRevoked KqError MessageError NotDone "
        "NotRepaired NotUnique ResultExpired ResultTimeout Retry SoftTimeout StreamCut"
    ),
    "kq.handles.handle": "Handle as_completed",
    "kq.jobtype": "JobType",
    "kq.values.failure": "FAILURES",
    "kq.values.job": "Job State",
    "kq.values.policy": "Delays Exponential Fixed Never Polynomial PublishPolicy RetryPolicy by_error",
    "kq.values.secret": "Secret",
    "kq.values.unique": "Unique by_arguments",
    "kq.worker": "Worker",
}
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = [
    "FAILURES",
    "App",
    "BadJob",
    "BadNetwork",
    "BadStorage",
    "BrokerError",
    "BrokerFull",
    "BrokerUnreachable",
    "Bury",
    "ConfigError",
    "Control",
    "Delays",
    "EffectBusy",
    "Execution",
    "ExecutorDied",
    "Exponential",
    "Fixed",
    "Handle",
    "InDoubt",
    "Job",
    "JobBuried",
    "JobError",
    "JobFailed",
    "JobRevoked",
    "JobType",
    "KqError",
    "MessageError",
    "Never",
    "NotDone",
    "NotRepaired",
    "NotUnique",
    "Observer",
    "Polynomial",
    "PublishPolicy",
    "ResultExpired",
    "ResultTimeout",
    "Retry",
    "RetryPolicy",
    "Secret",
    "SoftTimeout",
    "State",
    "StreamCut",
    "Unique",
    "Where",
    "Worker",
    "as_completed",
    "by_arguments",
    "by_error",
    "current_job",
]


def __getattr__(name: str) -> object:
    """Import a public name from its module on first use (PEP 562)."""
    if name in ("mail", "logging", "otel", "sentry"):
        return import_module(f"kq.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'kq' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
