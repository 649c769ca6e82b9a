"""What is said again to a peer whose link was made anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from partywire.engine.control import Rendezvous, Resume, encode_control
from partywire.workers.peer_link import PeerLink
from partywire.workers.rounds import Rounds

if TYPE_CHECKING:
    from partywire.workers.control_lane import ControlLane

BARRIER = encode_control(Rendezvous(0, "barrier", {}))


class Lane:
    """What was sent in one epoch."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send(self, body: bytes) -> None:
        self.sent.append(body)


def new_epoch(rounds: Rounds, link: PeerLink) -> Lane:
    lane = Lane()
    link.control = cast("ControlLane", lane)
    link.connection_count = 1
    rounds.link_up(link, None)
    return lane


def in_round_0() -> tuple[Rounds, PeerLink]:
    """Bob was never heard, and has not heard us, when the first link to him was lost."""
    link = PeerLink(1, "bob")
    rounds = Rounds("alice", ("bob",), lambda: [link])
    new_epoch(rounds, link)
    rounds.book.our(0, "barrier", {})
    rounds.say(0, BARRIER)
    return rounds, link


def test_the_open_round_is_said_to_a_peer_of_whom_nothing_was_heard_before_the_link_was_lost() -> None:
    rounds, link = in_round_0()
    lane = new_epoch(rounds, link)
    rounds.take_untrusted(link, Resume(0, "a life", (0,)))
    assert BARRIER in lane.sent


def test_a_round_that_was_given_up_is_said_to_a_peer_of_whom_nothing_was_heard() -> None:
    rounds, link = in_round_0()
    abort = encode_control(rounds.book.abort(0, "why"))
    rounds.say(0, abort)
    lane = new_epoch(rounds, link)
    rounds.take_untrusted(link, Resume(0, "a life", (0,)))
    assert lane.sent[-1] == abort


def test_a_round_that_is_over_is_said_again_only_to_the_same_life() -> None:
    for life, is_said in (("a life", True), ("another life", False)):
        rounds, link = in_round_0()
        rounds.take_untrusted(link, Resume(0, "a life"))
        rounds.book.theirs("bob", Rendezvous(0, "barrier", {}))
        assert rounds.book.outcome(0) is not None
        lane = new_epoch(rounds, link)
        rounds.take_untrusted(link, Resume(0, life))
        assert (BARRIER in lane.sent) is is_said
