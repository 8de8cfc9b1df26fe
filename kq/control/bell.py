"""The bell: when a human is told of troubles (wording: how). Rounds ring it; see kq.handles.trouble and kq.alert.

A group of failures that is new, or comes back, is told of at once, in an alert of its own. What comes after it is
summed up in digests, at most one in so many minutes, and so is which groups have ended. Never are there more than so
many alerts in an hour: what is too much waits for the next digest. Rules (see rule) are told of when they have been so
for a while, and when they are over. Nothing is lost and nothing told twice, whoever is killed and when: an alert is
written down together with what it tells of, then submitted under an id of its own, then struck out; who finds one that
was not struck out submits it again, and the broker and the ledger know it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice

import msgspec
from msgspec.structs import replace

from kq.app import App
from kq.clock import new_id
from kq.control.rule import Watched, gone, told_of, watched
from kq.control.wording import LINES, NOTHING, Draft, Past, written
from kq.handles.trouble import CASES, COUNTS, Alert, Count, Trouble, counts_of, decode_trouble
from kq.state.store import Write
from kq.values.condition import Condition, parse_condition
from kq.values.job import State
from kq.values.reading import reader
from kq.values.record import decode_record, encode, job_key
from kq.values.snapshot import Snapshot

HOUR = 3600.0
#: The key under which it is known what was told.
TOLD = "alerts:told"
#: So many counts are read, at most.
MOST = 10_000
#: So many seconds may pass until it is written down that somebody looked at rules.
LOOKED = 30.0
#: What is seen of control when it is gone.
NOBODY = Snapshot(at=0.0)
#: Seconds without a case after which a group has ended.
QUIET = 86400.0
#: So many groups are remembered, for so many seconds, to be recognised when they come back.
REMEMBERED, REMEMBER = 1000, 90 * 86400.0


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """What people have been told.

    counts: of each group, how many cases of whom. sent: when alerts of the last hour were. window: since when a digest
    gathers. pending: an alert that was decided and may not have been submitted. rules: those that are so, or were told
    to be, by their texts. looked: when somebody looked at rules. past: groups of failed jobs, by id.
    """

    counts: dict[str, dict[str, int]] = {}
    sent: list[float] = []
    window: float = 0.0
    pending: Alert | None = None
    rules: dict[str, Watched] = {}
    looked: float = 0.0
    past: dict[str, Past] = {}

    def came_back(self, id: str) -> bool:
        """Whether more cases of a group mean that it is back."""
        return id in self.past and self.past[id].ended


Counts = Mapping[str, Mapping[str, Count]]


def next_draft(
    told: Told, counts: Counts, now: float, every: float, most: int, mended: Mapping[str, float] = NOTHING
) -> Draft | None:
    """What is to be told now, if anything. every: seconds between digests; most: alerts in an hour. Pure.

    mended: of some groups, when the job that was told of completed.
    """
    sent = sum(at > now - HOUR for at in told.sent)
    news = {id: number for id in counts if (number := _new(told.counts.get(id, {}), counts[id]))}
    fresh = [id for id in news if id not in told.counts or told.came_back(id)]
    if fresh and sent < most - 1:  # one is left for a digest
        first = min(fresh, key=lambda id: (_first(counts[id]), id))
        return Draft("first", {first: news[first]})
    ended = tuple(
        id
        for id in told.past
        if id not in news and _has_ended(told.past[id], counts.get(id, {}), now, mended.get(id, 0.0))
    )
    if (news or ended) and sent < most and now >= told.window + every:
        return Draft("digest", news, ended)
    return None


def _has_ended(past: Past, counts: Mapping[str, Count], now: float, mended: float) -> bool:
    last = max((count.last for count in counts.values()), default=past.last)
    return not past.ended and (mended > last or now - last >= QUIET)


def after(
    told: Told,
    draft: Draft,
    counts: Counts,
    alert: Alert,
    now: float,
    every: float,
    cases: Mapping[str, Trouble] = NOTHING,
) -> Told:
    """What people have been told when draft has become alert. What is no longer counted is forgotten. Pure.

    cases: of the groups that it tells of.
    """
    known = {
        id: {who: number for who, number in of.items() if who in counts[id]}
        for id, of in told.counts.items()
        if id in counts
    }
    waits = any(_new(known.get(id, {}), counts[id]) for id in counts.keys() - draft.news.keys())
    known |= {id: {who: count.number for who, count in counts[id].items()} for id in draft.news}
    ended = draft.kind == "digest" or (now >= told.window + every and not waits)
    past = _past(told, draft, counts, now, cases)
    return replace(ringing(told, alert, now), counts=known, window=now if ended else told.window, past=past)


def ringing(told: Told, alert: Alert, now: float) -> Told:
    """told, with an alert that is to be submitted. Pure."""
    return replace(told, sent=[*(at for at in told.sent if at > now - HOUR), now], pending=alert)


def watching(told: Told, rules: Iterable[Condition], shot: Snapshot, app: str, after: float, most: int) -> Told | None:
    """What people have been told when rules were looked at, with one alert at most; None when nothing has changed.

    after: seconds that a rule must be so, or over; most: alerts in an hour. Pure.
    """
    now, may = shot.at, sum(at > shot.at - HOUR for at in told.sent) < most
    stand, alert = dict[str, Watched](), None
    for rule in rules:
        before = told.rules.get(rule.text)
        if rule.name == "control":
            if told.looked and now - told.looked > after + LOOKED and rule.holds(NOBODY) and may and alert is None:
                alert = gone(app, rule, told.looked, now)
            continue
        stands, news = watched(before, rule.met(shot), now, after)
        if news is not None and (alert is not None or not may):
            stands, news = before, None  # its turn comes
        if news is not None and before is not None:
            alert = told_of(app, rule, before, news, shot, after)
        if stands is not None:
            stand[rule.text] = stands
    late = now - told.looked > LOOKED
    if alert is None and stand == told.rules and not late:
        return None
    seen = replace(told, rules=stand, looked=now)
    return seen if alert is None else ringing(seen, Alert(new_id(), *alert[:2], rule=alert[2]), now)


def _past(told: Told, draft: Draft, counts: Counts, now: float, cases: Mapping[str, Trouble]) -> dict[str, Past]:
    """The groups that are remembered, those with the latest cases."""
    past = told.past | {id: replace(told.past[id], ended=True) for id in draft.ended}
    for id in draft.news:
        if id in cases and cases[id].job:  # else it is no job that failed
            short = replace(cases[id], error="", traceback="", call="")
            past[id] = Past(short, max(count.last for count in counts[id].values()))
    late = sorted((id for id in past if past[id].last > now - REMEMBER), key=lambda id: -past[id].last)
    return {id: past[id] for id in late[:REMEMBERED]}


class Bell:
    """Tells people of one app's troubles."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._rules = [parse_condition(text) for text in app.alerts.rules] if app.alerts.wanted else []

    def ring(self, shot: Snapshot | None = None) -> None:
        """Tell what there is to tell now. shot: how everything is; None when nobody has looked anew.

        Raises BrokerError and StoreUnreachable; the next one goes on then.
        """
        if not self._app.alerts.wanted:
            return
        gathered = self._app.store.gather([TOLD, COUNTS], MOST)
        stored = gathered.found[0].get(TOLD)
        told, counts = _decode(stored) or Told(), counts_of(gathered.found[1])
        while True:
            if told.pending is not None:
                self._app.submit_jobs([told.pending.job(self._app.name)])
                struck = replace(told, pending=None)
                if not self._put(struck, stored):
                    return  # somebody else rings too
                told, stored = struck, encode(struck)
            decided = self._decided(told, counts, gathered.now) or self._watched(told, shot)
            if decided is None or not self._put(decided, stored):
                return
            told, stored = decided, encode(decided)

    def _decided(self, told: Told, counts: Counts, now: float) -> Told | None:
        alerts = self._app.alerts
        draft = next_draft(told, counts, now, alerts.at_most_every, alerts.most_an_hour, self._mended(told))
        if draft is None:
            return None
        stored = self._app.store.get([CASES + id for id in draft.news]) if draft.news else []
        cases = {id: decode_trouble(each) or Trouble("?", "?") for id, each in zip(draft.news, stored, strict=True)}
        totals = {id: sum(count.number for count in counts[id].values()) for id in draft.news}
        alert = written(self._app.name, draft, cases, totals, told.window, now, alerts.at_most_every, told.past)
        return after(told, draft, counts, alert, now, alerts.at_most_every, cases)

    def _mended(self, told: Told) -> dict[str, float]:
        """When the jobs that were told of completed, of some groups that have not ended: somebody mended them."""
        open = list(islice((id for id, past in told.past.items() if not past.ended), LINES))
        stored = self._app.store.get([job_key(told.past[id].case.job) for id in open]) if open else []
        records = {id: decode_record(each) for id, each in zip(open, stored, strict=True)}
        return {id: each.ended for id, each in records.items() if each is not None and each.state is State.COMPLETED}

    def _watched(self, told: Told, shot: Snapshot | None) -> Told | None:
        if shot is None:
            return None
        alerts = self._app.alerts
        return watching(told, self._rules, shot, self._app.name, alerts.after, alerts.most_an_hour)

    def _put(self, told: Told, before: bytes | None) -> bool:
        return self._app.store.write([Write(TOLD, encode(told), must=(TOLD, before))])[0]


def _new(told: Mapping[str, int], counts: Mapping[str, Count]) -> int:
    """How many cases nobody was told of."""
    return sum(max(0, count.number - told.get(who, 0)) for who, count in counts.items())


def _first(counts: Mapping[str, Count]) -> float:
    return min(count.last for count in counts.values())


_decode = reader(Told)
