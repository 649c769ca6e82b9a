"""Streams by rings beyond the contract of streams: ends in full rings, causes, hostile records, lost bells."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partywire.engine.records import CONTROL, DATA, STREAM_END, SUBSTREAMS
from partywire.engine.ring_stream import RingStream
from partywire.shm.ring import RingReader, RingWriter
from partywire.shm.segment import Segment
from tests.shm.ring_pair import RingPair
from tests.support.ring_streams import EPOCH, OwningRingStream, ring_pair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIZE = 16 * 1024


class Ends:
    """Two ends without a loop: the test says when callbacks run."""

    def __init__(self, size: int = SIZE) -> None:
        self.pairs = RingPair(size), RingPair(size)
        self.calls: deque[Callable[[], object]] = deque()
        there, back = self.pairs
        self.left = RingStream(back.reader, there.writer, EPOCH, self.calls.append, "right")
        self.right = RingStream(there.reader, back.writer, EPOCH, self.calls.append, "left")

    def turn(self) -> None:
        """Everything that is called back now, once."""
        for _ in range(len(self.calls)):
            self.calls.popleft()()


@contextmanager
def two_ends(size: int = SIZE) -> Iterator[Ends]:
    ends = Ends(size)
    try:
        yield ends
    finally:
        for pair in ends.pairs:
            pair.close()


def receive(stream: RingStream, size: int = 1 << 20) -> bytes | None:
    view = memoryview(bytearray(size))
    count = stream.try_recv_into(view)
    return None if count is None else bytes(view[:count])


def fill(stream: RingStream) -> int:
    sent = 0
    while (count := stream.try_send([bytes(5000)])) is not None:
        sent += count
    return sent


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_the_two_ends_do_bytes_arrive_in_order_and_ends_behind_them(data: st.DataObject) -> None:
    with two_ends() as ends:
        streams = ends.left, ends.right
        sent = [bytearray(), bytearray()]
        received = [bytearray(), bytearray()]
        ended = [False, False]  # whose sending half was shut down
        for step in range(data.draw(st.integers(1, 40))):
            who = data.draw(st.integers(0, 1))
            stream = streams[who]
            match data.draw(st.sampled_from(("send", "send", "receive", "receive", "shut down"))):
                case "send" if not ended[who]:
                    parts = [bytes([step + 1]) * size for size in data.draw(st.lists(st.integers(1, 6000), min_size=1))]
                    sent[who] += b"".join(parts)[: stream.try_send(parts) or 0]
                case "receive":
                    received[1 - who] += receive(stream, data.draw(st.integers(1, 9000))) or b""
                case "shut down":
                    stream.shutdown_write()
                    ended[who] = True
        for who, stream in enumerate(streams):
            while part := receive(streams[1 - who]):
                received[who] += part
            assert received[who] == sent[who]
            assert part == (b"" if ended[who] else None)
            if not ended[who]:
                assert stream.try_send([b"x"]) == 1  # there is room again
        # Nothing is left over: a whole ring is free but for what was just sent.
        assert all(pair.writer.free_size >= SIZE - 96 for pair in ends.pairs)


@pytest.mark.parametrize("end", ["shutdown_write", "close", "abort"])
def test_a_full_ring_has_room_for_every_end(end: str) -> None:
    with two_ends() as ends:
        sent = fill(ends.left)
        assert sent > SIZE // 2
        if end != "shutdown_write":
            ends.left.shutdown_write()
        getattr(ends.left, end)()
        assert len(receive(ends.right) or b"") == sent
        if end == "abort":
            with pytest.raises(ConnectionResetError):
                receive(ends.right)
        else:
            assert receive(ends.right) == b""


def test_the_longest_cause_has_room_and_is_told() -> None:
    with two_ends() as ends:
        fill(ends.left)
        ends.left.shutdown_write()
        ends.left.abort("\0\udcff" * 5000)
        with pytest.raises(ConnectionResetError, match="\0\\?" * 100):
            ends.right.try_send([b"x"])


def test_whoever_waits_for_room_is_called_back_once_there_is_some() -> None:
    with two_ends() as ends:
        sent = fill(ends.left)
        calls: list[int] = []
        ends.left.on_writable(lambda: calls.append(1))
        ends.turn()
        assert not calls
        ends.pairs[0].writer_doorbell.arm()
        assert ends.left.is_idle()
        assert len(receive(ends.right, sent) or b"") == sent
        assert os.eventfd_read(ends.pairs[0].writer_doorbell.fileno()) == 1
        ends.left.serve()
        ends.turn()
        assert calls


@pytest.mark.parametrize("look", ["send", "receive"])
def test_what_a_call_finds_in_the_ring_is_told_to_who_waits_for_it(look: str) -> None:
    """No bell rings for it any more."""
    with two_ends() as ends:
        calls: list[int] = []
        ends.right.on_readable(lambda: calls.append(1))
        ends.turn()
        assert ends.left.try_send([b"ab"]) == 2
        if look == "send":
            assert ends.right.try_send([b"x"]) == 1
        else:
            assert receive(ends.right, 1) == b"a"
        assert ends.right.is_idle()
        ends.turn()
        assert calls


def test_a_read_in_parts_gives_room_back_in_parts() -> None:
    with two_ends(1 << 16) as ends:
        writer = ends.pairs[0].writer
        assert ends.left.try_send([bytes(20_000)]) == 20_000
        before = writer.free_size
        assert len(receive(ends.right, 10_000) or b"") == 10_000
        assert writer.free_size >= before + 9_900


def test_nobody_who_does_not_read_is_called_and_the_ring_bounds_the_sender() -> None:
    with two_ends() as ends:
        sent = fill(ends.left)
        ends.right.serve()
        assert ends.right.is_idle()  # so its process can sleep
        assert not ends.calls
        assert ends.left.try_send([b"x"]) is None
        assert len(receive(ends.right) or b"") == sent


@pytest.mark.parametrize(
    ("kind", "payload", "epoch"),
    [
        (DATA, b"x", EPOCH),
        (CONTROL, b"x", EPOCH),
        (SUBSTREAMS, b"", EPOCH),
        (SUBSTREAMS, b"x", EPOCH + 1),
        (STREAM_END, b"x", EPOCH),
        (STREAM_END, b'{"clean":1,"cause":""}', EPOCH),
    ],
)
def test_a_record_that_may_not_be_breaks_the_stream_behind_what_came_before(
    kind: int, payload: bytes, epoch: int
) -> None:
    with two_ends() as ends:
        assert ends.left.try_send([b"before"]) == 6
        writer = ends.pairs[0].writer
        assert writer.try_write((payload,), len(payload), kind, 0, epoch)
        writer.publish()
        assert receive(ends.right) == b"before"
        for _ in range(2):
            with pytest.raises(OSError, match="the ring failed"):
                receive(ends.right)
        with pytest.raises(OSError, match="the ring failed"):
            ends.right.try_send([b"x"])
        ends.right.abort()
        with pytest.raises(OSError, match="the ring failed"):  # it is told why
            receive(ends.left)


def test_nothing_may_stand_behind_an_end() -> None:
    with two_ends() as ends:
        ends.left.shutdown_write()
        writer = ends.pairs[0].writer
        assert writer.try_write((b"x",), 1, SUBSTREAMS, 0, EPOCH)
        writer.publish()
        with pytest.raises(OSError, match="the ring failed"):
            receive(ends.right)


def test_a_corrupt_ring_is_a_broken_stream_at_both_ends() -> None:
    with two_ends() as ends:
        assert ends.left.try_send([b"x"]) == 1
        data = ends.pairs[0].writer_segment.data
        data[0:4] = b"\xff\xff\xff\xff"  # the length of the first record
        with pytest.raises(OSError, match="corrupt"):
            receive(ends.right)
        ends.right.close()
        with pytest.raises(OSError, match="corrupt"):
            receive(ends.left)


def test_an_interrupted_write_breaks_the_stream_and_never_sends_half_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with two_ends() as ends:
        writer = ends.pairs[0].writer

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(RingWriter, "commit", interrupt)
            with pytest.raises(KeyboardInterrupt):
                ends.left.try_send([b"lost"])
        assert writer.is_claimed
        with pytest.raises(OSError, match="interrupted"):
            ends.left.try_send([b"x"])
        ends.left.abort()
        assert receive(ends.right) is None


def test_a_ring_that_is_too_small_is_refused() -> None:
    with RingPair(4096) as pair, pytest.raises(ValueError, match="too small"):
        RingStream(pair.reader, pair.writer, EPOCH, list[object]().append, "nobody")


async def transfer(left: OwningRingStream, right: OwningRingStream, size: int) -> None:
    """Everything must pass with bells alone: nobody looks unasked."""
    done = asyncio.get_running_loop().create_future()
    unsent = memoryview(bytes(size))
    received = 0

    def send() -> None:
        nonlocal unsent
        while unsent and (count := left.try_send([unsent])) is not None:
            unsent = unsent[count:]
        if not unsent:
            left.on_writable(None)
            left.shutdown_write()

    def take() -> None:
        nonlocal received
        view = memoryview(bytearray(10_000))
        while count := right.try_recv_into(view):
            received += count
        if count == 0:
            right.on_readable(None)
            done.set_result(None)

    right.on_readable(take)
    left.on_writable(send)
    await asyncio.wait_for(done, 20)
    assert received == size


def test_bells_alone_carry_a_stream_through_a_small_ring() -> None:
    async def scenario() -> None:
        left, right = ring_pair(asyncio.get_running_loop(), SIZE)
        try:
            await transfer(left, right, 1 << 20)
        finally:
            left.close()
            right.close()

    asyncio.run(scenario())


def test_a_process_that_is_killed_in_the_midst_leaves_what_it_published() -> None:
    """The other end reads that, and no more; who made the rings tells it of the death."""
    there, back = RingPair(SIZE), RingPair(SIZE)
    told, tell = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            reader = RingReader(Segment.attach(os.dup(back.reader_segment.fileno())), there.writer._fence, None)
            stream = RingStream(reader, there.writer, EPOCH, list[object]().append, "parent")
            stream.try_send([b"published"])
            there.writer.try_claim(1000)
            os.write(tell, b"x")
            signal.pause()
        finally:
            os._exit(1)
    try:
        assert os.read(told, 1) == b"x"
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        stream = RingStream(there.reader, back.writer, EPOCH, list[object]().append, "child")
        assert receive(stream) == b"published"
        assert receive(stream) is None
        stream.abort()
    finally:
        for pair in (there, back):
            pair.close()
        os.close(told)
        os.close(tell)
