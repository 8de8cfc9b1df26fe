"""Who somebody is that looks at the page, and what he may do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from starlette.requests import Request

from kq.credential import ROLES, Role


@dataclass(frozen=True, slots=True)
class User:
    """name: as the audit tells it. role: what he may do: "view", "operate" or "edit", each with what comes before it.

    known_by: how he showed who he is. "token": with each request, by a secret that no browser adds by itself.
    "link": he opened a link that `kq web` printed for the user who runs it.
    """

    name: str
    role: Role = "view"
    known_by: str = "page"

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"there is no role {self.role!r}; use one of {', '.join(ROLES)}")
        if not self.name:
            raise ValueError("a user has a name: the audit tells it")

    def may(self, role: Role) -> bool:
        """Whether he may do what takes this role."""
        return ROLES.index(self.role) >= ROLES.index(role)


#: Says who makes a request; None: nobody who may look.
Authorize: TypeAlias = Callable[[Request], User | Awaitable[User | None] | None]
