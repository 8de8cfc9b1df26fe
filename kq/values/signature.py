"""A job type's parameters: arguments are bound and checked in the caller's line, and again where they run.

Annotations are enforced by msgspec: what it can check it checks (numbers, text, dates, enums, dataclasses,
Structs, TypedDicts, Literal, Annotated constraints); an annotation that it does not know means "anything".
"""

from __future__ import annotations

import difflib
import hashlib
import inspect
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter
from types import SimpleNamespace, UnionType
from typing import Any

import msgspec

from kq.values.message import decode_body, encode_body
from kq.values.redaction import one_line
from kq.values.secret import Secret

#: What JSON's readers agree on.
_INT_LIMIT = 2**63
#: What needs no trial.
_PLAIN = frozenset({bool, bytes, float, int, str, type(None)})


class Signature:
    """The parameters of function, ready to bind and check arguments for the job type called name."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name = name
        self._signature = inspect.signature(function)
        parameters = self._signature.parameters.values()
        positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        #: The names of the parameters that need no name.
        self.positional = tuple(p.name for p in positional)
        self._known = frozenset(p.name for p in parameters)
        self._required = frozenset(p.name for p in parameters if p.default is p.empty and not _takes_rest(p))
        #: Whether every parameter has one value and may be named.
        self._plain = not any(_takes_rest(p) or p.kind is p.POSITIONAL_ONLY for p in parameters)
        hints = {p.name: _resolved(p, function) for p in parameters}
        #: Parameters whose annotation means something to people but not to msgspec: any JSON arrives as it is.
        self.unchecked = tuple(name for name, hint in hints.items() if hint is not Any and _checkable(hint) is Any)
        self._types = _types_of(parameters, hints)
        self._hints: dict[str, Any] = self._types.__annotations__
        #: What arguments without a name may be, and how many of them it takes at least; none where it takes named ones.
        self._leading = [self._hints[name] for name in self.positional] if self._plain else []
        self._needs = len(self.positional) + 1
        if self._required <= {*self.positional}:
            self._needs = max((self.positional.index(name) + 1 for name in self._required), default=0)

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise TypeError, in one line that names the parameter, unless these arguments will fit where they run."""
        if not kwargs and self._surely_take(args):
            return
        named = self._bind(args, kwargs)
        if all(_surely_fits(value, self._hints[name]) for name, value in named.items()):
            return
        try:
            # To JSON and back: what is checked is what will arrive.
            _, arriving = decode_body(encode_body((), named))
        except TypeError as error:
            raise self._misfit(str(error)) from None
        self._convert(arriving)

    def convert(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Sequence[Any], dict[str, Any]]:
        """Arguments to call the function with: those of a message, turned into what its annotations say.

        Raises TypeError, in one line that names the parameter, when they do not fit.
        """
        if not kwargs and self._surely_take(args):
            return (), dict(zip(self.positional, args, strict=False))
        values = self._convert(self._bind(args, kwargs))
        if self._plain:
            return (), values
        bound = inspect.BoundArguments(self._signature, values)
        return bound.args, bound.kwargs

    def digest(self, args: Sequence[Any], kwargs: Mapping[str, Any], names: Sequence[str] = ()) -> str:
        """A digest of the arguments called names, of all where none is: the same however they are passed or written.

        Raises TypeError when they do not fit, ValueError for a name that no parameter has.
        """
        if unknown := [name for name in names if name not in self._known]:
            raise ValueError(f"{self.name} has no argument {unknown[0]!r}; {self._usage}")
        _, arriving = decode_body(encode_body((), self._bind(args, kwargs)))
        values = {p.name: p.default for p in self._signature.parameters.values() if not _takes_rest(p)}
        values |= self._convert(arriving)
        chosen = {name: values[name] for name in names or values if name in values}
        return hashlib.sha256(_encode_sorted(chosen)).hexdigest()[:32]

    def _surely_take(self, args: Sequence[Any]) -> bool:
        """Whether these arguments, without names, arrive as they are, and fit: so most do."""
        return self._needs <= len(args) <= len(self._leading) and all(map(_surely_fits, args, self._leading))

    def _bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by parameter; those that `*args` and `**kwargs` take are one list and one dict."""
        named = self._bind_plainly(args, kwargs) if self._plain else None
        if named is None:
            try:
                named = self._signature.bind_partial(*args, **kwargs).arguments
            except TypeError as error:
                raise self._misfit(f"{error}; {self._hint(kwargs)}") from None
        if not self._required <= named.keys():
            missing = [repr(name) for name in self._signature.parameters if name in self._required - named.keys()]
            raise self._misfit(f"missing argument{'s' * (len(missing) > 1)} {', '.join(missing)}; {self._usage}")
        return named

    def _bind_plainly(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
        """What `inspect` would find, sooner; None when it would raise."""
        if len(args) > len(self.positional):
            return None
        named = dict(zip(self.positional, args, strict=False))
        for name, value in kwargs.items():
            if name in named or name not in self._known:
                return None
            named[name] = value
        return named

    def _convert(self, named: dict[str, Any]) -> dict[str, Any]:
        try:
            values: dict[str, Any] = msgspec.convert(named, self._types, str_keys=True)
        except msgspec.ValidationError as error:
            wrap = "; write kq.Secret(…)" if "`object`" in str(error) and self._has_secret(str(error)) else ""
            raise self._misfit(_with_name(error) + wrap) from None
        return values

    def _has_secret(self, error: str) -> bool:
        """Whether error is about a parameter that is a Secret."""
        found = _PATH.fullmatch(error)
        return found is not None and typing.get_origin(self._hints.get(found[3])) is Secret

    def _misfit(self, reason: str) -> TypeError:
        return TypeError(one_line(f"{self.name}: {reason}"))

    def _hint(self, kwargs: Mapping[str, Any]) -> str:
        unknown = [name for name in kwargs if name not in self._known]
        near = difflib.get_close_matches(unknown[0], self._known, n=1) if unknown else []
        return f"did you mean {near[0]!r}?" if near else self._usage

    @property
    def _usage(self) -> str:
        bare = [p.replace(annotation=p.empty) for p in self._signature.parameters.values()]
        return f"it takes {self._signature.replace(parameters=bare, return_annotation=Parameter.empty)}"


_encode_sorted = msgspec.json.Encoder(order="sorted").encode


def _takes_rest(parameter: Parameter) -> bool:
    return parameter.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


def _surely_fits(value: Any, hint: Any) -> bool:
    """Whether value arrives as it is, and hint takes it: so for most arguments, and sooner told than tried."""
    kind = type(value)
    if kind is not hint and hint is not Any:
        return False
    if kind is str:
        return bool(value.isascii())  # other text may hold what is not Unicode
    return kind is bool or (kind is int and -_INT_LIMIT <= value < _INT_LIMIT)


def _types_of(parameters: typing.Iterable[Parameter], hints: Mapping[str, Any]) -> Any:
    """A type for msgspec: a dict with one entry for each parameter, any of which may be absent."""
    fields: dict[str, Any] = {}
    for parameter in parameters:
        hint = _checkable(hints[parameter.name])
        if parameter.kind is Parameter.VAR_POSITIONAL:
            hint = list[hint]  # type: ignore[valid-type]
        elif parameter.kind is Parameter.VAR_KEYWORD:
            hint = dict[str, hint]  # type: ignore[valid-type]
        fields[parameter.name] = hint
    make: Any = typing.TypedDict  # its fields are known at run time only
    return make("Arguments", fields, total=False)


def _resolved(parameter: Parameter, function: Callable[..., Any]) -> Any:
    """The annotation, out of its text where it is one; Any when there is none that exists at run time."""
    if parameter.annotation is parameter.empty:
        return Any
    holder = SimpleNamespace(__annotations__={"it": parameter.annotation})
    try:
        return typing.get_type_hints(holder, inspect.unwrap(function).__globals__, include_extras=True)["it"]
    except Exception:  # a name that exists for type checkers only, a callable without globals
        return Any


def _checkable(hint: Any) -> Any:
    """hint if msgspec can check it, else Any."""
    if hint is Any or (type(hint) is type and hint in _PLAIN):
        return hint
    try:
        if _breaks(hint):
            return Any
        msgspec.json.Decoder(hint)  # raises for unions that it cannot tell apart
        msgspec.json.schema(hint)  # raises for classes that it would only compare by isinstance
    except Exception:
        return Any
    return hint


def _breaks(hint: Any) -> bool:
    """Whether msgspec (0.22) would write past its memory: text with a pattern in a union with more than None."""
    parts = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, UnionType):
        others = [part for part in parts if part is not type(None)]
        if len(others) > 1 and any(_has_pattern(part) for part in others):
            return True
    return any(map(_breaks, parts))


def _has_pattern(hint: Any) -> bool:
    return any(getattr(each, "pattern", None) for each in getattr(hint, "__metadata__", ()))


def _with_name(error: msgspec.ValidationError) -> str:
    """msgspec's message with the parameter's name before it instead of a JSON path behind it."""
    found = _PATH.fullmatch(str(error))
    if found is None:
        return str(error)
    text, key, path = found.groups()
    return f"argument {path!r}{', a key' if key else ''}: {text}"


_PATH = re.compile(r"(.*) - at (`key` in )?`\$\.(.*)`", re.DOTALL)
