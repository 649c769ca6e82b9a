"""The channel between an opener and its child worker: whole objects, without either end ever waiting to send."""

from __future__ import annotations

import pickle
import select
import socket
from typing import TYPE_CHECKING

import pytest

from partywire.workers.batch_share import BatchPlan, load_error, portable_error
from partywire.workers.channel import PIECE_SIZE, Channel, ChannelClosed
from partywire.workers.errors import JobFailed, PeerAborted, describe, describe_to_peers

if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS = [socket.SOCK_STREAM, socket.SOCK_SEQPACKET]
BIG = bytes(range(256)) * 20_000


@pytest.fixture(params=KINDS, ids=["stream", "seqpacket"])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, request.param)
    channels = Channel(ours), Channel(theirs)
    yield channels
    for channel in channels:
        channel.close()
        channel.close()


def is_readable(channel: Channel) -> bool:
    return bool(select.select([channel.fileno()], [], [], 0)[0])


@pytest.mark.parametrize("size", [0, 1, PIECE_SIZE - 100, PIECE_SIZE, PIECE_SIZE + 1, 3 * PIECE_SIZE])
def test_a_message_arrives_whole(ends: tuple[Channel, Channel], size: int) -> None:
    ours, theirs = ends
    ours.send((size, bytes(size)))
    received: list[object] = []
    while not received:
        ours.poll()
        received = theirs.poll()
    assert received == [(size, bytes(size))]


def test_messages_keep_their_order(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    for number in range(100):
        ours.send(number)
    assert theirs.poll() == list(range(100))
    assert theirs.poll() == []


def test_both_ends_may_send_more_than_the_kernel_holds_before_either_receives(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    ours.send(BIG)
    theirs.send(BIG[::-1])
    assert not ours.is_flushed
    got_ours: list[bytes] = []
    got_theirs: list[bytes] = []
    while not (got_ours and got_theirs):
        assert is_readable(ours) or is_readable(theirs)  # somebody always has something to do
        got_ours += ours.poll()
        got_theirs += theirs.poll()
    assert got_theirs == [BIG]
    assert got_ours == [BIG[::-1]]
    assert ours.is_flushed


def test_the_descriptor_is_readable_exactly_when_there_is_something_to_do(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    assert not is_readable(theirs)
    ours.send("hello")
    assert is_readable(theirs)
    assert not is_readable(ours)
    theirs.poll()
    assert not is_readable(theirs)


def test_what_was_sent_before_the_end_is_received_before_the_end_is_raised(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    ours.send("last")
    ours.close()
    assert theirs.poll() == ["last"]
    with pytest.raises(ChannelClosed):
        theirs.poll()
    with pytest.raises(ChannelClosed):
        theirs.send("to nobody")


def test_a_message_that_cannot_be_pickled_leaves_the_channel_as_it_was(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    with pytest.raises((pickle.PicklingError, AttributeError)):
        ours.send(lambda: None)
    ours.send("next")
    assert theirs.poll() == ["next"]


def test_waiting_for_messages_has_a_deadline(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    assert theirs.wait(0.01) == []
    ours.send(1)
    assert theirs.wait(10) == [1]


# Plans and errors, which travel there.


@pytest.mark.parametrize("first_id", [0, 1, 7])
@pytest.mark.parametrize(("jobs", "sessions", "workers"), [(30, 8, 1), (30, 8, 4), (3, 8, 2), (0, 4, 2), (9, 9, 3)])
def test_every_job_belongs_to_exactly_one_worker(first_id: int, jobs: int, sessions: int, workers: int) -> None:
    plan = BatchPlan(0, first_id, sessions, jobs)
    shares = [list(plan.jobs_of(worker, workers)) for worker in range(workers)]
    assert sorted(index for share in shares for index in share) == list(range(jobs))
    for worker, share in enumerate(shares):
        assert all((first_id + index % sessions) % workers == worker for index in share)


def test_an_error_travels_with_its_cause_and_its_trace() -> None:
    try:
        try:
            raise PeerAborted("bob", 5, "no")
        except PeerAborted as error:
            raise JobFailed(3, "bob", "no") from error
    except JobFailed as error:
        loaded = load_error(portable_error(error))
    assert isinstance(loaded, JobFailed)
    assert isinstance(loaded.__cause__, PeerAborted)
    assert "test_an_error_travels" in loaded.__notes__[0]


def test_an_error_that_does_not_survive_pickling_travels_as_its_text() -> None:
    class Odd(Exception):
        def __init__(self, one: int, two: int) -> None:
            super().__init__(f"{one} is not {two}")

    loaded = load_error(portable_error(Odd(1, 2)))
    assert isinstance(loaded, RuntimeError)
    assert str(loaded) == "Odd: 1 is not 2"


def test_what_a_peer_said_is_passed_on_as_it_said_it() -> None:
    assert describe(PeerAborted("bob", 5, "ValueError: no")) == "ValueError: no"
    assert describe(ValueError("no")) == "ValueError: no"
    assert describe(ValueError()) == "ValueError"


def test_peers_are_told_our_own_errors_whole_and_of_others_the_type() -> None:
    lost = PeerAborted("bob", 5, "")
    assert describe_to_peers(lost) == describe(lost)
    assert "1234" not in describe_to_peers(ValueError("share 1234 is odd"))
    assert "ValueError" in describe_to_peers(ValueError("share 1234 is odd"))
