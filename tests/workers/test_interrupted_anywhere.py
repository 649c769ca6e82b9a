"""A blocking call that a signal's handler leaves at any moment at all, and that the program repeats.

CPython looks for signals where a function begins and where a call of a C function has returned. A profile function is
called at the same places, and what it raises comes out there; so each of them has its turn, and none is met by chance.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from partywire.workers.errors import PeerLost
from tests.workers.harness import Table

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # of what a coroutine's end left
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
]

PLACES_MAX = 5000
"""No call of this file has so many."""


class Interrupted(BaseException):
    """What a Ctrl-C handler raises."""


def interrupted_at(place: int, call: Callable[[], Any]) -> tuple[bool, Any]:
    """`call`, left at the numbered place. Whether it has so many, and what it returned if not."""
    left = place

    def look(frame: Any, event: str, _: object) -> None:
        nonlocal left
        if event in ("call", "c_return") and "/partywire/" in frame.f_code.co_filename:
            left -= 1
            if not left:
                sys.setprofile(None)
                raise Interrupted

    sys.setprofile(look)
    try:
        value = call()
    except Interrupted:
        return True, None
    finally:
        sys.setprofile(None)
    return False, value


def everywhere(play: Callable[[int], bool]) -> int:
    """Play with an interrupt at each place in turn, until there is none. Returns the places."""
    for place in range(1, PLACES_MAX):
        if not play(place):
            return place - 1
    raise AssertionError("the call has no end")


def test_a_send_that_is_repeated_is_sent_whole_or_not_at_all() -> None:
    causes: set[str] = set()

    def play(place: int) -> bool:
        with Table(2) as two:
            [(ours, theirs)] = two.sessions(0)
            was_interrupted, _ = interrupted_at(place, lambda: ours.blocking.send(1, b"first"))
            try:
                ours.blocking.send(1, b"second")
            except PeerLost as error:
                causes.add(error.cause)
                return True
            assert not two.workers[0].driving
            two.settle()
            arrived = list(theirs._peers[0].queue)
            assert arrived in ([b"first", b"second"], [b"second"])
            assert was_interrupted or len(arrived) == 2
            return was_interrupted

    assert everywhere(play) > 1
    assert not causes
