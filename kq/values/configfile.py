"""The config file: which one counts, and what stands in which of its lines. What it means is given.py's."""

from __future__ import annotations

import re
from functools import lru_cache
from os.path import lexists
from pathlib import Path
from typing import Any

import msgspec

from kq.errors import ConfigError

FILE_NAME = "kq.yaml"
#: Where a pyproject.toml may speak of [tool.kq], in one of the ways to write that; whether it does, a parser knows.
_MENTION = re.compile(r"""\bkq["'\s]*([].=\n]|\Z)""")


class Read(msgspec.Struct, frozen=True):
    """A config file. tree: its settings as nested data. lines: of each dotted key, as far as they are known."""

    path: Path
    tree: object
    lines: dict[str, int] = msgspec.field(default_factory=dict)

    def place(self, key: str) -> str:
        """Where key stands, for people: kq.yaml:7."""
        path = self.path
        if path.is_relative_to(Path.cwd()):
            path = path.relative_to(Path.cwd())
        return f"{path}:{self.lines[key]}" if key in self.lines else str(path)


def find(named: str | Path | None, folder: Path) -> Path | None:
    """The file that counts: the named one, else the nearest in folder and above, within its repository.

    Outside a repository only folder itself is searched: a file that lies about in /tmp configures nobody.
    """
    if named:
        path = folder / named
        if not path.exists():
            raise ConfigError(f"there is no config file {str(named)!r}", fix="kq init writes one.")
        return path
    folders = [folder, *folder.parents]
    root = next((number for number, each in enumerate(folders) if _is_repository(each)), 0)
    for each in folders[: root + 1]:
        if lexists(each / FILE_NAME):  # a folder, or a link to nothing, is told of when it is read
            return each / FILE_NAME
        if _has_section(each / "pyproject.toml"):
            return each / "pyproject.toml"
    return None


def read(path: Path) -> Read:
    """What stands in path: YAML, TOML, or [tool.kq] of a pyproject.toml. Raises ConfigError when it is neither."""
    text = _text(path)
    if path.suffix != ".toml":
        return _read_yaml(path, text)
    tree = _toml(path, text)
    if path.name != "pyproject.toml":
        return Read(path, tree)
    if not _has_tool(tree):
        raise ConfigError(f"config file {path} has no [tool.kq]", fix="Write it there, or name another file.")
    return Read(path, tree["tool"]["kq"])


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file {path} can't be read: {error}") from error


def _is_repository(folder: Path) -> bool:
    return any((folder / name).exists() for name in (".git", ".hg", ".svn"))


def _has_section(path: Path) -> bool:
    if not path.is_file():
        return False
    text = _text(path)
    return _MENTION.search(text) is not None and _has_tool(_toml(path, text))


def _has_tool(tree: dict[str, Any]) -> bool:
    tools = tree.get("tool")
    return isinstance(tools, dict) and "kq" in tools


# A worker's processes read the same settings, the later ones in pages that they share as long as nobody parses again.
@lru_cache(maxsize=2)
def _toml(path: Path, text: str) -> dict[str, Any]:
    # Here and not above: who has no such file does not pay for the parser.
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"config file {path} is no TOML: {error}") from error


@lru_cache(maxsize=2)
def _read_yaml(path: Path, text: str) -> Read:
    # As with TOML.
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    lines: dict[str, int] = {}
    try:
        root = yaml.compose(text, Loader=loader)
        if isinstance(root, yaml.MappingNode):
            _note_lines(root, "", path, lines)
        return Read(path, yaml.load(text, Loader=loader), lines)
    except yaml.YAMLError as error:
        raise ConfigError(f"config file {path} is no YAML: {' '.join(str(error).split())}") from error


def _note_lines(mapping: Any, prefix: str, path: Path, lines: dict[str, int]) -> None:
    """Note the line of each key in and below a YAML mapping; YAML itself lets a later twin of a key win in silence."""
    seen: dict[str, int] = {}
    for name_node, value_node in mapping.value:
        name, line = str(name_node.value), name_node.start_mark.line + 1
        if name in seen:
            twice = f"{prefix}{name} stands twice in {path}, in lines {seen[name]} and {line}"
            raise ConfigError(twice, fix="Remove one of them.")
        seen[name] = lines[f"{prefix}{name}"] = line
        if isinstance(value_node, type(mapping)):
            _note_lines(value_node, f"{prefix}{name}.", path, lines)
