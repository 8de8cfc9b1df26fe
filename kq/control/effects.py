"""What people decide about side effects: that one happened, or that it may happen (again). Audited like every act."""

from __future__ import annotations

from typing import Any

import msgspec

from kq.control import audit
from kq.control.audit import Act
from kq.control.view import View
from kq.errors import NotRepaired
from kq.ledger import Entry, Ledger
from kq.standing import caller


class Effects(View):
    """Looks into the ledger, and puts it right."""

    def effects(self, prefix: str = "", *, doubt: bool = False, limit: int = 1000) -> list[Entry]:
        """Entries of the ledger whose key begins with prefix, by key. doubt: only those that nobody knows of."""
        entries = Ledger(self._app.store).entries(prefix, limit)
        return [entry for entry in entries if entry.stage == "doubt" or not doubt]

    def effect_happened(self, key: str, outcome: Any = None, *, reason: str = "", by: str = "") -> Entry:
        """Say of an effect in doubt that it happened; outcome is what its jobs complete with, once kicked.

        Returns the entry as it was. Raises NotRepaired when there is none, or none in doubt.
        """
        entry = self._entry(key)
        if entry.stage == "done":
            raise NotRepaired(f"the effect {key!r} is known to be done")
        self._tell(entry, "said that it happened", reason, by)
        note = f"{by or caller()} said that it happened: {reason or 'no reason given'}"
        if not Ledger(self._app.store).decide(entry, msgspec.json.encode(outcome), note):
            raise NotRepaired(_MOVED.format(key))
        return entry

    def lift_effect(self, key: str, *, reason: str = "", by: str = "") -> Entry:
        """Forget an effect, so that it may happen (again). Returns the entry. Raises NotRepaired when there is none."""
        entry = self._entry(key)
        self._tell(entry, "lifted", reason, by)
        if not Ledger(self._app.store).lift(entry):
            raise NotRepaired(_MOVED.format(key))
        return entry

    def _entry(self, key: str) -> Entry:
        entry = Ledger(self._app.store).find(key)
        if entry is None:
            raise NotRepaired(f"the ledger has no effect {key!r}; kq effects ls lists them")
        return entry

    def _tell(self, entry: Entry, act: str, reason: str, by: str) -> None:
        done = Act(self._app.store.now(), by or caller(), act, type=entry.type, reason=reason, effect=entry.key)
        self._app.store.write([audit.line(done)])
        audit.log.info("%s", done)


_MOVED = "somebody else is at the effect {!r}, or has just decided; look again"
