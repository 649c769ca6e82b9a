"""Who is asked, who is given up, and that being late ourselves harms nobody."""

from __future__ import annotations

from partywire.engine.vigil import LATENESS_S, Vigil


def vigil() -> Vigil[str]:
    watched: Vigil[str] = Vigil(interval_s=5.0, patience_s=10.0)
    watched.watch("link", 100.0)
    return watched


def test_nobody_is_waited_for_when_nobody_is_watched() -> None:
    assert Vigil[str](5.0, 10.0).timeout_s(100.0) is None


def test_a_process_is_asked_every_interval() -> None:
    watched = vigil()
    assert watched.tick(104.9) == ([], [])
    assert watched.timeout_s(104.0) == 1.0
    assert watched.tick(105.0) == (["link"], [])
    assert watched.tick(105.1) == ([], [])
    watched.answered("link", 105.2)
    assert watched.tick(110.1) == ([], [])
    assert watched.tick(110.2) == (["link"], [])


def test_a_silent_process_is_given_up_once() -> None:
    watched = vigil()
    watched.tick(105.0)
    assert watched.timeout_s(105.0) == 10.0
    assert watched.tick(114.9) == ([], [])
    assert watched.tick(115.0) == ([], ["link"])
    assert watched.tick(125.0) == ([], [])
    assert watched.timeout_s(125.0) is None


def test_who_was_stopped_itself_asks_again_before_it_gives_anybody_up() -> None:
    watched = vigil()
    watched.tick(105.0)
    assert watched.tick(115.0 + LATENESS_S + 0.1) == ([], [])
    assert watched.tick(126.0) == ([], [])
    assert watched.tick(126.2) == ([], ["link"])


def test_who_has_ended_is_not_asked() -> None:
    watched = vigil()
    watched.forget("link")
    watched.forget("link")
    watched.answered("link", 101.0)
    assert watched.tick(105.0) == ([], [])
