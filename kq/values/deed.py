"""Deeds: what a job would have done, had it not been rehearsed."""

from __future__ import annotations

from typing import Literal

import msgspec

from kq.units import format_duration


class Deed(msgspec.Struct, frozen=True, omit_defaults=True):
    """One of them. What it says but its key is without secrets.

    kind: "effect", under a key of the ledger; "mail", which is one too; "submit", or "later", when the job has
    completed; "emit". before: which job did it before, so that it is not done again. call: what is submitted, as a
    call; what is emitted, cut. delay: seconds.
    """

    kind: Literal["effect", "mail", "submit", "later", "emit"]
    key: str = ""
    to: str = ""
    subject: str = ""
    before: str = ""
    id: str = ""
    queue: str = ""
    call: str = ""
    delay: float = 0.0

    def __str__(self) -> str:
        if self.kind in ("effect", "mail"):
            what = f"mail {self.to}: {self.subject} ({self.key})" if self.to else f"do {self.key}"
            return f"would not {what} again: job {self.before} did" if self.before else f"would {what}"
        if self.kind == "emit":
            return f"would emit {self.call}"
        when = " when it has completed" if self.kind == "later" else ""
        wait = f", in {format_duration(self.delay)}" if self.delay else ""
        return f"would submit {self.call} to {self.queue}{when}{wait}"
