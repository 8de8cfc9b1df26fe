"""kq.Secret: an argument that is shown nowhere."""

from __future__ import annotations

import copy
import pickle
import traceback

import msgspec
import pytest
from rich.pretty import pretty_repr

import kq
from kq.values.message import decode_body, encode_body
from kq.values.redaction import redacted
from kq.values.secret import without_marked
from kq.values.signature import Signature

HUSH = kq.Secret("hunter2")


def charge(card: kq.Secret[str], times: int = 1) -> str:
    return card.value * times


def test_a_secret_is_not_in_its_text() -> None:
    for shown in (str(HUSH), repr(HUSH), f"{HUSH:>9}", repr([HUSH]), pretty_repr(HUSH)):
        assert "hunter2" not in shown
        assert "***" in shown
    assert "hunter2" not in "".join(traceback.format_exception(ValueError(HUSH)))


def test_a_secret_is_a_value() -> None:
    assert HUSH == kq.Secret("hunter2") == pickle.loads(pickle.dumps(HUSH)) == copy.deepcopy(HUSH)
    assert kq.Secret("hunter3") != HUSH
    assert len({HUSH, kq.Secret("hunter2")}) == 1


def test_a_secret_arrives_as_one() -> None:
    signature = Signature("charge", charge)
    signature.check((HUSH,), {})
    args, kwargs = decode_body(encode_body((HUSH,), {}))
    _, called = signature.convert(args, kwargs)
    assert called == {"card": HUSH}
    assert called["card"].value == "hunter2"


def test_what_is_no_secret_is_refused_with_what_to_write() -> None:
    with pytest.raises(TypeError, match=r"argument 'card': .* write kq.Secret\(…\)"):
        Signature("charge", charge).check(("hunter2",), {})
    with pytest.raises(TypeError, match="Expected `str`, got `int`"):
        Signature("charge", charge).check((kq.Secret(4),), {})


def test_a_secret_in_a_message_is_hidden_wherever_it_is() -> None:
    args, _ = decode_body(encode_body(([{"card": HUSH}], HUSH), {}))
    for shown in (redacted(args), without_marked(args)):
        assert shown[1] == {"kq.secret": "***"}
        assert b"hunter2" not in msgspec.json.encode(shown)
