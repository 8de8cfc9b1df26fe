"""What somebody at the monitor is doing: what he looks at, has chosen, types, and is asked. Values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, TypeAlias

from kq.cli.monitor.scene import Page
from kq.control.commands import Words, written

Pane: TypeAlias = Literal["queues", "workers", "failures"]
PANES: tuple[Pane, ...] = ("queues", "workers", "failures")
#: A list of rows: a pane, or the jobs of a page.
List: TypeAlias = Literal["queues", "workers", "failures", "groups", "jobs"]

#: By what a list is sorted, the usual first.
SORTS: Mapping[List, tuple[str, ...]] = {
    "queues": ("oldest", "ready", "wait", "in", "buried", "name"),
    "workers": ("state", "name", "beat", "busy", "age"),
    "failures": ("latest", "job", "error"),
    "groups": ("latest", "failed", "buried"),
    "jobs": ("order", "age", "job"),
}
#: The pauses between two looks that + and - choose from, in seconds.
PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


@dataclass(frozen=True, slots=True)
class Spot:
    """The chosen row of a list: what it is about; and where it stood, for when it has gone."""

    key: str = ""
    index: int = 0


@dataclass(frozen=True, slots=True)
class Typing:
    """A line that is being typed. filter: which rows are shown; verb: of kq; reason, name: for what is asked."""

    kind: Literal["filter", "verb", "reason", "name"]
    text: str = ""
    before: str = ""
    offers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Do:
    """Carry out command lines of kq, and tell what they say. jobs: the ids that are touched; done: the word for it."""

    commands: tuple[Words, ...]
    jobs: tuple[str, ...] = ()
    done: str = ""


@dataclass(frozen=True, slots=True)
class Show:
    """Run one command line of kq on the terminal itself: it asks, shows or edits."""

    command: Words


@dataclass(frozen=True, slots=True)
class Copy:
    """Put a text on the clipboard."""

    text: str


@dataclass(frozen=True, slots=True)
class Step:
    """Go so many snapshots on in what is played again, or back."""

    by: int


@dataclass(frozen=True, slots=True)
class Redraw:
    """Draw everything anew."""


@dataclass(frozen=True, slots=True)
class Quit:
    """End."""


Act: TypeAlias = Do | Show | Copy | Step | Redraw | Quit


@dataclass(frozen=True, slots=True)
class Ask:
    """A question before something is done. deed: what; name: that must be typed first, where much would be lost."""

    deed: str
    act: Do | Show
    name: str = ""

    @property
    def told(self) -> str:
        """The command line that would do the same."""
        first, *more = self.act.commands if isinstance(self.act, Do) else (self.act.command,)
        return written(first) + (f"  and {len(more)} more like it" if more else "")


@dataclass(frozen=True, slots=True)
class Done:
    """What was done to a job from here. at: of the snapshot that was seen then."""

    word: str
    at: float


@dataclass(frozen=True, slots=True)
class Told:
    """What became of something. bad: it is not as it was wanted."""

    text: str
    bad: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ui:
    """spots: the chosen row by list. sorts: by what a list is sorted. opened: pages, the one that is seen last;
    outer: for each the filter of what it was opened from.

    scroll: lines that are above what is seen of a page. done: what was done to jobs from here, by id, as a snapshot
    does not tell at once. verbs: those of the command line, with what may follow each, for completion.
    """

    pane: Pane = "queues"
    spots: Mapping[str, Spot] = field(default_factory=lambda: MappingProxyType({}))
    sorts: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    marks: frozenset[str] = frozenset()
    filter: str = ""
    grouped: bool = False
    opened: tuple[Page, ...] = ()
    outer: tuple[str, ...] = ()
    scroll: int = 0
    helping: bool = False
    typing: Typing | None = None
    asks: Ask | None = None
    told: Told | None = None
    frozen: bool = False
    every: float = 1.0
    read_only: bool = False
    done: Mapping[str, Done] = field(default_factory=lambda: MappingProxyType({}))
    verbs: Mapping[Words, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))

    def done_to(self, id: str, at: float | None) -> str:
        """What was done to a job from here, unless something has happened to it since; "" for nothing."""
        done = self.done.get(id)
        return "" if done is None or (at is not None and at > done.at) else done.word

    @property
    def page(self) -> Page | None:
        """The page that is seen, None on the board."""
        return self.opened[-1] if self.opened else None

    @property
    def list(self) -> List:
        """The list that keys move in."""
        if self.page is not None:
            return "jobs"
        return "groups" if self.pane == "failures" and self.grouped else self.pane

    def sort(self, list: List) -> str:
        """By what a list is sorted."""
        return self.sorts.get(list, SORTS[list][0])
