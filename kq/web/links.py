"""Signing in by a link: whoever can read a file of this user is this user.

A page that no people are named for (`web.users`) is for the user who runs it, and other users of the host reach its
port too. So `kq web` prints a link that is good once, and the browser gets a session for it. What both need is kept in
a folder that its owner alone can read: a key, with which sessions are signed, and an empty file for each link that was
not used yet, named by its SHA-256. So a session outlives the program, which begins anew with new code.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path

from kq.clock import SYSTEM, Clock
from kq.errors import ConfigError

#: Seconds that a link may be used, and that a session lasts.
LINK, SESSION = 3600.0, 12 * 3600.0
_KEY, _LINK = "key", "link-"


class Links:
    """The links and sessions of the user who runs this program.

    folder: made if it is not there. Raises ConfigError where it can't be, or where others may read it.
    """

    def __init__(self, folder: Path, clock: Clock = SYSTEM) -> None:
        self._folder, self._clock = folder, clock
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = folder.stat()
            if found.st_uid != os.geteuid() or found.st_mode & 0o077:
                raise ConfigError(
                    f"the folder {folder} can be used by others", fix=f"Make it yours alone: chmod 700 {folder}"
                )
            if not (folder / _KEY).exists():
                self.end_all()
        except OSError as error:
            raise ConfigError(
                f"no link can be kept in {folder}: {error.strerror}", fix="Name another folder: XDG_STATE_HOME."
            ) from error

    def make(self) -> str:
        """A new link's secret, which is good once, within an hour."""
        for path in self._folder.glob(f"{_LINK}*"):
            with suppress(FileNotFoundError):
                if self._is_over(path):
                    path.unlink()
        link = secrets.token_urlsafe(32)
        self._file(link).touch(mode=0o600)
        return link

    def redeem(self, link: str) -> bool:
        """Whether link is good; it is no more from now on."""
        path = self._file(link)
        try:
            over = self._is_over(path)
            path.unlink()  # of several who do so at a time one succeeds
        except FileNotFoundError:
            return False
        return not over

    def begin(self) -> str:
        """The id of a new session, which lasts twelve hours."""
        said = f"{self._clock.now() + SESSION:.0f}.{secrets.token_urlsafe(16)}"
        return f"{said}.{self._signed(said)}"

    def holds(self, id: str) -> bool:
        """Whether id is that of a session which is not over."""
        said, _, signature = id.rpartition(".")
        if not hmac.compare_digest(self._signed(said).encode(), signature.encode()):
            return False
        return self._clock.now() < int(said.partition(".")[0])

    def end_all(self) -> None:
        """End all sessions, by a new key."""
        descriptor, new = tempfile.mkstemp(dir=self._folder)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))
        os.replace(new, self._folder / _KEY)

    def _signed(self, said: str) -> str:
        return hmac.new((self._folder / _KEY).read_bytes(), b"session:" + said.encode(), hashlib.sha256).hexdigest()

    def _file(self, link: str) -> Path:
        return self._folder / f"{_LINK}{hashlib.sha256(link.encode()).hexdigest()}"

    def _is_over(self, path: Path) -> bool:
        return self._clock.now() > path.stat().st_mtime + LINK
