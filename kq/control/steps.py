"""Steps: how an act on jobs is carried out, and how one is finished whose program died.

First what is meant is written down, with the audit's line. Then comes one swap at the broker, which is refused when the
message is not what it was (docs/decisions/0007-a-message-is-swapped-for-another.md). Then what is recorded of the job
changes, and what was meant is struck out. Who dies between two of these leaves the message where it was or not, and the
next one sees which (docs/decisions/0023-what-is-meant-is-written-down-first.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice

from msgspec.structs import replace

from kq.broker import BURIED, PARKED, Seen, Swap
from kq.control import audit, forms
from kq.control.sight import info_of
from kq.control.view import View
from kq.errors import BrokerError, MessageError
from kq.handles.act import BURIED_BY_HAND, KICKED, Act, Meant, decode_meant, nothing_done, stamp_of
from kq.handles.lock import Lock
from kq.state.store import Write
from kq.values.message import Envelope, only_id
from kq.values.record import Record, decode_record, job_key, meant_key, place_key

#: So many jobs are repaired, and so many acts that nobody ended are finished, in one round trip.
BATCH = 100
#: So many acts that are under way are looked at.
UNDER_WAY = 10_000

_MOVED = "it is not there any more, has changed, or a worker has it"
_TOUCHED = "somebody else is at it, or it has just ended"


@dataclass(frozen=True, slots=True)
class Stands:
    """What the state store has of a job. record: how it ended, or lies. meant: what somebody is about to do to it."""

    record: bytes | None
    meant: bytes | None


@dataclass(frozen=True, slots=True)
class Fact:
    """A write that comes before the swap, the one that undoes it, and what it means when it is refused."""

    write: Write
    undo: Write
    refused: str = _TOUCHED


@dataclass(slots=True)
class Step:
    """One act on one message, as it is carried out.

    copies: of it, beside it in its queue; they are taken off in the same step, for else the job would run as it was.
    facts: are undone when the swap is not made, the last one first. after: what is written when it was made. lock: of a
    job whose message is taken away; what holds its key is in doubt until the swap was made.
    """

    seen: Seen
    act: Act
    publish: tuple[Envelope, ...] = ()
    keeps_due: bool = False
    meant: Meant | None = None
    copies: Sequence[Seen] = ()
    facts: list[Fact] = field(default_factory=list)
    after: list[Write] = field(default_factory=list)
    lock: Lock | None = None
    refused: str = ""


class Steps(View):
    """Carries out acts on jobs."""

    # What nobody ended.

    def finish_acts(self) -> list[Act]:
        """Finish what somebody began to do to jobs a lease ago or longer, and has not ended: his program died.

        Returns the acts that are done by that. One whose job went its own way meanwhile is forgotten.
        """
        gathered = self._app.store.gather([meant_key("")], UNDER_WAY)
        began = {stored: meant for stored in gathered.found[0].values() if (meant := decode_meant(stored))}
        late = {stored: meant for stored, meant in began.items() if gathered.now - meant.at > self._app.lease}
        return self._finish(dict(islice(late.items(), BATCH)), gathered.now) if late else []

    def _finish(self, late: Mapping[bytes, Meant], now: float) -> list[Act]:
        """Finish acts, by how the state store has them."""
        ids = [meant.id for meant in late.values()]
        seen = self._anywhere(ids, [meant.place for meant in late.values()])
        steps, done = dict[bytes, Step](), list[Act]()
        for (stored, meant), stands in zip(late.items(), self._stands(ids), strict=True):
            messages = seen.get(meant.id, [])
            if same := [message for message in messages if meant.is_about(message)]:
                again = replace(meant, at=now)
                step = self._step(same[0], meant.act, again, Stands(stands.record, stored), now)
                step.copies = [message for message in messages if message is not same[0]]
                steps[stored] = step
            elif self._strike_out(meant, stored, next(iter(messages), None), stands.record):
                done.append(meant.act)
        return list(dict.fromkeys(done + self._repeat(steps)))

    def _repeat(self, steps: Mapping[bytes, Step]) -> list[Act]:
        """Carry out what was only meant. What can't be done any more, and for good, is forgotten."""
        in_order = sorted(steps.values(), key=lambda step: step.seen.queue)
        for _, of_queue in groupby(in_order, key=lambda step: step.seen.queue):
            self._do([*of_queue])
        void = [
            Write(key, None, must=(key, stored))
            for stored, step in steps.items()
            if step.refused not in ("", _MOVED, _TOUCHED)
            for key in [meant_key(info_of(step.seen).id)]
        ]
        if void:
            self._app.store.write(void)
        return [step.act for step in steps.values() if not step.refused]

    def _strike_out(self, meant: Meant, stored: bytes, message: Seen | None, record: bytes | None) -> bool:
        """Record what was done at the broker, if it was, and forget that it was meant; whether there was anything.

        message: where the job's is by now, which is not where and as it was.
        """
        if message is not None and message.state == "held" and message.queue.endswith(BURIED):
            return False  # no worker takes that: somebody looks at it, and puts it back
        writes = [meant.told(record)] if _was_done(meant, message, decode_record(record)) else []
        if message is None and writes:
            writes.append(Write(place_key(meant.id), None))
        self._app.store.write([*writes, Write(meant_key(meant.id), None, must=(meant_key(meant.id), stored))])
        return bool(writes)

    def _anywhere(self, ids: Sequence[str], first: Iterable[str]) -> dict[str, list[Seen]]:
        """The messages of jobs that wait, are buried or held, by id: each with its copies in the same queue.

        first: queues to look into before all others.
        """
        aside = [name + aside for aside in (BURIED, "", PARKED) for name in self._names()]
        found = dict[str, list[Seen]]()
        for place in dict.fromkeys([*first, *aside]):
            if missing := [id for id in ids if id not in found]:
                for seen in self._inspector.find(place, missing):
                    found.setdefault(seen.id, []).append(seen)
        return found

    # What an act is made of.

    def _stands(self, ids: Sequence[str]) -> list[Stands]:
        keys = [key(id) for id in ids for key in (job_key, meant_key)]
        values = iter(self._app.store.get(keys) if keys else [])
        return [Stands(record, meant) for record, meant in zip(values, values, strict=True)]

    def _meant(self, seen: Seen, act: Act, record: Record | None, keep: float, now: float) -> Meant | None:
        """What is written down of an act before it is done; None where nothing is recorded of the job.

        record, keep: see Meant. now: by the state store's clock.
        """
        if record is None or names_two(seen):
            return None
        return Meant(info_of(seen).id, now, act, seen.queue, stamp_of(seen), record, keep)

    def _step(self, seen: Seen, act: Act, meant: Meant | None, stands: Stands, now: float) -> Step:
        """An act that buries, kicks or ends a job, as it is to be carried out. now: by the state store's clock."""
        step = Step(seen, act, forms.made(seen, act), meant=meant)
        if meant is not None:
            step.facts.append(Fact(meant.begun(stands.meant), meant.undone(stands.meant)))
            step.after += meant.done(stands.record)
        lock = Lock.of(seen.headers, info_of(seen).id, info_of(seen).queue)
        if lock is not None and act.act == KICKED:
            step.facts += _claim(lock, now)
            step.after += lock.confirmed()
        elif lock is not None and not (act.act == BURIED_BY_HAND and lock.holds == "gone"):
            step.lock = lock
        if act.act not in (KICKED, BURIED_BY_HAND) and seen.headers.get("degraded_by"):
            step.after.append(Write(place_key(info_of(seen).id), None))  # where a job went that runs elsewhere
        return step

    # Carrying it out.

    def _carry_out(self, steps: Sequence[Step]) -> None:
        """Do all of steps, which are about one queue, and note in those that were refused why."""
        for step in steps:
            # While nobody else finishes it, and then it is done.
            token = None if step.meant is None else step.meant.token
            trail = replace(audit.line(step.act), must=token)
            step.facts.append(Fact(trail, Write(trail.key, None, must=token)))
        self._do(steps)
        for step in steps:
            if not step.refused:
                audit.log.info("%s", step.act)

    def _do(self, steps: Sequence[Step]) -> None:
        """Do all of steps, which are about one queue, without a line in the audit."""
        locks = [write for step in steps if not step.refused and step.lock for write in step.lock.doubted()]
        if locks:
            self._app.store.write(locks)
        self._note([step for step in steps if not step.refused])
        self._swap([step for step in steps if not step.refused])
        done = [step for step in steps if not step.refused]
        after = [write for step in done for write in step.after]
        if locked := [step for step in steps if step.lock]:
            now = self._app.store.now()
            after += [write for step in locked for write in _let_go(step, now)]
        if after:
            self._app.store.write(after)

    def _swap(self, steps: Sequence[Step]) -> None:
        """Change the messages; what was noted of those that did not change is undone."""
        if not steps:
            return
        swaps = [Swap(step.seen, step.publish, step.keeps_due) for step in steps]
        swaps += [Swap(copy) for step in steps for copy in step.copies]
        try:
            made = self._inspector.swap(steps[0].seen.queue, swaps)[: len(steps)]
        except BrokerError as error:
            if nothing_done(error):
                self._undo(fact for step in steps for fact in reversed(step.facts))
            raise
        late = [step for step, done in zip(steps, made, strict=True) if not done]
        self._undo(fact for step in late for fact in reversed(step.facts))
        for step in late:
            step.refused = _MOVED

    def _note(self, steps: Sequence[Step]) -> None:
        """Write the facts of steps; those of one that has a refused fact are undone."""
        facts = [fact.write for step in steps for fact in step.facts]
        made = iter(self._app.store.write(facts) if facts else [])
        undone = list[Fact]()
        for step in steps:
            answers = list(islice(made, len(step.facts)))
            step.refused = next(
                (fact.refused for fact, done in zip(step.facts, answers, strict=True) if not done), step.refused
            )
            if step.refused:
                held = [fact for fact, done in zip(step.facts, answers, strict=True) if done]
                undone += reversed(held)
        self._undo(undone)

    def _undo(self, facts: Iterable[Fact]) -> None:
        undone = [fact.undo for fact in facts]
        if undone:
            self._app.store.write(undone)


def _was_done(meant: Meant, message: Seen | None, known: Record | None) -> bool:
    """Whether the swap of an act was made, and is to be recorded. message: the job's, which is not as it was, if any.

    known: what is recorded of the job.
    """
    match meant.act.act:
        case "kicked":
            return known == meant.record and (message is None or message.queue != meant.place)
        case "buried":
            lies = message is not None and message.queue.endswith(BURIED)
            return lies and not (known is not None and known.is_over)
        case _:
            return message is None and not (known is not None and known.is_over)


def names_two(seen: Seen) -> bool:
    """Whether a message says that it is two jobs: what becomes of it says nothing of either."""
    try:
        only_id(seen.id, seen.headers)
    except MessageError:
        return True
    return False


def _let_go(step: Step, now: float) -> list[Write]:
    """What becomes of the key of a job whose message was taken away, or was not. now: by the state store's clock."""
    if step.lock is None:
        return []
    return step.lock.confirmed() if step.refused else step.lock.removed(now)


def _claim(lock: Lock, now: float) -> list[Fact]:
    """Take the unique key, which was given up when the job was buried, unless the job holds it there too."""
    refused = f"another job has its unique key {lock.key!r}; wait until that ends"
    if lock.holds == "gone":
        return [Fact(lock.held(), lock.held(), refused)]
    (place, claim), (left, *_, unclaimed) = lock.claimed(), lock.removed(now)
    return [Fact(place, left, refused), Fact(claim, unclaimed, refused)]
