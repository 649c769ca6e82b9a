"""Deadlines: everybody is woken in time, and what was taken back is not kept."""

from __future__ import annotations

import gc
import random
from typing import TYPE_CHECKING, Any, cast

import pytest

from partywire.workers.mailbox import Mailbox
from partywire.workers.session import Session
from partywire.workers.timers import ENTRIES_MIN, Timers
from partywire.workers.waiting import NEVER, Wait
from tests.workers.harness import Table

if TYPE_CHECKING:
    from partywire.workers.worker import Worker


def wait_until(timers: Timers, wait: Wait, deadline: float) -> None:
    """As Worker.set_timer does."""
    wait.deadline = deadline
    if deadline < wait.timer_at:
        timers.add(wait)


def new_wait(woken: list[Wait]) -> Wait:
    wait = Wait(cast("Worker", None))
    wait.waker = lambda: woken.append(wait)
    return wait


@pytest.mark.parametrize("seed", range(20))
def test_whoever_waits_is_woken_when_it_is_due_and_nobody_else(seed: int) -> None:
    """Beside a model that keeps the one deadline of each."""
    chance = random.Random(seed)
    timers = Timers()
    woken: list[Wait] = []
    waits = [new_wait(woken) for _ in range(300)]
    now = 0.0
    for _ in range(3000):
        wait = chance.choice(waits)
        if chance.random() < 0.5:
            wait_until(timers, wait, now + chance.choice((0.5, 5.0, 3600.0)) * chance.random())
        else:
            wait.deadline = NEVER
        if chance.random() < 0.1:
            now += chance.random()
            due = [wait for wait in waits if wait.deadline <= now]
            for waiting in waits:
                waiting.waker = lambda waiting=waiting: woken.append(waiting)
            assert timers.expire(now) == len(due)
            assert {id(wait) for wait in woken} == {id(wait) for wait in due}
            woken.clear()
            for wait in due:
                wait.deadline = NEVER
        assert timers.next_deadline() <= min(wait.deadline for wait in waits)
        assert len(timers.entries) <= max(ENTRIES_MIN, 2 * len(waits)) + 1


def test_deadlines_that_were_taken_back_are_forgotten_long_before_they_pass() -> None:
    timers = Timers()
    standing = [new_wait([]) for _ in range(10)]
    for wait in standing:
        wait_until(timers, wait, 3600.0)
    for _ in range(100 * ENTRIES_MIN):
        wait = new_wait([])
        wait_until(timers, wait, 3600.0)
        wait.deadline = NEVER
        assert len(timers.entries) <= ENTRIES_MIN
    assert {id(wait) for wait in standing} <= {id(wait) for _, _, wait in timers.entries}
    assert timers.expire(3600.0) == len(standing)


def test_a_session_that_is_over_is_not_kept_by_the_timeout_of_a_call() -> None:
    with Table(2) as two:
        for number in range(3 * ENTRIES_MIN):
            [(ours, theirs)] = two.sessions(number)
            two.ok(ours.send(1, b"x"), theirs.recv(0, timeout=3600.0))
            for session in (ours, theirs):
                session.close()
        del ours, theirs, session
        two.settle()
        assert count_of(Session) <= ENTRIES_MIN + 1
        assert count_of(Mailbox) <= ENTRIES_MIN + 1


def count_of(kind: type[Any]) -> int:
    gc.collect()
    return sum(1 for thing in gc.get_objects() if type(thing) is kind)
