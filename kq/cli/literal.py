"""Values as people write them on a command line."""

from __future__ import annotations

import json
from typing import Any

import click

from kq.values.message import encode_result

_TOO_DEEP = "it is nested too deep"


def literal(text: str, hint: str) -> Any:
    """JSON where text is that, else text; NaN and Infinity are words.

    hint: what stands before it on the command line. Raises click.BadParameter for JSON that is too deep to be read.
    """
    try:
        return text if text.strip().lstrip("-") in ("NaN", "Infinity") else json.loads(text)
    except RecursionError:
        raise click.BadParameter(f"{text[:20]}…: {_TOO_DEEP}", param_hint=hint) from None
    except ValueError:
        return text


def parsed(text: str, option: str) -> Any:
    """The JSON that somebody gave to an option. Raises click.BadParameter for what is none, or no job can return."""
    try:
        value = json.loads(text)
        encode_result(value)
    except RecursionError:
        raise click.BadParameter(f"{text[:20]}…: {_TOO_DEEP}", param_hint=option) from None
    except ValueError as error:
        raise click.BadParameter(f"{text[:100]!r} is no JSON: {error}", param_hint=option) from error
    except TypeError as error:
        told = f"{text[:100]!r} is nothing that a job returns: {error}; write other JSON, such as null"
        raise click.BadParameter(told, param_hint=option) from error
    return value
