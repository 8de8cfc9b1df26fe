"""docs/protocol.md for implementers: golden files, the JSON Schema, and that both say what the code does.

A golden file is never edited again: what was once on the wire must be read for ever. A new form
gets a new file, a new version a new folder.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import time
import uuid
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from kq.broker import Broker, Publisher
from kq.broker.letters import prepared
from kq.errors import MessageError
from kq.handles.stream import Head as StreamHead
from kq.handles.stream import decode_block
from kq.handles.stream import decode_head as decode_stream
from kq.url import parse
from kq.values import event
from kq.values.job import FALLBACKS, State
from kq.values.message import (
    BODY_LIMIT,
    CONTENT_TYPE,
    DEPTH_LIMIT,
    HISTORY_LIMIT,
    VERSION,
    Attempt,
    Envelope,
    First,
    Head,
    Stage,
    decode_body,
    decode_head,
    encode_bodies,
    encode_body,
    encode_head,
    turned,
)
from kq.values.outcome import HINDERED_WAITS, Rules
from kq.values.policy import (
    MOST_RETRIES,
    NESTING,
    YEAR,
    ByError,
    Delays,
    Exponential,
    Fixed,
    Never,
    Polynomial,
    RetryPolicy,
    by_error,
    from_data,
)
from kq.values.record import decode_record
from tests.unit.strategies import HEADS, JSON, TEXT, policies

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "message-1"
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()
SCHEMA = json.loads((ROOT / "docs" / "schema" / "message-1.json").read_text())


class Meaning(NamedTuple):
    """What a golden file says."""

    head: Head
    args: list[Any]
    kwargs: dict[str, Any]
    priority: int = 5
    others: Sequence[tuple[list[Any], dict[str, Any]]] = ()


WAY = (
    Attempt(
        number=1,
        worker="web1-4711-0a1b2c3d",
        started=1767225601.5,
        ended=1767225603.25,
        outcome="raised",
        error="ConnectionResetError: [Errno 104] Connection reset by peer",
    ),
    Attempt(number=2, worker="web2-815-4e5f6a7b", started=1767225620.0, ended=1767225650.0, outcome="timed out"),
    Attempt(
        number=3,
        worker="web1-4711-0a1b2c3d",
        started=1767225660.0,
        ended=1767225660.5,
        outcome="died",
        error="ExecutorDied: its executor died (signal 9), 1 of at most 3 times",
    ),
)
POLICIES = by_error(
    {
        "ConnectionError": Exponential(first=0.5, factor=3, longest=600, retries=8, jitter=False),
        "smtplib.SMTPException": Delays(delays=(1, 10, 60.5)),
        "shop.errors.Late": by_error({TimeoutError: Fixed(delay=5, retries=2)}, otherwise=Never()),
    },
    otherwise=Polynomial(power=3, shift=10, retries=12, jitter=2),
)
MEANINGS = {
    "smallest": Meaning(Head(id="1", type="t"), [], {}, 0),
    "submitted": Meaning(
        Head(id="019b76daa87d0123456789abcdef", type="shop.jobs.resize", submitted=1767225600.125),
        ["cat.png"],
        {"width": 200},
    ),
    "again": Meaning(
        Head(id="019b76daa87d0123456789abcdef", type="shop.jobs.resize", submitted=1767225602.5, again=True),
        ["cat.png"],
        {"width": 200},
    ),
    "settings": Meaning(
        Head(
            id="019b76daa87efedcba9876543210",
            type="shop.jobs.send",
            submitted=1767225600.126,
            timeout=30.0,
            deadline=1767312000.0,
            unique="invoice 2026-001",
            retry_policy=POLICIES.to_data(),
        ),
        [],
        {"to": "user@example.org"},
        9,
    ),
    "retried": Meaning(
        Head(
            id="019b76daa87ffedcba9876543210",
            type="shop.jobs.fetch",
            submitted=1767225600.127,
            failed=2,
            lost=1,
            infra=1,
            history=WAY,
        ),
        ["https://example.org/"],
        {},
    ),
    "hindered": Meaning(
        Head(
            id="019b76daa882fedcba9876543210",
            type="shop.jobs.store",
            submitted=1767225600.131,
            infra=1,
            history=(
                Attempt(
                    number=1,
                    worker="web1-4711-0a1b2c3d",
                    started=1767225601.5,
                    ended=1767225601.75,
                    outcome="bad storage",
                    error="OSError.ENOSPC: [Errno 28] No space left on device",
                    counter="infra",
                    host="web1",
                    code="2026.1",
                ),
            ),
        ),
        ["cat.png"],
        {},
    ),
    "buried": Meaning(
        Head(
            id="019b76daa880fedcba9876543210",
            type="shop.jobs.fetch",
            submitted=1767225600.128,
            failed=1,
            history=WAY[:1],
            error="ConnectionResetError: [Errno 104] Connection reset by peer",
            traceback='Traceback (most recent call last):\n  File "jobs.py", line 7\n    …\nConnectionResetError\n',
            buried=1767225603.5,
            queue="images",
        ),
        ["https://example.org/"],
        {},
    ),
    "poison": Meaning(
        Head(
            id="019b76daa883fedcba9876543210",
            type="shop.jobs.render",
            submitted=1767225600.132,
            lost=3,
            history=(
                Attempt(
                    number=3,
                    worker="web1-4711-0a1b2c3d",
                    started=1767225660.0,
                    ended=1767225660.5,
                    outcome="died",
                    error="ExecutorDied: its executor died (signal 11), 3 of at most 3 times",
                    counter="lost",
                    host="web1",
                    code="2026.1",
                ),
            ),
            error="ExecutorDied: its executor died (signal 11), 3 of at most 3 times",
            log="01:01:00 INFO shop: page 7 of 9\n01:01:00 WARNING shop: font “Ærø” is missing\n",
            buried=1767225660.75,
            queue="images",
        ),
        ["book.pdf"],
        {},
    ),
    "kicked": Meaning(
        Head(
            id="019b76daa880fedcba9876543210",
            type="shop.jobs.fetch",
            submitted=1767225600.128,
            repaired=2,
            history=(
                *WAY[:1],
                Attempt(
                    number=0,
                    worker="anna@web1",
                    started=1767225700.0,
                    ended=1767225700.0,
                    outcome="edited",
                    error="the page has moved",
                ),
                Attempt(number=0, worker="anna@web1", started=1767225710.0, ended=1767225710.0, outcome="kicked"),
            ),
        ),
        ["https://example.org/new"],
        {},
    ),
    "staged": Meaning(
        Head(
            id="019b76daa87d5d5f6c0e8f4b9a21",
            type="shop.jobs.send",
            submitted=1767225603.0,
            parent="019b76daa87d0123456789abcdef",
            held=True,
        ),
        [],
        {"to": "user@example.org"},
    ),
    "instead": Meaning(
        Head(
            id="019b76daa884fedcba9876543210",
            type="shop.jobs.render",
            submitted=1767225600.133,
            fallback=(
                Stage(
                    "shop.jobs.render_simply", "small", timeout=5.0, retry_policy=Fixed(delay=3, retries=1).to_data()
                ),
                Stage("shop.jobs.placeholder"),
            ),
        ),
        ["book.pdf"],
        {"dpi": 300},
        others=[(["book.pdf"], {}), ([], {"text": "comes later"})],
    ),
    "degraded": Meaning(
        Head(
            id="019b76daa885fedcba9876543210",
            type="shop.jobs.render_simply",
            submitted=1767225600.134,
            failed=1,
            timeout=5.0,
            degraded_by=1,
            fallback=(Stage("shop.jobs.render_simply", "small", timeout=5.0),),
            first=First("shop.jobs.render", "images", timeout=30.0, retry_policy=Never().to_data(), assumed=True),
            history=(
                Attempt(
                    number=1,
                    worker="web1-4711-0a1b2c3d",
                    started=1767225601.5,
                    ended=1767225632.25,
                    outcome="timed out",
                    error="SoftTimeout: ran past its timeout of 30 s and was killed",
                    counter="failed",
                    host="web1",
                    code="2026.1",
                    type="shop.jobs.render",
                ),
                Attempt(
                    number=1,
                    worker="web2-815-4e5f6a7b",
                    started=1767225632.5,
                    ended=1767225633.0,
                    outcome="raised",
                    error="ConnectionResetError: [Errno 104] Connection reset by peer",
                    counter="failed",
                    host="web2",
                    code="2026.1",
                    type="shop.jobs.render_simply",
                ),
            ),
        ),
        ["book.pdf"],
        {"dpi": 300},
    ),
    "unique": Meaning(
        Head(
            id="019b76daa884fedcba9876543210",
            type="shop.jobs.index",
            submitted=1767225600.133,
            unique="shop.jobs.index:5f0c",
            unique_until="turn",
            unique_at_most=1767225630.25,
        ),
        [3],
        {},
    ),
    "unique-later": Meaning(
        Head(
            id="019b76daa885fedcba9876543210",
            type="shop.jobs.remind",
            submitted=1767225600.134,
            parent="019b76daa87d0123456789abcdef",
            unique="customer 7",
            unique_until="gone",
            unique_at_least=1767312000.5,
            unique_late=True,
        ),
        [7],
        {},
    ),
    "values": Meaning(
        Head(id="019b76daa881fedcba9876543210", type="shop.jobs.échantillon", submitted=1767225600.129),
        [None, True, False, 0, -7, 2**63, 0.5, -1e-9, "", 'a "quoted" \\ line\n', "Ærø 東京 😀"],
        {"empty": [[], {}], "nested": {"a": [{"b": [1, [2, [3]]]}]}, "": "a name without letters"},
        0,
    ),
}
#: Written by others: the same meaning in another hand, and more than this version knows.
FOREIGN = {
    "foreign": Meaning(
        Head(
            id="job 7",
            type="shop.jobs.resize",
            submitted=1767225600.0,
            timeout=30.0,
            retry_policy={"kind": "fixed", "delay": 3, "comment": "from another language"},
            history=(Attempt(number=1, worker="", started=0.0, ended=1.0, outcome="crashed", host="web3"),),
        ),
        ["cat.png", 1.0],
        {},
        3,
    )
}


def body_of(meaning: Meaning) -> bytes:
    """The body, with the arguments of what runs instead where it has some of its own."""
    bodies = [encode_body(meaning.args, meaning.kwargs), *(encode_body(*each) for each in meaning.others)]
    return encode_bodies(bodies) if meaning.others else bodies[0]


def golden(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text())
    return loaded


def properties(meaning: Meaning) -> dict[str, Any]:
    return {
        "message_id": meaning.head.id,
        "priority": meaning.priority,
        "content_type": CONTENT_TYPE,
        "content_encoding": "utf-8",
        "delivery_mode": 2,
    }


# Golden files.


def test_every_golden_file_has_its_meaning_here() -> None:
    assert {file.stem for file in GOLDEN.glob("*.json")} == set(MEANINGS) | set(FOREIGN)


def test_no_golden_file_was_edited() -> None:
    sums = {f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}" for file in GOLDEN.glob("*.json")}
    assert sums == set((GOLDEN / "SHA256SUMS").read_text().splitlines())


@pytest.mark.parametrize("name", [*MEANINGS, *FOREIGN])
def test_todays_decoder_reads_what_was_written_then(name: str) -> None:
    meaning = {**MEANINGS, **FOREIGN}[name]
    message = golden(name)
    assert decode_head(message["headers"]) == meaning.head
    assert decode_body(message["body"].encode()) == (meaning.args, meaning.kwargs)
    for number, arguments in enumerate(meaning.others, 1):
        assert decode_body(turned(message["body"].encode(), 0, number)) == arguments
    assert message["properties"]["priority"] == meaning.priority
    assert message["properties"]["message_id"] == meaning.head.id


@pytest.mark.parametrize("name", MEANINGS)
def test_todays_encoder_writes_what_was_written_then(name: str) -> None:
    meaning = MEANINGS[name]
    message = golden(name)
    assert json.loads(msgspec.json.encode(encode_head(meaning.head))) == message["headers"]
    assert body_of(meaning).decode() == message["body"]
    assert properties(meaning) == message["properties"]


# The schema.

VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def validator(part: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator({"$ref": f"#/$defs/{part}", "$defs": SCHEMA["$defs"]})


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", [*MEANINGS, *FOREIGN])
def test_golden_messages_fit_the_schema(name: str) -> None:
    message = golden(name)
    VALIDATOR.validate({**message, "body": json.loads(message["body"])})


@given(HEADS)
def test_every_head_that_is_written_fits_the_schema(head: Head) -> None:
    validator("headers").validate(json.loads(msgspec.json.encode(encode_head(head))))


@given(some.lists(JSON, max_size=3), some.dictionaries(TEXT, JSON, max_size=3))
def test_every_body_that_is_written_fits_the_schema(args: list[Any], kwargs: dict[str, Any]) -> None:
    validator("body").validate(json.loads(encode_body(args, kwargs)))


def test_the_schema_describes_every_header_and_every_part_of_an_attempt() -> None:
    assert list(SCHEMA["$defs"]["headers"]["properties"]) == list(Head.__struct_fields__)
    assert list(SCHEMA["$defs"]["attempt"]["properties"]) == list(Attempt.__struct_fields__)
    assert list(SCHEMA["$defs"]["stage"]["properties"]) == list(Stage.__struct_fields__)
    assert {*SCHEMA["$defs"]["stage"]["properties"], *SCHEMA["$defs"]["first"]["properties"]} == {
        *First.__struct_fields__
    }


#: Near misses: a header of the right name with this or that in it. JSON Schema takes 1.0 for a whole number.
VALUES = JSON.filter(lambda value: not isinstance(value, float) or not value.is_integer())
HEADERS = some.builds(
    lambda needed, others: {**needed, **others},
    some.just({"kq": 1, "id": "1", "type": "t"}),
    some.dictionaries(some.sampled_from(Head.__struct_fields__), VALUES, max_size=4),
)
ATTEMPTS = some.fixed_dictionaries(
    {}, optional={name: some.just(1) | some.just("x") | VALUES for name in Attempt.__struct_fields__}
)


@given(HEADERS, some.lists(ATTEMPTS, max_size=2))
@example({"kq": 1, "id": "1", "type": "t", "timeout": 0, "failed": 1}, [])
@example({"kq": 1, "id": "1", "type": "t", "timeout": 0.1, "unique": None, "buried": None}, [])
@example({"kq": 1, "id": "1", "type": "t", "fallback": [{"type": "u", "timeout": 0}]}, [])
@example({"kq": 1, "id": "1", "type": "t", "fallback": [{"type": "u"}] * 9, "first": None}, [])
@example({"kq": 1, "id": "1", "type": "t", "degraded_by": 9, "first": {"type": "u", "assumed": 1}}, [])
@example({"kq": 1, "id": "1", "type": "t", "degraded_by": 1, "first": {"type": "u", "assumed": True}}, [])
def test_the_schema_and_the_decoder_agree_about_headers(headers: dict[str, Any], history: list[Any]) -> None:
    headers = {**headers, "history": history} if history else headers
    assert validator("headers").is_valid(headers) == is_readable(headers)


KINDS = some.sampled_from(["exponential", "polynomial", "fixed", "delays", "never", "by error", "other"])
SETTINGS = ["first", "factor", "longest", "retries", "jitter", "power", "shift", "delay", "delays", "policies"]


@given(
    KINDS,
    some.dictionaries(some.sampled_from(SETTINGS), some.integers(-1, 101) | some.booleans() | VALUES, max_size=4),
    policies().map(lambda policy: policy.to_data()) | VALUES,
)
def test_the_schema_and_the_decoder_agree_about_retry_policies(kind: str, said: dict[str, Any], other: Any) -> None:
    policy = {**said, "kind": kind, "otherwise": other}
    headers = {"kq": 1, "id": "1", "type": "t", "retry_policy": json.loads(json.dumps(policy))}
    assert validator("headers").is_valid(headers) == is_readable(headers)


def is_readable(headers: dict[str, Any]) -> bool:
    try:
        decode_head(headers)
    except MessageError:
        return False
    return True


# The document.


def json_blocks() -> list[Any]:
    return [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PROTOCOL, re.DOTALL)]


def section(title: str) -> str:
    return PROTOCOL.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def first_cells(text: str) -> list[str]:
    """The names in the first column of a table's rows."""
    return [name for row in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for name in re.findall(r"`(.*?)`", row)]


def test_each_example_is_what_it_says() -> None:
    read = []
    for block in json_blocks():
        if isinstance(block, list):
            (failed,) = event.decode(json.dumps(block).encode())
            assert json.loads(event.encode([failed])) == block
            assert failed.key == "job.images"
        elif "headers" in block:
            VALIDATOR.validate(block)
            decode_head(block["headers"])
        elif "kind" in block:
            validator("retry_policy").validate(block)
            from_data(block)
        elif "state" in block:
            record = decode_record(json.dumps(block).encode())
            assert record is not None
            assert record.state == State.COMPLETED
        elif "chunks" in block:
            piece = decode_block(json.dumps(block).encode())
            assert piece is not None
            assert [(chunk.offset, chunk.value, chunk.begins) for chunk in piece.read(0)] == [(2, "two", False)]
        elif "blocks" in block:
            assert decode_stream(json.dumps(block).encode()) == StreamHead(attempt=1, next=3, blocks=2)
        else:
            validator("body").validate(block)
            decode_body(json.dumps(block).encode())
        read.append(block)
    assert len(read) == 9


def test_the_tables_name_what_the_code_knows() -> None:
    assert first_cells(section("Headers")) == [*Head.__struct_fields__, "x-delay", "x-delivery-count"]
    assert set(event.Event.__struct_fields__) <= set(first_cells(section("Events")))
    names = (*event.MOVES, *event.OF_WORKERS, *event.OTHERS)
    assert [name for name in names if f"`{name}`" not in section("Events")] == []
    assert first_cells(section("History")) == list(Attempt.__struct_fields__)
    assert first_cells(section("Fallbacks")) == list(Stage.__struct_fields__)
    assert first_cells(section("Properties")) == list(SCHEMA["$defs"]["properties"]["properties"])
    kinds = [policy.kind for policy in (Exponential, Polynomial, Fixed, Delays, Never, ByError)]
    assert first_cells(section("Retries")) == kinds


def test_the_limits_are_those_of_the_code() -> None:
    for limit in (BODY_LIMIT, MOST_RETRIES, YEAR * 1000):
        assert f"{limit:,.0f}".replace(",", " ") in PROTOCOL
    for sentence in (
        f"nested at most {DEPTH_LIMIT} levels deep",
        f"more than {HISTORY_LIMIT}, the first and the latest {HISTORY_LIMIT - 1} stay",
        f"at most {NESTING} policies by error",
        f"| `fallback` | list, at most {FALLBACKS} |",
        f"| `degraded_by` | integer, 0 to {FALLBACKS} |",
        f"No wait is longer than {YEAR / 86400:.0f} days",
        f"a message whose `kq` is not {VERSION} is buried",
        f"`max_lost`, {Rules().max_lost} by default",
        f"retried after up to 1, 2, 4 … {HINDERED_WAITS.longest:.0f} seconds",
        f"`max_infra`, {Rules().max_infra} by default",
    ):
        assert sentence in " ".join(PROTOCOL.split())


@pytest.mark.parametrize(
    "policy", [Exponential(), Polynomial(), Fixed()], ids=lambda policy: str(getattr(policy, "kind", policy))
)
def test_what_is_assumed_of_a_policy_is_what_the_code_assumes(policy: RetryPolicy) -> None:
    row = next(line for line in PROTOCOL.splitlines() if line.startswith(f"| `{policy.kind}` |"))
    for name, value in policy.to_data().items():
        if name != "kind":
            assert f"`{name}` {json.dumps(value).removesuffix('.0')}" in row
            assert SCHEMA["$defs"][policy.kind]["properties"][name]["default"] == value


@pytest.mark.parametrize(
    "value",
    [
        datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC),
        datetime.date(2026, 1, 2),
        datetime.time(3, 4, 5),
        datetime.timedelta(seconds=90),
        b"\x00\xff",
        Decimal("1.10"),
        uuid.UUID("12345678-1234-5678-1234-567812345678"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_json_has_no_form_for_is_written_as_the_table_says(value: Any) -> None:
    args, _ = decode_body(encode_body([value], {}))
    assert f'`"{args[0]}"`' in section("Body")


# The way through a transport.


@pytest.mark.parametrize(("delay", "wire"), [(0.0001, 1), (1.0, 1000), (0.07, 70), (1.0004, 1001), (YEAR, 31622400000)])
def test_a_delay_is_never_shorter_on_the_wire(delay: float, wire: int) -> None:
    broker = Broker(parse("memory://"))
    with broker.connection() as connection, connection.channel() as channel:
        assert prepared(channel, Envelope("1", "q", b"{}", delay=delay)).headers["x-delay"] == wire


@pytest.mark.parametrize("name", MEANINGS)
def test_a_message_is_on_the_wire_what_its_golden_file_says(name: str) -> None:
    meaning = MEANINGS[name]
    broker = Broker(parse("memory://golden"))
    envelope = Envelope(
        meaning.head.id,
        "golden",
        body_of(meaning),
        encode_head(meaning.head),
        meaning.priority,
    )
    publisher = Publisher(broker)
    with broker.connection() as connection:
        publisher.publish([envelope], time.monotonic() + 5)
        message = connection.channel().basic_get("golden", no_ack=True)
    publisher.close()
    seen = {"properties": message.properties, "headers": message.headers, "body": bytes(message.body).decode()}
    seen["properties"] |= {"content_type": message.content_type, "content_encoding": message.content_encoding}
    assert json.loads(json.dumps(seen)) == golden(name)
