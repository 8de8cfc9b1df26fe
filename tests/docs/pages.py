"""The pages of the documentation, as text with code, links and commands in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]

_FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced piece of code. info: what stands behind the opening fence, such as "python notest"."""

    info: str
    text: str


@dataclass(frozen=True)
class Page:
    """One page."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def prose(self) -> str:
        """The page without its fenced code."""
        return _FENCE.sub("", self.text)

    def blocks(self, info: str) -> list[Block]:
        """The fenced code of one kind."""
        found = [Block(match["info"].strip(), match["text"]) for match in _FENCE.finditer(self.text)]
        return [block for block in found if block.info == info]

    def links(self) -> Iterator[tuple[Path, str]]:
        """Where each link leads that stays in this repository: a file, and a heading in it or ""."""
        for target in _LINK.findall(self.prose):
            if not re.match(r"\w+:", target):
                file, _, anchor = target.partition("#")
                yield (self.path.parent / file).resolve() if file else self.path, anchor

    def anchors(self) -> set[str]:
        """What links to headings of this page are called, as GitHub makes them."""
        headings = (heading.lower().replace("`", "") for heading in _HEADING.findall(self.prose))
        return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in headings}

    def commands(self, program: str) -> Iterator[str]:
        """Each command line of program that the page shows, without prompt and comment."""
        spans = _SPAN.findall(self.prose)
        lines = [line for block in self.blocks("") + self.blocks("console") for line in block.text.splitlines()]
        for line in [*spans, *lines]:
            command = re.sub(r"^(\$ +)?([A-Z_]+=\S+ )*", "", line.strip())
            if command == program or command.startswith(f"{program} "):
                yield re.sub(r"\s+#.*", "", command)


ALL = [Page(path) for path in PAGES]
