"""A request, and all that is needed to answer it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from urllib.parse import parse_qs, quote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from kq.control.veil import Veil
from kq.errors import BadArguments, Forbidden
from kq.web.desk import Desk
from kq.web.identity import User
from kq.web.sessions import Seals

COOKIE = "kq_session"
#: The field of a form, and the header of a program, that bring the seal back.
SEAL, SEAL_HEADER = "seal", "x-kq-seal"
FORM = "application/x-www-form-urlencoded"
#: Fields that a form has at most: as many jobs may be ticked.
FIELDS = 2000


@dataclass(frozen=True, slots=True)
class Asked:
    """user: who asks; visit: the id that his browser keeps. signs_in: whether people sign in here."""

    request: Request
    user: User
    visit: str
    desk: Desk
    veil: Veil
    seals: Seals
    signs_in: bool

    @property
    def name(self) -> str:
        """What the path names."""
        return str(self.request.path_params["name"])

    @property
    def seal(self) -> str:
        """What a form of this visit brings back."""
        return self.seals.seal(self.visit)

    @property
    def by(self) -> str:
        """How the audit tells who did it."""
        return self.user.name

    @property
    def who(self) -> str:
        """By what he is told from others; "" where there are no others."""
        return "" if self.user.known_by == "link" else self.user.name

    def query(self) -> dict[str, list[str]]:
        """What the address says behind its question mark. Raises BadArguments."""
        try:
            return parse_qs(self.request.url.query, keep_blank_values=True, max_num_fields=FIELDS)
        except ValueError as error:
            raise BadArguments(f"the address can't be read: {error}") from error

    @property
    def address(self) -> str:
        """The address of this page, as its links write it: of the route and its name, percent-encoded."""
        route: str = self.request.scope["route"].path
        name = self.request.path_params.get("name", "")
        path = route.replace("{name:kq_name}", quote(name, safe=""))
        query = self.request.scope["query_string"].decode("latin-1")
        return root_of(self.request) + path + (f"?{query}" if query else "")

    def at(self, *parts: str) -> str:
        """The address of a page here: at("jobs", id)."""
        return root_of(self.request) + "/" + "/".join(quote(part, safe="") for part in parts)


def root_of(request: Request) -> str:
    """Where this page is mounted: "" at the top."""
    return str(request.scope.get("root_path", "")).rstrip("/")


async def form_of(request: Request) -> dict[str, list[str]]:
    """The fields of a form. Raises BadArguments for anything else."""
    kind = request.headers.get("content-type", FORM).partition(";")[0].strip().lower()
    if kind != FORM:
        raise BadArguments(f"a form is sent as {FORM}, not as {kind[:80]}", fix="Nothing was done.")
    try:
        return parse_qs((await request.body()).decode(), keep_blank_values=True, max_num_fields=FIELDS)
    except ClientDisconnect:
        raise BadArguments("the form is too large") from None
    except ValueError as error:
        raise BadArguments(f"the form can't be read: {error}") from error


def must_be_sealed(asked: Asked, seal: str) -> None:
    """Raise Forbidden unless a form of this visit, or a program with a token of its own, asks for this change."""
    if asked.user.known_by != "token" and not asked.seals.fits(asked.visit, seal):
        raise Forbidden(
            "this form is older than the page's program, or not ours", fix="Nothing was done. Open the page anew."
        )


def visit_of(request: Request) -> str:
    """The id that the browser keeps, "" when it keeps none."""
    return request.cookies.get(COOKIE, "")[:200]


def new_visit() -> str:
    """An id for a browser that has none."""
    return secrets.token_urlsafe(32)


def keep_visit(request: Request, response: Response, visit: str) -> None:
    """Let the browser keep it: for this page alone, out of reach of scripts and of other sites."""
    response.set_cookie(
        COOKIE,
        visit,
        path=root_of(request) or "/",
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )


def local(address: str) -> str:
    """address, if it leads to this server and nowhere else; else ""."""
    fits = address.startswith("/") and not address.startswith(("//", "/\\"))
    return address if fits and not any(ord(char) < 33 or char == "\\" for char in address) else ""
