"""What people decide about side effects: that one happened, or that it may happen (again). Audited like every act."""

from __future__ import annotations

from fnmatch import fnmatchcase
from itertools import islice
from typing import Any, Literal, TypeAlias

from kq.control import audit
from kq.control.repair import Repair
from kq.effects.ledger import Entry, Ledger, Stage
from kq.errors import NotRepaired
from kq.handles.act import Act
from kq.handles.standing import caller
from kq.values.message import encode_result

#: What a human found out about an effect in doubt: it is done, or is to be repeated.
Answer: TypeAlias = Literal["done", "repeat"]
#: So many entries are looked through, at most, for those that are meant.
MOST = 10_000


class Effects(Repair):
    """Looks into the ledger, and puts it right."""

    def effects(
        self, prefix: str = "", *, stage: Stage | None = None, type: str = "", text: str = "", limit: int = 1000
    ) -> list[Entry]:
        """Entries of the ledger whose key begins with prefix, by key.

        stage: only those "intended", "doubt" or "done". type: of this job type, or of those that a pattern with * fits.
        text: found in the key, the job's id, the outcome or the note, in any case of letters. The first MOST are looked
        through; those in doubt are all found.
        """
        entries = self._ledger.doubts() if stage == "doubt" else self._ledger.entries(prefix, MOST)
        fits = (entry for entry in entries if entry.key.startswith(prefix) and _fits(entry, stage, type, text))
        return list(islice(fits, limit))

    def effect(self, key: str) -> Entry | None:
        """What the ledger knows of an effect."""
        return self._ledger.find(key)

    def doubts(self, job: str) -> list[Entry]:
        """The effects that a job waits for an answer about."""
        return self._ledger.doubts(job)

    def answer(self, id: str, answer: Answer, outcome: Any = None, *, reason: str = "", by: str = "") -> list[Entry]:
        """Say of the effects that a buried job is in doubt about what a human found out, and put the job back.

        "done": they happened, and outcome is what is recorded. "repeat": they did not, and are done when the job runs.
        Returns the entries as they were. Raises NotRepaired when none is in doubt, or the job is not there, TypeError
        for an outcome that JSON cannot carry.
        """
        said = encode_result(outcome)
        entries = self._ledger.doubts(id)
        if not entries:
            raise NotRepaired(f"job {id} is in doubt about no effect", fix=f"See kq jobs show {id}; kick it as it is.")
        for entry in entries:
            self._decide(entry, answer, said, reason, by)
        refused = [each.refused for each in self.kick(ids=[id], reason=reason, by=by)]
        if refused != [""]:
            raise NotRepaired(
                f"{answer} is noted, but job {id} was not kicked: {''.join(refused) or 'it is not there'}"
            )
        return entries

    def lift_effect(self, key: str, *, reason: str = "", by: str = "") -> Entry:
        """Forget an effect, so that it may happen (again). Returns the entry.

        Raises NotRepaired when there is none, or a worker is at it.
        """
        entry = self._ledger.find(key)
        if entry is None:
            raise NotRepaired(f"the ledger has no effect {key!r}", fix="kq effects ls lists them.")
        if self._ledger.is_at_work(entry):
            raise NotRepaired(f"job {entry.job} is at the effect {key!r} right now, on {entry.worker}")
        self._decide(entry, "repeat", b"null", reason, by)
        return entry

    @property
    def _ledger(self) -> Ledger:
        return Ledger(self._app.store, patience=0.0)  # people ask again

    def _decide(self, entry: Entry, answer: Answer, outcome: bytes, reason: str, by: str) -> None:
        by = by or caller()
        act = {"done": "said that it happened", "repeat": "lifted"}[answer]
        told = Act(self._app.store.now(), by, act, job=entry.job, type=entry.type, reason=reason, effect=entry.key)
        with audit.leaving(self._app.store, told):
            if answer == "done":
                note = f"{by} said that it happened: {reason or 'no reason given'}"
                made = self._ledger.decide(entry, outcome, note)
            else:
                made = self._ledger.lift(entry)
            if not made:
                raise NotRepaired(f"somebody else is at the effect {entry.key!r}, or has just decided; look again")


def _fits(entry: Entry, stage: Stage | None, type: str, text: str) -> bool:
    if stage not in (None, entry.stage) or (type and not fnmatchcase(entry.type, type)):
        return False
    words = "\n".join([entry.key, entry.job, bytes(entry.outcome).decode(), entry.note])
    return text.casefold() in words.casefold()
