"""Short time slices: asked for by one thread for itself, and taken back."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from partywire.engine import time_slice
from partywire.engine.time_slice import (
    OVERRIDE_VARIABLE,
    SLICE_US,
    SLICE_US_MAX,
    restore_slices,
    shorten_slices,
    slice_us,
)

if TYPE_CHECKING:
    from collections.abc import Callable

needs_slices = pytest.mark.skipif(not slice_us(), reason="this kernel does not tell the slices of ordinary threads")


def in_a_thread(what: Callable[[], object]) -> list[object]:
    """What it returned, in a thread that is over by then."""
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(what()))
    thread.start()
    thread.join()
    return results


def shortened() -> tuple[int | None, ...]:
    before, nice = slice_us(), os.getpriority(os.PRIO_PROCESS, 0)
    shorten_slices()
    while_short = slice_us()
    restore_slices()
    assert os.getpriority(os.PRIO_PROCESS, 0) == nice
    return before, while_short, slice_us()


@needs_slices
def test_a_thread_gets_short_slices_and_then_its_own_again() -> None:
    usual = slice_us()
    assert in_a_thread(shortened) == [(usual, SLICE_US, usual)]
    assert slice_us() == usual


@needs_slices
@pytest.mark.parametrize(
    ("text", "us"), [("250", 250), (f"{SLICE_US_MAX}0", SLICE_US_MAX), ("x", SLICE_US), ("", SLICE_US)]
)
def test_another_length_may_be_asked_for(monkeypatch: pytest.MonkeyPatch, text: str, us: int) -> None:
    monkeypatch.setenv(OVERRIDE_VARIABLE, text)
    usual = slice_us()
    assert in_a_thread(shortened) == [(usual, us, usual)]


def held_twice() -> tuple[int | None, ...]:
    shorten_slices()
    shorten_slices()
    restore_slices()
    while_held = slice_us()
    restore_slices()
    return while_held, slice_us()


@needs_slices
def test_slices_stay_short_until_the_last_who_asked_has_taken_it_back() -> None:
    assert in_a_thread(held_twice) == [(SLICE_US, slice_us())]


@needs_slices
def test_a_slice_of_the_users_own_is_given_back() -> None:
    def with_own() -> tuple[int | None, ...]:
        time_slice._ask_for(7_000_000)
        shorten_slices()
        short = slice_us()
        restore_slices()
        return short, slice_us()

    assert in_a_thread(with_own) == [(SLICE_US, 7_000)]


@needs_slices
def test_a_slice_that_was_set_meanwhile_stays() -> None:
    def changed() -> int | None:
        shorten_slices()
        time_slice._ask_for(7_000_000)
        restore_slices()
        return slice_us()

    assert in_a_thread(changed) == [7_000]


@needs_slices
def test_a_thread_that_asked_for_nothing_takes_nothing_back() -> None:
    def stranger() -> int | None:
        time_slice._ask_for(7_000_000)
        restore_slices()
        return slice_us()

    assert in_a_thread(stranger) == [7_000]


@needs_slices
def test_a_thread_of_another_policy_is_left_alone() -> None:
    def batch() -> bool:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        before = slice_us()
        shorten_slices()
        assert os.sched_getscheduler(0) == os.SCHED_BATCH
        return slice_us() == before

    assert in_a_thread(batch) == [True]


def test_no_system_call_is_made_where_the_slices_of_the_system_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OVERRIDE_VARIABLE, "0")
    calls: list[object] = []
    monkeypatch.setattr(time_slice, "_call", lambda *call: calls.append(call))
    assert not shorten_slices()
    assert calls == []


def test_a_machine_without_the_call_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_slice, "_SET", {})
    shorten_slices()
    assert slice_us() is None
