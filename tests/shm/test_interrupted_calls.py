"""An exception of a signal's handler (Ctrl-C) that leaves a call on a ring or a bell: the next call makes up for it."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Any

import pytest

from partywire.shm import RingClosed, pure
from tests.shm import ring_pair
from tests.shm.implementations import PURE
from tests.shm.ring_pair import RingPair, payloads_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from partywire.shm import Doorbell


class Interrupted(BaseException):
    """What a Ctrl-C handler raises."""


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Iterator[RingPair]:
    """In plain Python: nothing is called amid a call of the compiled core."""
    monkeypatch.setattr(ring_pair, "writing", PURE)
    monkeypatch.setattr(ring_pair, "reading", PURE)
    with RingPair(1024) as made:
        yield made


def is_ringing(doorbell: Doorbell) -> bool:
    return bool(select.select([doorbell.fileno()], [], [], 0)[0])


def interrupt(*_: object) -> None:
    raise Interrupted


def interrupted_at(number: int, call: Callable[..., Any]) -> Callable[..., Any]:
    """`call`, of which the numbered one, counted from 1, is interrupted before it begins."""
    calls: list[None] = []

    def counted(*args: Any) -> Any:
        calls.append(None)
        if len(calls) == number:
            raise Interrupted
        return call(*args)

    return counted


def test_a_publication_that_did_not_ring_is_made_up_for(pair: RingPair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.reader_doorbell.arm()
    assert pair.writer.try_write((b"x",), 1, 1)
    monkeypatch.setattr(pair.reader_bell, "ring_if_asleep", interrupt)
    with pytest.raises(Interrupted):
        pair.writer.publish()
    monkeypatch.undo()
    assert not is_ringing(pair.reader_doorbell)
    assert pair.writer.publish()
    assert is_ringing(pair.reader_doorbell)
    assert not pair.writer.publish()
    assert pair.receive() == [b"x"]


def test_a_publication_may_be_made_up_for_by_a_later_one(pair: RingPair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.reader_doorbell.arm()
    assert pair.writer.try_write((b"x",), 1, 1)
    monkeypatch.setattr(pair.reader_bell, "ring", interrupt)
    with pytest.raises(Interrupted):
        pair.writer.publish()
    monkeypatch.undo()
    pair.send(b"y")
    assert is_ringing(pair.reader_doorbell)
    assert pair.receive() == [b"x", b"y"]


def test_a_ring_that_died_after_it_was_interrupted_publishes_nothing(
    pair: RingPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pair.writer.try_write((b"x",), 1, 1)
    monkeypatch.setattr(pair.reader_bell, "ring_if_asleep", interrupt)
    with pytest.raises(Interrupted):
        pair.writer.publish()
    pair.writer.close()
    with pytest.raises(RingClosed):
        pair.writer.publish()


def test_a_bell_that_was_not_rung_is_rung_for_the_same_sleep(pair: RingPair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.reader_doorbell.arm()
    monkeypatch.setattr(pair.reader_bell, "ring", interrupt)
    with pytest.raises(Interrupted):
        pair.reader_bell.ring_if_asleep()
    monkeypatch.undo()
    assert pair.reader_bell.ring_if_asleep()
    assert is_ringing(pair.reader_doorbell)
    assert not pair.reader_bell.ring_if_asleep()


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_poll_that_is_interrupted_anywhere_takes_nothing(
    pair: RingPair, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    payloads = [b"one", b"two", b"three"]
    pair.send(*payloads)
    monkeypatch.setattr(pure, "unpack_header_from", interrupted_at(number, pure.unpack_header_from))
    with pytest.raises(Interrupted):
        pair.reader.poll()
    assert not pair.reader.is_empty()
    records = pair.reader.poll()
    assert payloads_of(records) == payloads
    with pytest.raises(ValueError, match="3 are polled"):
        pair.reader.release(4)
    del records
    pair.reader.release(1)
    assert pair.reader.stat().records_released == 1
    pair.reader.release_all()
    assert pair.reader.stat().records_released == 3
    pair.send(b"four")
    assert pair.receive() == [b"four"]
