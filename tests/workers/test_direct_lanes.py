"""Bytes that pass by the rings of a party in-process: in order, once, whole, whatever the kernel takes at a time."""

from __future__ import annotations

import asyncio
import errno
import itertools
import random
import socket
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from partywire import Party, PartyConfig, PeerLost
from partywire.engine import limits
from partywire.engine.connection_pump import ConnectionPump
from partywire.engine.filler import Filler
from partywire.engine.frames import Descriptor, frame_header
from partywire.shm.compiled import core
from partywire.workers.waiting import Wait

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from partywire import Session
    from partywire.workers.lane import Lane

DEADLINE_S = 20.0
SIZES = (0, 1, 55, 4_000, 16_384, 16_385, 40_000, 65_536, 262_144, 300_000, 1 << 20, (1 << 20) + 1, 3_000_000)


def run(play: Callable[[Session, Session, Party, Party], Coroutine[Any, Any, object]], **settings: object) -> None:
    """Play with two parties in one loop, and the first session of each."""

    async def playing() -> None:
        listeners = [socket.create_server(("127.0.0.1", 0)) for _ in "ab"]
        parties = {name: listener.getsockname()[:2] for name, listener in zip("ab", listeners, strict=True)}
        async with asyncio.timeout(DEADLINE_S), AsyncExitStack() as stack:
            opened = [
                Party(PartyConfig(name=name, parties=parties, io="in-process", **settings), listener)  # type: ignore[arg-type]
                for name, listener in zip("ab", listeners, strict=True)
            ]
            for party in opened:
                stack.push_async_callback(party.close)
            await asyncio.gather(*(party.open() for party in opened))
            (one,), (other,) = await asyncio.gather(*(party.make_sessions(1) for party in opened))
            await play(one, other, *opened)
        for listener in listeners:
            listener.close()

    asyncio.run(playing())


def lane_of(party: Party) -> Lane:
    """The one of the party's only link."""
    (link,) = party.worker.links.values()
    return link.lanes[0]


def make_value(chance: random.Random) -> bytes | np.ndarray[Any, Any]:
    size = chance.choice(SIZES)
    data = chance.randbytes(size)
    return np.frombuffer(data, dtype=np.uint8) if chance.random() < 0.4 else data


@pytest.mark.parametrize("ring_mib", [1, 4])
def test_values_of_all_sizes_arrive_once_and_in_order(ring_mib: int) -> None:
    """Both ways at once, while one end now and then stops receiving until the kernel takes no more."""

    async def play(one: Session, other: Session, *_: Party) -> None:
        async def send(session: Session, peer: str, seed: int) -> None:
            chance = random.Random(seed)
            for _ in range(80):
                await session.send(peer, make_value(chance))

        async def receive(session: Session, peer: str, seed: int) -> None:
            chance = random.Random(seed)
            for number in range(80):
                expected = make_value(chance)
                if number % 20 == 7:
                    for _ in range(50):
                        await asyncio.sleep(0)
                if isinstance(expected, np.ndarray) and number % 3 == 0:
                    received = await session.recv(peer, out=np.empty_like(expected))
                else:
                    received = await session.recv(peer)
                assert type(received) is type(expected)
                assert bytes(received) == bytes(expected)

        await asyncio.gather(send(one, "b", 1), send(other, "a", 2), receive(one, "b", 2), receive(other, "a", 1))

    run(play, ring_mib=ring_mib)


@pytest.mark.skipif(core is None, reason="bytes pass by rings only with the compiled core")
def test_an_interrupt_before_the_system_call_sends_nothing_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    planted: list[str] = []
    descriptor = ConnectionPump.direct_fd

    def interrupt(self: ConnectionPump) -> int:
        if planted:
            planted.pop()
            raise KeyboardInterrupt
        fd: int = descriptor.__get__(self)
        return fd

    monkeypatch.setattr(ConnectionPump, "direct_fd", property(interrupt))

    async def play(one: Session, other: Session, party: Party, _: Party) -> None:
        await one.send("b", b"first")
        planted.append("once")
        with pytest.raises(KeyboardInterrupt):
            party.worker.flush()
        await one.send("b", b"second")
        assert [await other.recv("a"), await other.recv("a")] == [b"first", b"second"]
        planted.append("once")
        with pytest.raises(KeyboardInterrupt):
            await one.send("b", bytes(1 << 20))
        await one.send("b", b"third")
        assert await other.recv("a") == b"third"

    run(play)


def test_a_message_in_fragments_counts_as_one() -> None:
    async def play(one: Session, other: Session, party: Party, peer: Party) -> None:
        before = lane_of(peer).messages_received
        for _ in range(3):
            sending = asyncio.ensure_future(one.send("b", bytes(3_000_000)))
            assert await other.recv("a") == bytes(3_000_000)
            await sending
        assert lane_of(peer).messages_received == before + 3

    run(play)


@pytest.mark.skipif(core is None, reason="bytes pass by rings only with the compiled core")
def test_a_message_that_was_begun_in_fragments_goes_on_in_fragments_when_its_lane_is_joined() -> None:
    async def play(one: Session, other: Session, party: Party, _: Party) -> None:
        body = random.Random(1).randbytes(limits.FRAME_SIZE_MAX)
        lane = lane_of(party)
        lane.cut_above(limits.FRAGMENT_SIZE)
        chunks = lane.chunks(one.id, Descriptor.BYTES.value, len(body), b"", body)
        assert next(chunks)
        lane.cut_above(limits.FRAME_SIZE_MAX)
        for has_gone_on in chunks:
            if not has_gone_on:
                await asyncio.sleep(0)
        assert await other.recv("a") == body

    run(play)


@pytest.mark.skipif(core is None, reason="bytes pass by rings only with the compiled core")
def test_behind_the_start_of_a_body_the_rest_passes_by_the_ring_however_short_it_was() -> None:
    async def play(one: Session, other: Session, party: Party, peer: Party) -> None:
        lane, far = lane_of(party), lane_of(peer)
        assert lane.pump is not None
        assert far.pump is not None
        body = random.Random(1).randbytes(160_000)  # which a socket takes at once
        wire = frame_header(one.id, Descriptor.BYTES.value, len(body)) + body
        received, in_ring = far.bytes_received, far.reader._head
        for start, end in itertools.pairwise((0, 3, 100, 15_000, 15_001, 100_000, len(wire))):
            with socket.socket(fileno=lane.pump.direct_fd) as sock:
                assert sock.send(wire[start:end]) == end - start
                sock.detach()
            while far.bytes_received < received + end:
                far.pump.receive()
        assert await other.recv("a") == body
        assert far.reader._head - in_ring < 20_000

    run(play)


@pytest.mark.skipif(core is None, reason="bytes pass by rings only with the compiled core")
def test_large_messages_wait_for_what_is_before_them_instead_of_being_copied() -> None:
    async def play(one: Session, other: Session, party: Party, _: Party) -> None:
        lane = lane_of(party)
        in_ring = []

        async def send(body: bytes) -> None:
            await one.send("b", body)
            in_ring.append(lane.writer._pending - lane.writer._load_head())

        bodies = [random.Random(size).randbytes(size) for size in range(900_000, 900_020)]
        sending = [asyncio.ensure_future(send(body)) for body in bodies]
        assert [await other.recv("a") for _ in bodies] == bodies
        await asyncio.gather(*sending)
        assert max(in_ring) < 1_000_000  # in four times as much

    run(play, ring_mib=4)


@pytest.mark.parametrize("size", [60_000, 400_000])
def test_who_sends_large_messages_without_a_pause_leaves_others_their_turn(size: int) -> None:
    """Whose turn it is finds the room that it was woken for, and keeps its place where there is none."""

    async def play(_: Session, __: Session, *parties: Party) -> None:
        (one, second), (other, third) = await asyncio.gather(*(party.make_sessions(2) for party in parties))
        count = 1000
        sent: list[int] = []
        is_flowing = asyncio.Event()

        async def flood() -> None:
            for number in range(count):
                await one.send("b", bytes(size))
                sent.append(number)

        async def drain() -> None:
            for number in range(count):
                assert await other.recv("a") == bytes(size)
                if number == 100:
                    is_flowing.set()

        flows = [asyncio.ensure_future(flow()) for flow in (flood, drain)]
        await is_flowing.wait()
        before = len(sent)
        await second.send("b", bytes(400_000))
        assert len(sent) - before < 50
        assert await third.recv("a") == bytes(400_000)
        await asyncio.gather(*flows)

    run(play)


def test_who_was_woken_for_room_keeps_its_place_until_it_leaves_and_holds_up_nobody_behind_it() -> None:
    """It may be unable to run, behind a blocking call inside it: then the next are woken, and the worker may sleep."""

    async def play(one: Session, _: Session, party: Party, __: Party) -> None:
        lane = lane_of(party)
        woken: list[int] = []
        waits = [Wait(one.worker) for _ in range(3)]
        for number, wait in enumerate(waits):
            wait.waker = partial(woken.append, number)
            lane.add_waiter(wait)
        for count in (1, 2):
            assert lane.retry() == 1
            assert (woken, lane.is_stalled) == ([0, 1][:count], True)
        lane.remove_waiter(waits[0])
        lane.wake_next()
        assert woken == [0, 1, 2]
        assert lane.retry() == 1
        assert not lane.is_stalled
        assert not lane.try_append(b"", b"", b"", in_turn=False)
        lane.remove_waiter(waits[2])
        lane.remove_waiter(waits[1])
        assert lane.try_append(b"", b"", b"", in_turn=False)
        assert woken == [0, 1, 2]

    run(play)


@pytest.mark.skipif(core is None, reason="bytes pass by rings only with the compiled core")
def test_a_lane_goes_on_with_one_body_at_a_time_and_takes_it_away() -> None:
    async def play(one: Session, _: Session, party: Party, peer: Party) -> None:
        lane, far = lane_of(party), lane_of(peer)
        with pytest.raises(TypeError, match="compiled filler"):
            lane.go_on_with_body(one.id, Descriptor.BYTES.value, 6, object())  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="size"):
            lane.go_on_with_body(one.id, Descriptor.BYTES.value, 6, Filler(5, is_writable=False))
        filler = Filler(6, is_writable=False)
        filler.put(b"abc")
        lane.go_on_with_body(one.id, Descriptor.BYTES.value, 6, filler)
        with pytest.raises(ValueError, match="longer than what is missing"):
            filler.put(b"d")
        with pytest.raises(ValueError, match="another body"):
            lane.go_on_with_body(one.id, Descriptor.BYTES.value, 6, Filler(6, is_writable=False))
        far.post(b"def")
        assert await one.recv("b") == b"abcdef"

    run(play)


@pytest.mark.skipif(core is None, reason="bytes pass by rings only with the compiled core")
def test_a_peer_that_goes_on_sending_does_not_hold_up_the_end_of_a_link() -> None:
    """What is behind a link that broke goes into the ring, which bounds it, and from there to the lane in its turns."""

    async def play(one: Session, other: Session, party: Party, peer: Party) -> None:
        lane = lane_of(peer)
        assert lane.pump is not None
        received, moved = lane.bytes_received, lane.pump.bytes_moved
        sending = asyncio.ensure_future(one.send("b", bytes(3_000_000)))
        await asyncio.sleep(0)  # the first turn of the sender, in which the receiver has none
        lane.pump.receive_rest()
        assert lane.bytes_received == received
        assert 0 < lane.pump.bytes_moved - moved <= 1 << 20
        assert await other.recv("a") == bytes(3_000_000)
        await sending

    run(play, ring_mib=1)


@pytest.mark.skipif(core is None, reason="bytes pass by rings only with the compiled core")
def test_what_comes_for_a_lane_that_is_over_is_thrown_away() -> None:
    """Left in the socket, it would wake its party for ever, and hide the end of the stream."""

    async def play(one: Session, other: Session, party: Party, peer: Party) -> None:
        lane, far = lane_of(party), lane_of(peer)
        assert far.pump is not None
        lane.post(one.id.to_bytes(4, "little") + b"\x7f" + bytes(4))
        with pytest.raises(PeerLost, match="unknown frame descriptor"):
            await other.recv("a")
        assert far.is_over
        assert lane.pump is not None
        with socket.socket(fileno=lane.pump.direct_fd) as sock:
            sock.send(bytes(100))
            sock.detach()
        moved = far.pump.bytes_moved
        far.pump.receive()
        assert far.pump.bytes_moved == moved + 100
        peer.worker.link_life.ask_for_link(far.link, "the test is over")

    run(play)


@pytest.mark.skipif(core is None, reason="bytes pass by rings only with the compiled core")
def test_a_filler_receives_what_is_missing_and_no_more() -> None:
    assert core is not None
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        filler = Filler(6, is_writable=False)
        assert filler.receive(near.fileno(), 6) == (0, core.DRAINED)
        far.send(b"abcdefgh")
        assert filler.receive(near.fileno(), 4) == (4, core.MORE)
        for size in (0, -1, 3):
            with pytest.raises(ValueError, match="missing"):
                filler.receive(near.fileno(), size)
        assert filler.receive(near.fileno(), 2) == (2, core.MORE)
        assert filler.take() == b"abcdef"
        with pytest.raises(ValueError, match="missing"):
            filler.receive(near.fileno(), 1)
        filler = Filler(6, is_writable=True)
        assert filler.receive(near.fileno(), 6) == (2, core.DRAINED)
        far.close()
        assert filler.receive(near.fileno(), 4) == (0, core.ENDED)
    assert filler.receive(-1, 4) == (0, -errno.EBADF)
    assert filler.filled == 2


@pytest.mark.skipif(core is None, reason="bytes pass by rings only with the compiled core")
def test_only_a_lane_of_the_core_is_received_for() -> None:
    assert core is not None
    with pytest.raises(TypeError, match="a compiled lane"):
        core.receive_joined(object(), 1, 0, 0, 1, 1, 1, object())
