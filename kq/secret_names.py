"""Names of secrets: which arguments, headers, settings and query parameters hold a password or a token.

A name is read as words, so that `apiKey`, `X-Api-Key` and `api_key` are the same and `author` is not `auth`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import pairwise

HIDDEN = "***"
#: Characters of a name that are read, from its end: what is longer is no name.
_LONGEST = 200


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Words that name a secret wherever they stand in a name.
_WORDS = _words(
    "password passwords passwd passwds pwd pass pgpass passphrase passphrases passcode passcodes secret "
    "secrets token tokens auth authorization oauth apikey credential credentials cred creds cookie "
    "cookies session sessions sessid private signature sig cvv cvc cvv2 cvc2 iban ibans pin ssn card pan "
    "jwt jwts otp totp sid csrf xsrf dsn mnemonic"
)
#: Words that make a secret of the word after them: access_key, database_url.
_PAIRS = {
    **dict.fromkeys(
        _words(
            "api access account client decryption deploy encryption encrypt hmac license master pgp gpg recovery "
            "rsa secret server service shared sign signing ssh ssl storage tls webhook"
        ),
        frozenset({"key", "keys"}),
    ),
    **dict.fromkeys(
        _words(
            "amqp broker connection database db mongo mongodb mysql postgres postgresql presigned redis signed "
            "hook webhook webhooks"
        ),
        frozenset({"url", "urls", "uri", "uris", "string"}),
    ),
    **dict.fromkeys(["backup", "recovery", "verification"], frozenset({"code", "codes"})),
    "seed": frozenset({"phrase"}),
}
_PAIRS["webhook"] = frozenset({"key", "keys", "url", "urls", "uri", "uris", "string"})
#: Words written as one: dbpassword, accesskey, PHPSESSID.
_GLUED = re.compile(
    r"(?:passwords?|passwd|passphrase|secrets?|tokens?|cookies?|credentials?|sess(?:ion)?id)$|"
    r"^(?:db|ftp|imap|ldap|mail|my|mysql|pg|proxy|redis|root|smtp|sql|ssh|admin|user)(?:pass|pwd)$|"
    r"(?:api|access|encryption|master|private|secret|signing|ssh)keys?(?:id)?$"
)
#: Last words of names of a number or a kind: pass_count, token_type; and first words of such names: max_tokens.
_MEASURES = _words(
    "age attempts budget count counts duration enabled idle index kind len length limit max maximum "
    "method min minimum mode name names policy rate remaining required size status timeout total ttl type "
    "types usage used version"
)
_FIRST = _words("count has is limit max maximum min minimum n num total")
#: Words of which a number is a count and no secret.
_PLURALS = _words("cookies credentials ibans jwts keys passcodes passphrases passwords passwds secrets sessions tokens")
_SPLIT = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_A-Za-z]+")


def is_secret(name: str, also: Sequence[str] = (), *, number: bool = False) -> bool:
    """Whether what is called name holds a secret: password, api_key, X-Auth-Token; not author, pass_count, max_tokens.

    also: more names that do, in any case of letters; * stands for anything. number: its value is a number, so that
    tokens is a count.
    """
    if any(fnmatchcase(name.casefold(), pattern.casefold()) for pattern in also):
        return True
    return _is_secret(name[-_LONGEST:], number)


@lru_cache(maxsize=1024)
def _is_secret(name: str, number: bool) -> bool:
    words = [word.lower() for word in _SPLIT.findall(name)]
    if not words or words[-1] in _MEASURES or words[0] in _FIRST or (number and words[-1] in _PLURALS):
        return False
    return (
        any(word in _WORDS or _GLUED.search(word) is not None for word in words)
        or any(second in _PAIRS.get(first, ()) for first, second in pairwise(words))
        or _GLUED.search("".join(words)) is not None
    )
