"""Polling before sleeping: it ends, it learns, and it never outbids a process that waits for the core."""

from __future__ import annotations

from partywire.engine.polling import MISSES_MAX, POLL_S, SKIPS_MAX, SKIPS_MIN, YIELD_MAX_S, Polling


class Core:
    """A clock that only `give_way` moves."""

    def __init__(self, yield_s: float = 1e-6) -> None:
        self.now = 100.0
        self.yield_s = yield_s
        self.yields = 0

    def clock(self) -> float:
        return self.now

    def give_way(self) -> None:
        self.yields += 1
        self.now += self.yield_s

    def polling(self) -> Polling:
        return Polling(self.clock, self.give_way)


def poll_in_vain(polling: Polling) -> int:
    """One piece of work with nothing behind it; how often the sources were looked at again."""
    looks = 0
    while polling.look_again():
        looks += 1
        assert looks < 1000
    return looks


def sleeps_until_a_poll(polling: Polling) -> int:
    sleeps = 0
    while not polling.look_again():
        sleeps += 1
        assert sleeps < 10_000
    return sleeps


def test_a_poll_looks_again_until_its_time_is_over() -> None:
    core = Core()
    started = core.now
    looks = poll_in_vain(core.polling())
    assert looks == core.yields
    assert POLL_S - 1e-9 <= core.now - started < POLL_S + 2e-6


def test_each_poll_has_its_own_time() -> None:
    core = Core()
    polling = core.polling()
    assert poll_in_vain(polling) == poll_in_vain(polling)


def test_success_ends_a_poll_and_the_next_starts_anew() -> None:
    core = Core()
    polling = core.polling()
    for _ in range(100):
        for _ in range(10):
            assert polling.look_again()
        polling.found()
    assert poll_in_vain(polling) > 10


def test_polls_in_vain_are_given_up_and_tried_again_ever_more_seldom() -> None:
    polling = Core().polling()
    for _ in range(MISSES_MAX):
        assert poll_in_vain(polling) > 1
    pauses = []
    for _ in range(12):
        pauses.append(sleeps_until_a_poll(polling))
        poll_in_vain(polling)
    assert pauses[:3] == [SKIPS_MIN, 2 * SKIPS_MIN, 4 * SKIPS_MIN]
    assert pauses[-1] == SKIPS_MAX


def test_a_poll_that_pays_after_a_pause_restores_all_trust() -> None:
    polling = Core().polling()
    for _ in range(MISSES_MAX):
        poll_in_vain(polling)
    sleeps_until_a_poll(polling)
    polling.found()
    for _ in range(MISSES_MAX):
        assert poll_in_vain(polling) > 1
    assert sleeps_until_a_poll(polling) == SKIPS_MIN


def test_work_that_comes_without_a_poll_teaches_nothing() -> None:
    polling = Core().polling()
    for _ in range(MISSES_MAX):
        poll_in_vain(polling)
        polling.found()
    assert sleeps_until_a_poll(polling) == SKIPS_MIN


def test_a_core_that_others_wait_for_is_not_polled_on() -> None:
    core = Core(yield_s=2 * YIELD_MAX_S)
    polling = core.polling()
    assert not polling.look_again()
    assert core.yields == 1
    for _ in range(SKIPS_MIN):
        assert not polling.look_again()
    assert core.yields == 1
    assert not polling.look_again()
    assert core.yields == 2


def test_the_sources_are_looked_at_once_more_after_a_yield_that_used_up_the_time() -> None:
    core = Core(yield_s=YIELD_MAX_S * 0.99)
    polling = core.polling()
    assert core.yield_s > POLL_S
    for _ in range(100):
        assert polling.look_again()
        polling.found()


def test_during_a_pause_the_core_is_not_even_offered() -> None:
    core = Core()
    polling = core.polling()
    for _ in range(MISSES_MAX):
        poll_in_vain(polling)
    yields, now = core.yields, core.now
    for _ in range(SKIPS_MIN):
        assert not polling.look_again()
    assert (core.yields, core.now) == (yields, now)
