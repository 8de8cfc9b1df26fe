"""`kq explain`: what an error's code means, why it comes up, and what to do. Needs no network and no settings.

The pages are those of errors.md, of which docs/errors.md is made too.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from kq.cli.frame import flags, verb
from kq.cli.near import did_you_mean
from kq.cli.show import print_json, print_table, width
from kq.errors import NotFound

PAGES = Path(__file__).with_name("errors.md")
_HEAD = re.compile(r"^# (KQ\d{3}) (\w+): (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Page:
    """What is to be said of one code. kind: the class of the error. text: Markdown, paragraphs and a list."""

    code: str
    kind: str
    title: str
    text: str


@verb("explain")
@click.argument("code", required=False, shell_complete=lambda context, option, begun: completed(begun))
def command(code: str | None) -> None:
    """Say what the error CODE (KQ302) means, why it comes up and what to do; without one, list them.

    The name of an error's class will do too.
    """
    pages = read()
    if code is None:
        _list(pages)
        return
    page = find(pages, code)
    if flags().json:
        print_json({"code": page.code, "class": page.kind, "title": page.title, "text": page.text})
        return
    click.secho(f"{page.code} {page.kind}: {page.title}", bold=True)
    for line in wrapped(page.text, min(100, width())):
        click.echo(line)


def read() -> list[Page]:
    """All pages, by code."""
    return list(_parsed(PAGES.read_text(encoding="utf-8")))


def _parsed(text: str) -> Iterator[Page]:
    heads = list(_HEAD.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    for head, end in zip(heads, ends, strict=True):
        yield Page(head[1], head[2], head[3], text[head.end() : end].strip())


def find(pages: list[Page], code: str) -> Page:
    """The page of a code (KQ302, kq302, 302) or of a class. Raises NotFound, with what was probably meant."""
    by_name = {page.code: page for page in pages} | {page.kind: page for page in pages}
    for name in (code, code.upper(), f"KQ{code}"):
        if name in by_name:
            return by_name[name]
    fix = did_you_mean(code, by_name) or "kq explain lists them."
    raise NotFound(f"no error has the code {code!r}", fix=fix)


def completed(begun: str) -> list[str]:
    """Codes that begin like that, for the shell."""
    return [page.code for page in read() if page.code.startswith(begun.upper())]


def _list(pages: list[Page]) -> None:
    if flags().json:
        print_json([{"code": page.code, "class": page.kind, "title": page.title} for page in pages])
    else:
        print_table(["CODE", "CLASS", "MEANS"], [[page.code, page.kind, page.title] for page in pages])


def wrapped(text: str, columns: int) -> Iterator[str]:
    """The lines of a page, none longer than columns; the labels of its list stand out."""
    for line in text.splitlines():
        label, _, rest = line.removeprefix("* ").partition(": ")
        if line.startswith("* "):
            yield from textwrap.wrap(rest, columns, initial_indent=f"  {label}: ".ljust(8), subsequent_indent=" " * 8)
        else:
            yield from textwrap.wrap(line, columns) or [""]
