"""What a user of a shared SQLite file keeps there, and the forms of what goes in and comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from kq_transports.engine import EngineError

Row: TypeAlias = tuple[Any, ...]
Values: TypeAlias = Sequence[Any] | Mapping[str, Any]


class Schema(msgspec.Struct, frozen=True):
    """The tables of one user of the file. tables: CREATE … IF NOT EXISTS, separated by semicolons.

    version: rises when a change of the tables would mislead an older program, which then refuses the file.
    """

    user: str
    version: int
    tables: str

    def check(self, version: int, path: Path) -> None:
        """Raises EngineError when the tables in the file at path, of that version, are not to be understood here."""
        if version > self.version:
            raise EngineError(
                f"{path} was written by a newer version of kq, which keeps its {self.user} otherwise; upgrade"
            )
