"""Mail addresses, and mail servers' URLs: what people write in code, in kq.yaml (`mail:`) and in KQ_MAIL.

smtp://host:25                          no TLS; with a login only on this host
smtp+starttls://user:password@host:587  TLS as soon as the server has said hello
smtps://user:password@host:465          TLS from the first byte; ?ca=/path.pem for a CA of one's own
file:///path/outbox                     mails become files there, for development and tests
log:                                    mails are only told of in the log, and not remembered: a dry run
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

from kq.errors import ConfigError
from kq.url import is_loopback, redact_url, split_url

#: Characters that no line of text may have, as a pattern's class: a line break in a header would be another header.
CONTROLS = r"\x00-\x1f\x7f-\x9f\u2028\u2029"
# "=?" begins an encoded word (RFC 2047), which has no place in an address, and which some programs decode there.
_BARE = rf'(?:(?!=\?)[^\s{CONTROLS}<>@,;:"()\[\]\\])+@\w[\w.-]*'
_NAME = rf'(?:"[^{CONTROLS}"\\<>]*"|[^{CONTROLS}<>@,;:"\\]*?)'
#: One address, with or without a name before it: name@example.org, Name <name@example.org>.
ADDRESS = rf"\A(?:{_NAME} *<{_BARE}>|{_BARE})\Z"
#: Where mails go when nobody says.
MAIL = "smtp://localhost:25"
#: Known schemes of servers and their usual ports.
PORTS = {"smtp": 25, "smtps": 465, "smtp+starttls": 587}


@dataclass(frozen=True, slots=True)
class MailUrl:
    """Where mails go. path: the folder of file:. login: user and password. ca: a file of certificates to trust."""

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""
    login: tuple[str, str] | None = field(default=None, repr=False)
    ca: str = ""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}" if self.host else f"{self.scheme}:{self.path}"


def parse_mail_url(url: str) -> MailUrl:
    """What url means. Raises ConfigError, whose text holds no secret, for what is no mail server."""
    try:
        split = split_url(url.strip())
    except ValueError as error:
        raise _wrong(url, f"is none: {error}") from None
    if split.scheme == "log" and not split.netloc + split.path:
        return MailUrl("log")
    if split.scheme == "file" and not split.netloc and split.path:
        return MailUrl("file", path=unquote(split.path))
    options = dict(parse_qsl(split.query))
    if split.scheme not in PORTS or not split.hostname or options.keys() - {"ca"} or split.path not in ("", "/"):
        raise _wrong(url, "is none")
    port = split.port or PORTS[split.scheme]
    login = (unquote(split.username), unquote(split.password or "")) if split.username else None
    if login and split.scheme == "smtp" and not is_loopback(split.hostname):
        raise ConfigError(
            f"mail server {redact_url(url)!r} would get its password unencrypted",
            fix="Write smtp+starttls:// or smtps:// before it.",
        )
    return MailUrl(split.scheme, split.hostname, port, login=login, ca=options.get("ca", ""))


def _wrong(url: str, what: str) -> ConfigError:
    return ConfigError(
        f"mail server {redact_url(url)!r} {what}",
        fix="Write smtp://host:25, smtp+starttls://user:password@host, smtps://…, file:///folder or log: (a dry run).",
    )
