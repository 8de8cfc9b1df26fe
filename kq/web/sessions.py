"""Signing in: passwords, sessions, tokens, and how often one may try.

Sessions are in memory: they end with this process. Nothing here waits; what takes long (a password's hash) is asked for
in a thread.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from kq.clock import SYSTEM, Clock
from kq.credential import Credential, password_hash
from kq.web.identity import User
from kq.web.limits import group_of

K = TypeVar("K")
V = TypeVar("V")

#: Seconds that a session lasts in all, and without a request.
LONGEST, IDLE = 12 * 3600.0, 3600.0
#: So many sessions at most; the one that was used longest ago goes first.
SESSIONS = 1000
#: So many failed tries within PERIOD seconds, by one address and for one name, before the next has to wait.
TRIES, TRIES_NAME, PERIOD = 5, 25, 300.0
#: Different wrong tokens that an address may send within PERIOD before its tokens are refused unseen.
TOKENS = 25
#: So many addresses and names are remembered that failed.
REMEMBERED = 10_000


@dataclass(slots=True)
class _Session:
    user: User
    began: float
    used: float


class Sessions:
    """Who has signed in, by the id that the browser keeps. Only a digest of that id is kept here."""

    def __init__(self, clock: Clock = SYSTEM) -> None:
        self._clock = clock
        self._known: OrderedDict[bytes, _Session] = OrderedDict()

    def begin(self, user: User) -> str:
        """A new session's id."""
        id, now = secrets.token_urlsafe(32), self._clock.monotonic()
        self._known[_digest(id)] = _Session(user, now, now)
        while len(self._known) > SESSIONS:
            self._known.popitem(last=False)
        return id

    def user(self, id: str) -> User | None:
        """Whose session it is; None when there is none, or it is over."""
        key, now = _digest(id), self._clock.monotonic()
        session = self._known.get(key)
        if session is None:
            return None
        if now - session.began > LONGEST or now - session.used > IDLE:
            del self._known[key]
            return None
        session.used = now
        self._known.move_to_end(key)
        return session.user

    def end(self, id: str) -> None:
        """End a session, if it is one."""
        self._known.pop(_digest(id), None)


class Throttle:
    """How often one may fail to sign in, or send a wrong token. All addresses of an IPv6 /64 count as one."""

    def __init__(self, clock: Clock = SYSTEM) -> None:
        self._clock = clock
        self._failed: OrderedDict[str, list[float]] = OrderedDict()
        self._tokens: OrderedDict[bytes, None] = OrderedDict()

    def wait(self, address: str, name: str) -> float:
        """Seconds until this address may try this name; 0.0: now."""
        return max(self._left(f"from {group_of(address)}", TRIES), self._left(f"for {name}", TRIES_NAME))

    def failed(self, address: str, name: str) -> None:
        """Note that it failed."""
        self._note(f"from {group_of(address)}")
        self._note(f"for {name}")

    def succeeded(self, address: str, name: str) -> None:
        """Forget what failed from there; what else failed for the name may be somebody else's doing, and stays."""
        self._failed.pop(f"from {group_of(address)}", None)
        self._failed.get(f"for {name}", [0.0]).pop()

    def wait_token(self, address: str) -> float:
        """Seconds until a token from this address is looked at; 0.0: now."""
        return self._left(f"token from {group_of(address)}", TOKENS)

    def failed_token(self, address: str, token: str) -> None:
        """Note a wrong token.

        The same one counts once, so a program with an old token does not shut out its neighbours.
        """
        group = group_of(address)
        tried = _digest(f"{group} {token}")
        if tried not in self._tokens:
            self._note(f"token from {group}")
        self._tokens[tried] = None
        _forget(self._tokens)

    def _note(self, key: str) -> None:
        self._failed[key] = [*self._recent(key), self._clock.monotonic()][-max(TRIES_NAME, TOKENS) :]
        self._failed.move_to_end(key)
        _forget(self._failed)

    def _left(self, key: str, most: int) -> float:
        recent = self._recent(key)
        return recent[-most] + PERIOD - self._clock.monotonic() if len(recent) >= most else 0.0

    def _recent(self, key: str) -> list[float]:
        now = self._clock.monotonic()
        return [at for at in self._failed.get(key, ()) if now - at < PERIOD]


class Doorkeeper:
    """Knows users and tokens by their hashes."""

    def __init__(self, users: Mapping[str, Credential], tokens: Mapping[str, Credential]) -> None:
        self._users, self._tokens = users, tokens
        # Somebody who is not known is refused as slowly as somebody who is.
        self._nobody = (
            Credential("view", password_hash(secrets.token_urlsafe(), secrets.token_bytes)) if users else None
        )

    def by_password(self, name: str, password: str) -> User | None:
        """Who that is. Takes some 50 ms in any case."""
        known = self._users.get(name)
        credential = known or self._nobody
        fits = credential is not None and credential.fits(password)
        return User(name, known.role) if known is not None and fits else None

    def by_token(self, token: str) -> User | None:
        """Whose token it is."""
        found = [(name, each) for name, each in self._tokens.items() if each.fits(token)]
        return User(found[0][0], found[0][1].role, "token") if found else None


class Seals:
    """Tokens that a form must bring back with a change: nobody else's page can know them.

    They are made of the id of the browser's session, or of a visit before anybody signed in, and a key of this process.
    secret: that key; who runs several processes for one page gives them the same.
    """

    def __init__(self, secret: bytes | None = None) -> None:
        self._secret = secret or secrets.token_bytes(32)

    def seal(self, visit: str) -> str:
        """What the forms of this visit bring back."""
        return hmac.new(self._secret, b"change:" + visit.encode(), hashlib.sha256).hexdigest()

    def fits(self, visit: str, seal: str) -> bool:
        """Whether seal is that of this visit."""
        return bool(visit) and hmac.compare_digest(self.seal(visit).encode(), seal.encode())


def _digest(id: str) -> bytes:
    return hashlib.sha256(id.encode()).digest()


def _forget(known: OrderedDict[K, V]) -> None:
    """Drop what came first, beyond REMEMBERED."""
    while len(known) > REMEMBERED:
        known.popitem(last=False)
