"""The filter: `queue:mail state:buried err:SMTP`. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

FIELDS = ("queue", "type", "state", "err", "worker", "id")


@dataclass(frozen=True, slots=True)
class Term:
    """One word of a filter. field: "" for whichever."""

    field: str
    text: str


def parse(text: str) -> tuple[Term, ...]:
    """The words of a filter; what has no field before its colon is looked for as it stands."""
    return tuple(_term(word) for word in text.split())


def _term(word: str) -> Term:
    name, colon, rest = word.partition(":")
    return Term(name, rest.lower()) if colon and name in FIELDS else Term("", word.lower())


def fits(terms: Sequence[Term], facts: Mapping[str, str]) -> bool:
    """Whether a row with these facts is shown. A field that such rows have not got chooses nothing among them."""
    return all(_fits(term, facts) for term in terms)


def _fits(term: Term, facts: Mapping[str, str]) -> bool:
    if term.field:
        return term.field not in facts or term.text in facts[term.field].lower()
    return any(term.text in fact.lower() for fact in facts.values())
