"""`send_object` and `recv_object` of sessions whose workers are joined through real rings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from partywire.engine.frames import Descriptor, encode_frame
from partywire.engine.iris_options import IrisOptions
from partywire.workers.errors import (
    MessageTooLarge,
    PeerAborted,
    SessionTimeout,
    UnexpectedMessage,
    UnknownPeer,
    UnsupportedByPeer,
)
from partywire.workers.objects.errors import ObjectDecodeError, ObjectEncodeError
from partywire.workers.objects.limits import ObjectLimits
from partywire.workers.objects.packing import pack_object
from partywire.workers.objects.parts import PackedObject
from partywire.workers.objects.registry import ObjectRegistry
from partywire.workers.waiting import run_blocking
from tests.objects.same import same
from tests.workers.harness import Table

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

KIB = 1024
MIB = 1 << 20


@pytest.fixture
def two() -> Iterator[Table]:
    with Table(2) as table:
        yield table


async def nothing() -> None:
    """A worker that only serves."""


def at_bob(table: Table, call: Coroutine[Any, Any, Any]) -> Any:
    """What a call gives at the second party, while the first only serves."""
    return table.ok(nothing(), call)[1]


VALUES: list[Any] = [
    None,
    {"a": [1, (2, 3)], 5: {1.5, "x"}},
    b"x" * (16 * KIB),
    np.arange(100_000),
    [np.arange(n * 1000, dtype=np.uint16) for n in range(20)],
    {"weights": np.ones((300, 300)), "step": 3, "blob": b"z" * 700_000, "more": bytearray(5 * MIB)},
    ["text " * n for n in range(3000)],
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("ring_size", [16 * KIB, MIB])
def test_an_object_arrives_equal_in_value_and_type(value: Any, ring_size: int) -> None:
    with Table(2, ring_size=ring_size, slice_max=ring_size // 4) as table:
        [(ours, theirs)] = table.sessions(0)
        _, received = table.ok(ours.send_object("bob", value), theirs.recv_object("alice"))
        assert same(received, value)


def test_objects_and_messages_of_both_kinds_keep_their_order(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)
    large = [np.full(100_000, n) for n in range(3)]

    async def talk() -> None:
        await ours.send_object(1, {"n": 1})
        await ours.send(1, b"between")
        await ours.send_object(1, large)
        await ours.send(1, np.arange(3))
        await ours.send_object(1, None)

    async def hear() -> list[Any]:
        heard = [await theirs.recv_object(0), await theirs.recv(0), await theirs.recv_object(0)]
        return [*heard, await theirs.recv(0), await theirs.recv_object(0)]

    _, heard = two.ok(talk(), hear())
    assert same(heard, [{"n": 1}, b"between", large, np.arange(3), None])
    assert two.workers[1].inbox_size == 0


def test_the_value_may_change_when_send_object_has_returned(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)
    array, large = np.zeros(10), np.zeros(200_000)

    async def talk() -> None:
        for value in (array, large):
            await ours.send_object(1, [value, value])
            value[:] = 7

    async def hear() -> list[Any]:
        return [await theirs.recv_object(0), await theirs.recv_object(0)]

    _, heard = two.ok(talk(), hear())
    assert not any(part.any() for parts in heard for part in parts)


def test_a_received_array_is_writable_and_lies_in_the_message(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)
    _, received = two.ok(ours.send_object(1, {"x": np.arange(100_000)}), theirs.recv_object(0))
    assert received["x"].flags.writeable
    assert received["x"].flags.aligned
    assert not received["x"].flags.owndata


def test_a_large_object_waits_for_room_and_others_are_heard_meanwhile() -> None:
    with Table(2, ring_size=64 * KIB) as table:
        first, second = table.sessions(0, 2)
        parts = [bytes([n]) * 100_000 for n in range(5)]

        async def hear_small_first() -> list[Any]:
            return [await second[1].recv(0), await first[1].recv_object(0)]

        table.schedulers[0].spawn(first[0].send_object(1, parts))
        _, heard = table.ok(second[0].send(1, b"small"), hear_small_first())
        assert same(heard, [b"small", parts])


def test_the_other_kind_of_message_stays_first_in_line(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)
    two.ok(ours.send_object(1, [1]))
    two.ok(ours.send(1, b"bytes"))
    for _ in range(2):
        with pytest.raises(UnexpectedMessage, match="receive it with recv_object"):
            at_bob(two, theirs.recv(0))
    assert at_bob(two, theirs.recv_object(0)) == [1]
    for _ in range(2):
        with pytest.raises(UnexpectedMessage, match="receive it with recv"):
            at_bob(two, theirs.recv_object(0))
    assert at_bob(two, theirs.recv(0)) == b"bytes"


def test_what_cannot_be_sent_leaves_the_session_as_it_was(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)
    with pytest.raises(ObjectEncodeError, match=r'\["a"\]\[1\]'):
        two.ok(ours.send_object(1, {"a": [1, object()]}))
    with pytest.raises(UnknownPeer):
        two.ok(ours.send_object("nobody", 1))
    assert two.ok(ours.send_object(1, "still"), theirs.recv_object(0)) == [None, "still"]


def test_an_object_that_is_none_is_dropped_and_the_session_goes_on(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)
    body = pack_object([1, 2, 3]).join()
    two.feed(1, 0, encode_frame(0, Descriptor.OBJECT, body[:-1] + b"\xc1"))
    with pytest.raises(ObjectDecodeError, match="of alice") as caught:
        at_bob(two, theirs.recv_object(0))
    assert caught.value.peer == "alice"
    assert two.workers[1].inbox_size == 0
    assert two.ok(ours.send_object(1, 4), theirs.recv_object(0)) == [None, 4]


class Ticket:
    """An object with logic of its own, which sees who it goes to and comes from."""

    def __init__(self, text: str) -> None:
        self.text = text

    def serialize(self, **context: Any) -> Any:
        return self.text, context.get("destination")

    @staticmethod
    def deserialize(obj: Any, **context: Any) -> Ticket:
        return Ticket(f"{obj[0]} to {obj[1]} from {context.get('origin')}")


def test_a_registry_and_a_context_of_ones_own_reach_the_logic_of_classes(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)
    registry = ObjectRegistry()
    registry.add_class(Ticket)
    _, received = two.ok(
        ours.send_object(1, Ticket("t"), registry=registry, destination="b"),
        theirs.recv_object(0, registry=registry, origin="a"),
    )
    assert received.text == "t to b from a"
    two.ok(ours.send_object(1, Ticket("t"), registry=registry))
    with pytest.raises(ObjectDecodeError, match="Ticket is not registered"):
        at_bob(two, theirs.recv_object(0))


def test_limits_hold_at_either_end(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)
    flat = ObjectLimits(depth_max=1)
    with pytest.raises(ObjectEncodeError, match="depth_max = 1"):
        two.ok(ours.send_object(1, [[]], limits=flat))
    two.ok(ours.send_object(1, [[]]))
    with pytest.raises(ObjectDecodeError, match="depth_max = 1"):
        at_bob(two, theirs.recv_object(0, limits=flat))


def test_an_object_above_the_message_limit_is_refused_before_anything_is_sent() -> None:
    with Table(2, message_size_max=MIB) as table:
        [(ours, theirs)] = table.sessions(0)
        overhead = len(pack_object(bytes(MIB))) - MIB
        with pytest.raises(MessageTooLarge):
            table.ok(ours.send_object(1, bytes(MIB - overhead + 1)))
        fits = bytes(MIB - overhead)
        assert table.ok(ours.send_object(1, fits), theirs.recv_object(0)) == [None, fits]


def test_a_time_out_ends_the_session_at_both_parties(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)
    errors = two.run(ours.recv_object(1), theirs.recv_object(0, timeout=1.0), advance_s=0.3)
    assert isinstance(errors[0], PeerAborted)
    assert isinstance(errors[1], SessionTimeout)


def test_a_send_that_finds_no_room_times_out(two: Table) -> None:
    [(ours, _theirs)] = two.sessions(0)
    two.held.add((0, 1))
    error = two.run(ours.send_object(1, [bytes(MIB)] * 16, timeout=3.0), advance_s=0.5)[0]
    assert isinstance(error, SessionTimeout)


def test_a_part_that_cannot_be_read_gives_the_session_up_and_leaves_the_ring_usable(two: Table) -> None:
    """As a memory that was released meanwhile; the claim in the ring must not stay open."""
    (ours, theirs), (other, other_there) = two.sessions(0, 1)
    good, gone = memoryview(bytearray(600_000)), memoryview(bytearray(600_000))
    packed = PackedObject([bytes(100), good, gone], 1_200_100)
    gone.release()
    encoded: Any = (Descriptor.OBJECT.value, len(packed), b"", packed)
    errors = two.run(ours._send_encoded(ours._mailboxes[1], encoded, None), theirs.recv_object(0))
    assert isinstance(errors[0], ValueError)
    assert isinstance(errors[1], PeerAborted)
    assert two.ok(other.send_object(1, [good]), other_there.recv_object(0))[1] == [good]


def test_a_cancelled_receive_loses_nothing(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)
    slot = two.schedulers[1].spawn(theirs.recv_object(0))
    two.settle()
    assert slot.wait is not None
    slot.wait.waker = None
    slot.coroutine.close()
    two.schedulers[1]._slots.discard(slot)
    assert two.ok(ours.send_object(1, 1), theirs.recv_object(0)) == [None, 1]


def test_a_link_of_the_iris_protocol_refuses_objects() -> None:
    with Table(2, iris=IrisOptions(2)) as table:
        [(ours, theirs)] = table.sessions(0)
        with pytest.raises(UnsupportedByPeer, match="a Python object"):
            table.ok(ours.send_object(1, [1]))
        assert table.ok(ours.send(1, b"x"), theirs.recv(0)) == [None, b"x"]


def test_the_blocking_form_sends_and_receives(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)
    ours.blocking.send_object(1, {"a": 1})
    two.settle()
    assert theirs.blocking.recv_object(0) == {"a": 1}
    assert run_blocking(two.workers[0], ours.send_object(1, [2])) is None
