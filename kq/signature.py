"""A job type's parameters: arguments are bound and checked in the caller's line, and again where they run.

Annotations are enforced by msgspec: what it can check it checks (numbers, text, dates, enums, dataclasses,
Structs, TypedDicts, Literal, Annotated constraints); an annotation that it does not know means "anything".
"""

from __future__ import annotations

import difflib
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

_NO_DEFAULT: Any = inspect.Parameter.empty


class Signature:
    """The parameters of function, ready to bind and check arguments."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name = name
        self._signature = inspect.signature(function)
        parameters = list(self._signature.parameters.values())
        self._open = any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters)
        self._positional = tuple(p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD))
        self._only_positional = frozenset(p.name for p in parameters if p.kind is p.POSITIONAL_ONLY)
        self._struct = _struct_of(name, parameters, _hints(function))
        self._fields = frozenset(self._struct.__struct_fields__)

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise TypeError, in one line that names the parameter, unless the arguments fit.

        The values are those of JSON or what msgspec makes JSON of.
        """
        self.convert(args, msgspec.to_builtins(dict(kwargs)), builtin=False)

    def convert(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], *, builtin: bool = True
    ) -> tuple[Sequence[Any], dict[str, Any]]:
        """Arguments to call the function with, turned into what its annotations say.

        Raises TypeError when they do not fit.
        """
        if not builtin:
            args = [msgspec.to_builtins(arg) for arg in args]
        named = self._bind(args, kwargs)
        known = {name: value for name, value in named.items() if name in self._fields}
        try:
            values = msgspec.structs.asdict(msgspec.convert(known, self._struct))
        except msgspec.ValidationError as error:
            raise TypeError(f"{self.name}: {_plain(error)}") from None
        if not self._open and not self._only_positional:
            return (), {name: values[name] for name in known}
        taken = min(len(args), len(self._positional))
        first = [values[name] for name in self._positional[:taken]]
        rest = {name: values.get(name, value) for name, value in named.items() if name not in self._positional[:taken]}
        rest.pop("*", None)
        return [*first, *args[taken:]], rest

    def _bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by parameter name. The fast way for the usual function, inspect's for the rest."""
        if len(args) > len(self._positional) or self._open or self._only_positional:
            return self._bind_by_inspect(args, kwargs)
        named = dict(zip(self._positional, args, strict=False))
        for name, value in kwargs.items():
            if name in named or name not in self._fields:
                return self._bind_by_inspect(args, kwargs)
            named[name] = value
        return named

    def _bind_by_inspect(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}{self._signature}: {error}{self._hint(kwargs)}") from None
        named: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            kind = self._signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_KEYWORD:
                named.update(value)
            elif kind is inspect.Parameter.VAR_POSITIONAL:
                named["*"] = value
            else:
                named[name] = value
        return named

    def _hint(self, kwargs: Mapping[str, Any]) -> str:
        unknown = [name for name in kwargs if name not in self._fields]
        near = difflib.get_close_matches(unknown[0], self._fields, n=1) if unknown else []
        return f"; did you mean {near[0]!r}?" if near else ""


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception:  # a name that exists for type checkers only: such a parameter takes anything
        return {}


def _struct_of(name: str, parameters: Sequence[inspect.Parameter], hints: Mapping[str, Any]) -> type[msgspec.Struct]:
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        hint = _checkable(hints.get(parameter.name, Any))
        if parameter.default is _NO_DEFAULT:
            fields.append((parameter.name, hint))
        else:
            # The function fills in its own defaults; UNSET only says that the field may be absent.
            fields.append((parameter.name, hint | msgspec.UnsetType if hint is not Any else Any, msgspec.UNSET))
    return msgspec.defstruct(name.replace(".", "_"), fields, kw_only=True, forbid_unknown_fields=True)


def _checkable(hint: Any) -> Any:
    """hint if msgspec can check it, else Any."""
    try:
        msgspec.json.Decoder(hint)
        typing.Union[hint, msgspec.UnsetType]  # noqa: UP007 - only whether it may stand in a union
    except Exception:
        return Any
    return hint


def _plain(error: msgspec.ValidationError) -> str:
    """msgspec's message with the parameter's name instead of a JSON path."""
    text, _, path = str(error).partition(" - at `$.")
    return f"argument {path.rstrip('`')!r}: {text}" if path else text
