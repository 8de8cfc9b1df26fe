"""Who may do what on the web page, and how he shows that it is he: roles, passwords and tokens as hashes. Pure.

A password's hash is scrypt's (RFC 7914), written `scrypt$LOG2N$R$P$SALT$HASH` with base64: guessing costs 32 MiB and
some 50 ms a try. A token is 256 random bits, which nobody guesses, so SHA-256 is enough: `sha256$HASH`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

#: What somebody may do, the least first; each includes those before it. view: look, with secrets hidden. operate: also
#: pause, resume, kick, bury, revoke, retire, answer. edit: also change, submit and delete.
Role: TypeAlias = Literal["view", "operate", "edit"]
ROLES: tuple[Role, ...] = get_args(Role)

#: What a new password's hash costs (OWASP's advice of 2023): 2**15 blocks of 8 · 128 bytes, once.
LOG2N, R, P = 15, 8, 1
#: Bytes of memory that checking one password may take at most: who wrote the config decides, within reason.
MEMORY = 256 * 2**20
#: Characters that a password has at least.
SHORTEST = 8


@dataclass(frozen=True, slots=True)
class Credential:
    """How somebody is known, and what he may do then. hash: as it is written in the settings; a secret all the same."""

    role: Role
    hash: str

    def __repr__(self) -> str:
        return f"Credential(role={self.role!r}, hash='***')"

    def fits(self, secret: str) -> bool:
        """Whether secret is the password or token. Takes some 50 ms for a password, whether it fits or not."""
        kind, *parts = self.hash.split("$")
        if kind == "sha256":
            return hmac.compare_digest(token_hash(secret), self.hash)
        cost, salt, made = [int(part) for part in parts[:3]], _bytes(parts[3]), _bytes(parts[4])
        return hmac.compare_digest(_scrypt(secret, salt, cost[0], cost[1], cost[2]), made)


def understood(text: str) -> Credential:
    """`edit scrypt$15$8$1$…$…` as it is meant. Raises ValueError, which does not repeat the hash."""
    role, _, hash = text.strip().partition(" ")
    if role not in ROLES:
        raise ValueError(f"it begins with no role; write {', '.join(ROLES)}, a space, and the hash")
    if not _is_hash(hash.strip()):
        raise ValueError("behind the role stands no hash; kq web --hash-password and --new-token make one")
    return Credential(role, hash.strip())


def _is_hash(hash: str) -> bool:
    kind, *parts = hash.split("$")
    if kind == "sha256":
        return len(parts) == 1 and len(_bytes(parts[0])) == 32
    if kind != "scrypt" or len(parts) != 5 or not all(part.isdecimal() and len(part) < 5 for part in parts[:3]):
        return False
    log2n, r, p = (int(part) for part in parts[:3])
    costs = 1 <= log2n <= 24 and 1 <= r <= 32 and 1 <= p <= 16 and 128 * r * (2**log2n + p) <= MEMORY
    return costs and len(_bytes(parts[3])) >= 8 and len(_bytes(parts[4])) >= 16


def password_hash(password: str, random: Callable[[int], bytes]) -> str:
    """A new password's hash. random: makes so many random bytes. Raises ValueError when it is too short."""
    if len(password) < SHORTEST:
        raise ValueError(f"a password has {SHORTEST} characters or more")
    salt = random(16)
    made = _scrypt(password, salt, LOG2N, R, P)
    return f"scrypt${LOG2N}${R}${P}${_text(salt)}${_text(made)}"


def new_token(random: Callable[[int], bytes]) -> tuple[str, str]:
    """A new token and its hash."""
    token = base64.urlsafe_b64encode(random(32)).decode().rstrip("=")
    return token, token_hash(token)


def token_hash(token: str) -> str:
    """How a token is written down."""
    return f"sha256${_text(hashlib.sha256(token.encode()).digest())}"


def _scrypt(password: str, salt: bytes, log2n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=2**log2n, r=r, p=p, maxmem=MEMORY + 2**20, dklen=32)


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        return b""
