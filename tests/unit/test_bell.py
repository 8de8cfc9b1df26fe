"""When people are told, and in which words: pure rules."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from kq.control.bell import HOUR, REMEMBERED, Told, after, next_draft
from kq.control.wording import Draft, commands, written
from kq.handles.trouble import Alert, Count, Trouble
from kq.values.message import BODY_LIMIT, encode_body

EVERY, MOST = 600.0, 12
ALERT = Alert("1", "", "")


def counts(**groups: int) -> dict[str, dict[str, Count]]:
    return {id: {"w": Count(number, float(place))} for place, (id, number) in enumerate(groups.items())}


def test_each_new_group_has_an_alert_of_its_own_the_oldest_first() -> None:
    seen, told = counts(b=2, a=1), Told()
    for id, new in (("b", 2), ("a", 1)):
        draft = next_draft(told, seen, 1000.0, EVERY, MOST)
        assert draft is not None
        assert (draft.kind, draft.news) == ("first", {id: new})
        told = after(told, draft, seen, ALERT, 1000.0, EVERY)
    assert next_draft(told, seen, 1000.0, EVERY, MOST) is None


def test_what_comes_after_it_waits_for_the_digest() -> None:
    told = Told({"a": {"w": 1}}, [1000.0], 1000.0)
    more = {"a": {"w": Count(5, 0.0), "other": Count(2, 0.0)}}
    assert next_draft(told, more, 1000.0 + EVERY - 1, EVERY, MOST) is None
    draft = next_draft(told, more, 1000.0 + EVERY, EVERY, MOST)
    assert draft is not None
    assert (draft.kind, draft.news) == ("digest", {"a": 6})
    told = after(told, draft, more, ALERT, 1000.0 + EVERY, EVERY)
    assert next_draft(told, more, 1000.0 + 9 * EVERY, EVERY, MOST) is None


def test_too_many_new_groups_go_into_a_digest() -> None:
    seen = counts(**{f"g{number:02}": 1 for number in range(40)})
    told, kinds = Told(), []
    for now in (1000.0, 1000.0 + EVERY):
        while draft := next_draft(told, seen, now, EVERY, MOST):
            kinds.append((draft.kind, len(draft.news)))
            told = after(told, draft, seen, ALERT, now, EVERY)
    assert kinds == [("first", 1)] * (MOST - 1) + [("digest", 40 - MOST + 1)]


def test_a_group_that_is_forgotten_is_new_again() -> None:
    draft = next_draft(Told({"old": {"w": 3}}), counts(a=1), 0.0, EVERY, MOST)
    assert draft is not None
    told = after(Told({"old": {"w": 3}}), draft, counts(a=1), ALERT, 0.0, EVERY)
    assert set(told.counts) == {"a"}


DAY = 86400.0
PAY = Trouble("shop.pay", "ValueError", "jobs.py:pay", "shop", "7", "ValueError: no date", code="v1")


def told_of(last: float, case: Trouble = PAY) -> Told:
    """What people know who were told of one case."""
    seen = {case.id: {"w": Count(1, last)}}
    return after(Told(), Draft("first", {case.id: 1}), seen, ALERT, last, EVERY, {case.id: case})


def test_a_group_that_was_quiet_for_a_day_has_ended_and_that_is_told_once_in_a_digest() -> None:
    told, seen = told_of(1000.0), {PAY.id: {"w": Count(1, 1000.0)}}
    assert next_draft(told, seen, 999.0 + DAY, EVERY, MOST) is None
    busy = msgspec.structs.replace(told, window=1000.0 + DAY)
    assert next_draft(busy, seen, 1000.0 + DAY, EVERY, MOST) is None  # a digest was sent just now
    full = msgspec.structs.replace(told, sent=[1000.0 + DAY] * MOST)
    assert next_draft(full, seen, 1000.0 + DAY, EVERY, MOST) is None
    draft = next_draft(told, seen, 1000.0 + DAY, EVERY, MOST)
    assert draft == Draft("digest", {}, (PAY.id,))
    alert = written("shop", draft, {}, {}, 0.0, 1000.0 + DAY, EVERY, told.past)
    assert alert.subject == "[shop] ended: shop.pay: ValueError"
    assert "None since 1970-01-01 00:16:40 UTC, with code v1." in alert.text
    assert "kq jobs ls --state buried --type shop.pay" in alert.text
    assert [group["news"] for group in alert.groups] == ["ended"]
    told = after(told, draft, seen, alert, 1000.0 + DAY, EVERY)
    assert next_draft(told, {}, 1000.0 + 9 * DAY, EVERY, MOST) is None


def test_a_group_has_ended_when_the_job_that_was_told_of_completed_after_the_last_case() -> None:
    told, seen = told_of(1000.0), {PAY.id: {"w": Count(1, 1000.0)}}
    assert next_draft(told, seen, 1000.0 + EVERY, EVERY, MOST, {PAY.id: 999.0}) is None
    draft = next_draft(told, seen, 1000.0 + EVERY, EVERY, MOST, {PAY.id: 1001.0})
    assert draft == Draft("digest", {}, (PAY.id,))
    more = {PAY.id: {"w": Count(2, 1002.0)}}
    draft = next_draft(told, more, 1000.0 + EVERY, EVERY, MOST, {PAY.id: 1001.0})
    assert draft == Draft("digest", {PAY.id: 1})
    # What people do not know yet is told before its end is.
    assert next_draft(told, more, 1000.0 + EVERY, EVERY, MOST, {PAY.id: 1003.0}) == Draft("digest", {PAY.id: 1})


def test_one_that_is_still_counted_when_it_comes_back_is_told_at_once_too() -> None:
    told, seen = told_of(1000.0), {PAY.id: {"w": Count(1, 1000.0)}}
    told = after(told, Draft("digest", {}, (PAY.id,)), seen, ALERT, 1000.0 + EVERY, EVERY)
    more = {PAY.id: {"w": Count(2, 1002.0 + EVERY)}}
    assert next_draft(told, more, 1002.0 + EVERY, EVERY, MOST) == Draft("first", {PAY.id: 1})


def test_one_that_comes_back_is_told_at_once_with_the_code_that_had_it_before() -> None:
    told = told_of(1000.0)
    ended = Draft("digest", {}, (PAY.id,))
    told = after(told, ended, {}, ALERT, 1000.0 + DAY, EVERY)
    now = 1000.0 + 30 * DAY  # nothing is counted of it any more
    seen = {PAY.id: {"w": Count(1, now)}}
    draft = next_draft(told, seen, now, EVERY, MOST)
    assert draft == Draft("first", {PAY.id: 1})
    case = msgspec.structs.replace(PAY, code="v2", job="8")
    alert = written("shop", draft, {PAY.id: case}, {PAY.id: 1}, 0.0, now, EVERY, told.past)
    assert alert.subject == "[shop] shop.pay: ValueError came back"
    assert "It had ended, and came back: the last one was at 1970-01-01 00:16:40 UTC, with code v1." in alert.text
    assert "code v2" in alert.text
    told = after(told, draft, seen, alert, now, EVERY, {PAY.id: case})
    more = {PAY.id: {"w": Count(2, now + 1)}}
    assert next_draft(told, more, now + 1, EVERY, MOST) is None  # it is there again: more of it waits for a digest


def test_what_is_no_failure_of_a_job_does_not_end_by_itself() -> None:
    told = told_of(1000.0, Trouble("kq.mail", "something sends in a loop", "to ann"))
    assert next_draft(told, {}, 1000.0 + 9 * DAY, EVERY, MOST) is None


def test_no_more_groups_are_remembered_than_there_is_room_for() -> None:
    cases = {str(n): Trouble(f"shop.{n}", "ValueError", job=str(n)) for n in range(2 * REMEMBERED)}
    seen = {id: {"w": Count(1, float(id))} for id in cases}
    told = after(Told(), Draft("digest", dict.fromkeys(cases, 1)), seen, ALERT, 0.0, EVERY, cases)
    assert set(told.past) == {str(n) for n in range(REMEMBERED, 2 * REMEMBERED)}
    told = after(told, Draft("digest", {}), {}, ALERT, 365 * DAY, EVERY)
    assert told.past == {}


@given(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 50), st.floats(1.0, 900.0)), max_size=60),
    st.integers(2, 6),
)
def test_everything_is_told_once_and_never_more_often_than_allowed(
    cases: list[tuple[str, int, float]], most: int
) -> None:
    now, told, sums, heard, sent = 0.0, Told(), dict[str, int](), dict[str, int](), list[float]()

    def ring() -> None:
        nonlocal told
        seen = {id: {"w": Count(number, 0.0)} for id, number in sums.items()}
        while draft := next_draft(told, seen, now, EVERY, most):
            told = after(told, draft, seen, ALERT, now, EVERY)
            sent.append(now)
            for id, new in draft.news.items():
                heard[id] = heard.get(id, 0) + new
            assert sum(at > now - HOUR for at in sent) <= most

    for id, number, pause in cases:
        now += pause
        sums[id] = sums.get(id, 0) + number
        ring()
    now += 2 * HOUR
    ring()
    assert heard == sums


def test_a_digest_tells_of_each_group_and_its_commands() -> None:
    cases = {
        "a": Trouble("shop.pay", "ValueError", "jobs.py:pay", "shop", "7", "ValueError: no date"),
        "b": Trouble("kq.mail", "something sends in a loop", "to ann", error="50 mails"),
    }
    draft = next_draft(Told({"a": {}, "b": {}}), counts(a=3, b=1), EVERY, EVERY, MOST)
    assert draft is not None
    alert = written("shop", draft, cases, {"a": 1234, "b": 1}, 0.0, EVERY, EVERY)
    assert alert.subject == "[shop] 4 failures of 2 kinds"
    assert "3 failures (1,234 in all): shop.pay: ValueError in jobs.py:pay" in alert.text
    kick = "kq jobs kick --type shop.pay --error ValueError --place jobs.py:pay --first 1 --stop-on-same-failure"
    assert kick in alert.text
    assert "kq queues resume --type kq.mail" in alert.text
    assert [group["new"] for group in alert.groups] == [3, 1]


def test_an_alert_of_very_many_kinds_is_not_too_large_to_be_submitted() -> None:
    cases = {
        str(n): Trouble(f"shop.{n}", "f.<locals>.Odd", f"{n}.py:f", error="x" * 2000, job="7") for n in range(1000)
    }
    draft = next_draft(
        Told({id: {} for id in cases}), counts(**dict.fromkeys(cases, 1) | {"500": 9}), EVERY, EVERY, MOST
    )
    assert draft is not None
    job = written("shop", draft, cases, dict.fromkeys(cases, 9), 0.0, EVERY, EVERY).job("shop")
    assert len(encode_body(job.args, job.kwargs)) < BODY_LIMIT / 2
    groups = job.args[2]
    assert (len(groups), groups[0]["type"]) == (100, "shop.500")


def test_names_that_a_shell_would_read_otherwise_are_quoted() -> None:
    told = dict(commands(Trouble("a;rm -rf /", "$(x)", job="7")))
    assert told["all"] == "kq jobs ls --state buried --type 'a;rm -rf /' --error '$(x)'"


def test_an_alert_spells_out_what_cant_be_seen() -> None:
    evil = "a\x1b[2J\u202e\u200b\U000e0041"
    case = Trouble(type=f"t{evil}", queue=f"q{evil}", exception=f"E{evil}", error=evil, job=evil, worker=evil)
    for draft in (Draft("first", {"g": 3}), Draft("digest", {"g": 3})):
        alert = written(evil, draft, {"g": case}, {"g": 3}, 0.0, 60.0, EVERY)
        assert not set("\x1b\u202e\u200b\U000e0041") & set(alert.subject + alert.text)
        assert r"\u200b" in alert.subject
        assert r"\u200b" in alert.text
