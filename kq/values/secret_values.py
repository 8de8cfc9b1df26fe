"""Secrets that are known by their form: private keys, card numbers, IBANs, tokens of known services, webhooks."""

from __future__ import annotations

import re
from base64 import b64decode

from kq.secret_names import HIDDEN

#: Tokens that say by their beginning whose they are, and the addresses of webhooks, which are passwords.
_TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:A3T|ABIA|ACCA|AGPA|AIDA|AIPA|AKIA|ANPA|ANVA|AROA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])|"
    r"gl(?:pat|dt|rt|cbt|ptt|ft|imt|agent|soat)-[\w-]{12,}+|gh[opsru]_\w{20,}+|github_pat_\w{20,}+|xox[a-z]-[\w-]{8,}+|"
    r"(?:sk|rk)_(?:live|test)_\w{8,}+|whsec_\w{8,}+|sk-[\w-]{20,}+|AIza[\w-]{30,}+|ya29\.[\w-]{8,}+|npm_\w{30,}+|"
    r"SG\.[\w-]{16,64}\.[\w-]{16,}+|hf_\w{30,}+|hvs\.\w{20,}+)"
)
_WEBHOOK = re.compile(
    r"(https?://(?:hooks\.slack(?:-gov)?\.com/(?:services|workflows|triggers)|"
    r"(?:\w{1,10}\.)?discord(?:app)?\.com/api/(?:v\d{1,2}/)?webhooks|hooks\.zapier\.com/hooks|"
    r"[\w-]{1,63}\.webhook\.office\.com|api\.telegram\.org/bot(?=\d))/?)[^\s\"'<>]++",
    re.IGNORECASE,
)
_PEM = re.compile(r"-----(BEGIN|END) [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
#: What is left of a private key whose end, or beginning, was cut off.
_PEM_BEHIND = re.compile(
    r"(?:(?:(?:\\[nr]|\s){0,4}[A-Za-z0-9+/=]{16,}+)++(?:(?:\\[nr]|\s){1,4}[A-Za-z0-9+/=]{1,76})?)?"
)
_PEM_BEFORE = re.compile(r"(?:[A-Za-z0-9+/=]{1,76}(?:\\[nr]|\s){1,4})+\Z")
#: A card's number, alone or in the groups in which it is printed.
_CARD = re.compile(
    r"(?<![\w.])(?:\d{14,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{4}(?:\1\d{3})?|\d{4}([ -])\d{6}\2\d{4,5})(?!\w|[.,-]\d)"
)
_BASIC = re.compile(r"\b(basic[ \t]+)([A-Za-z0-9+/]{8,}+={0,2})", re.IGNORECASE)
_IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?=[ -]?[A-Z0-9]{4})", re.IGNORECASE)
#: How many characters an IBAN has in each country (SWIFT's registry).
_LENGTHS = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 "
    "EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 "
    "KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 "
    "PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 "
    "UA29 VA22 VG24 XK20 YE30"
)
_IBANS = {each[:2]: int(each[2:]) for each in _LENGTHS.split()}


def without_known(text: str) -> str:
    """text with *** for what is a secret by its form. Takes time in proportion to its length."""
    if "PRIVATE KEY" in text:
        text = _without_private_keys(text)
    text = _WEBHOOK.sub(rf"\1{HIDDEN}", _TOKEN.sub(HIDDEN, text))
    text = _BASIC.sub(_without_credentials, text)
    return _CARD.sub(lambda found: HIDDEN if is_card(found[0]) else found[0], _without_ibans(text))


def is_card(number: str) -> bool:
    """Whether number is a card's: of an issuer, of as many digits as its cards have, with the check digit of Luhn."""
    digits = re.sub(r"\D", "", number)
    if len(digits) not in _lengths(digits):
        return False
    doubled = [int(digit) * 2 for digit in digits[-2::-2]]
    return (sum(map(int, digits[-1::-2])) + sum(each - 9 * (each > 9) for each in doubled)) % 10 == 0


def _lengths(digits: str) -> range:
    """How many digits the cards of an issuer have (ISO 7812)."""
    two, three, four = int(digits[:2]), int(digits[:3]), int(digits[:4])
    if two in (34, 37):
        return range(15, 16)
    if two in (36, 38, 39) or 300 <= three <= 305:
        return range(14, 15)
    if digits[0] == "4" or 51 <= two <= 55 or 2221 <= four <= 2720 or 3528 <= four <= 3589:
        return range(16, 17)
    if four == 6011 or 644 <= three <= 659 or two in (50, 56, 57, 58, 62, 63, 67):
        return range(16, 20)
    return range(0)


def _without_ibans(text: str) -> str:
    pieces, shown = [], 0
    for found in _IBAN.finditer(text):
        if found.start() >= shown and (end := _iban_end(text, found.start())):
            pieces += [text[shown : found.start()], HIDDEN]
            shown = end
    return "".join([*pieces, text[shown:]]) if pieces else text


def _iban_end(text: str, start: int) -> int:
    """Where the IBAN ends that begins at start (ISO 13616: mod 97 is 1); 0 when there is none."""
    length, place, found = _IBANS.get(text[start : start + 2].upper(), 0), start, ""
    while place < len(text) and len(found) < length and text[place].isascii():
        if text[place].isalnum():
            found += text[place].upper()
        elif text[place] not in " -":
            return 0
        place += 1
    if not length or len(found) < length or text[place : place + 1].isalnum():
        return 0
    turned = found[4:] + found[:4]
    return place if int("".join(str(int(char, 36)) for char in turned)) % 97 == 1 else 0


def _without_credentials(found: re.Match[str]) -> str:
    """Basic credentials are base64 of user:password (RFC 7617); "basic settings" is none."""
    try:
        said = b64decode(found[2][:1024] + "=" * (-len(found[2][:1024]) % 4))
    except ValueError:
        return found[0]
    return f"{found[1]}{HIDDEN}" if b":" in said and (said.isascii() or len(said) > 40) else found[0]


def _without_private_keys(text: str) -> str:
    pieces, shown, begun = list[str](), 0, -1
    for mark in _PEM.finditer(text):
        if mark[1] == "BEGIN":
            if begun >= 0:
                shown = _behind(text, begun, pieces, shown)
            begun = mark.end()
            continue
        if begun < 0:
            rest = _PEM_BEFORE.search(text[max(shown, mark.start() - 4096) : mark.start()])
            pieces += [text[shown : mark.start() - len(rest[0] if rest else "")], HIDDEN]
        else:
            pieces += [text[shown:begun], HIDDEN]
        shown, begun = mark.start(), -1
    if begun >= 0:
        shown = _behind(text, begun, pieces, shown)
    return "".join([*pieces, text[shown:]])


def _behind(text: str, begun: int, pieces: list[str], shown: int) -> int:
    """Hide a private key that has no end."""
    rest = _PEM_BEHIND.match(text, begun)
    end = rest.end() if rest else begun
    pieces += [text[shown:begun], HIDDEN]
    return end
