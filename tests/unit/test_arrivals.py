"""What came to queues, counted by how many are there and how many have left."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as some

from kq.control.arrivals import STEPS, Arrivals


class Queue:
    """What is there, what has left and was not told, and what is counted of it."""

    def __init__(self) -> None:
        self.arrivals, self.there, self.left, self.counted = Arrivals(), 0, 0, 0

    def step(self, told: int = 0) -> int:
        """A step of control's, before which workers told of so many that had left."""
        self.left -= told
        self.counted = self.arrivals.count({"q": self.counted}, {"q": self.there}, {"q": told})["q"]
        return self.counted


def test_what_was_there_before_the_first_step_is_not_counted_and_what_comes_is() -> None:
    queue = Queue()
    queue.there = 5
    assert queue.step() == 0
    queue.there = 9
    assert queue.step() == 4


def test_what_came_and_left_between_two_steps_counts_when_workers_tell_of_it() -> None:
    queue = Queue()
    queue.step()
    assert (queue.step(), queue.step(told=3)) == (0, 3)


def test_what_left_and_was_not_told_yet_does_not_count_twice() -> None:
    queue = Queue()
    queue.step()
    queue.there = 100
    assert queue.step() == 100
    queue.there = 0
    assert (queue.step(), queue.step(told=60), queue.step(told=40)) == (100, 100, 100)


def test_after_some_have_been_taken_out_by_hand_others_count_again() -> None:
    queue = Queue()
    queue.step()
    queue.there = 100
    queue.step()
    queue.there = 10
    for _ in range(STEPS):
        assert queue.step() == 100
    queue.there = 14
    assert queue.step() == 104


def test_a_long_drain_is_not_taken_for_jobs_that_were_taken_out() -> None:
    queue = Queue()
    queue.step()
    queue.there = 100
    queue.step()
    told = 0
    for _ in range(10):
        queue.there -= 10
        assert queue.step(told) == 100
        told = 10
    assert queue.step(told) == 100


def test_a_queue_that_is_new_counts_from_its_first_job_and_one_that_is_gone_is_forgotten() -> None:
    arrivals = Arrivals()
    arrivals.count({}, {"old": 2}, {})
    assert arrivals.count({"old": 7}, {"new": 3}, {"old": 1}) == {"new": 3}


@given(some.lists(some.tuples(some.integers(0, 50), some.integers(0, 50)), max_size=20))
def test_all_that_came_is_counted_in_the_end_and_never_more(steps: list[tuple[int, int]]) -> None:
    """Workers tell of what left one step later at most, as their beats are closer together than the steps."""
    queue, came, untold = Queue(), 0, 0
    queue.step()
    for more, ended in steps:
        came += more
        queue.there += more
        ended = min(ended, queue.there)
        queue.there -= ended
        told, untold = untold, ended
        assert queue.step(told) <= came
    assert queue.step(untold) == came
