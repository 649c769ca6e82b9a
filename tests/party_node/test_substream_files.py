"""Substreams as plain files, and readers under every way of cutting what comes."""

from __future__ import annotations

import asyncio
import gc
import io
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from partywire.engine.substreams.errors import SubstreamTimeout
from partywire.engine.yamux.errors import SubstreamReset, SubstreamSessionOver
from tests.party_node.rig import ECHO, Rig, blocking_rig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from partywire.engine.peers.contract import PeerConnection
    from partywire.engine.substreams.streams import SubstreamReader, SubstreamWriter
    from tests.party_node.rig import BridgeSide

SINK = "/test/sink/1"
SLOW = "/test/slow/1"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with blocking_rig(tmp_path) as rig:
        yield rig


def test_a_file_is_read_written_and_ended_by_with(rig: Rig) -> None:
    with rig.node.open_file("bob", ECHO, timeout=10.0) as file:
        assert file.readable()
        assert file.writable()
        assert not file.seekable()
        assert (file.peer, repr(file)) == ("bob", f"<SubstreamFile {ECHO} with bob>")
        assert file.write(memoryview(b"one\ntwo\nthree")) == 13
        buffer = bytearray(4)
        assert file.readinto(buffer) == 4
        assert bytes(buffer) == b"one\n"
        assert file.peek()[:4] == b"two\n"
        file.write_eof()
        assert list(file) == [b"two\n", b"three"]
        assert file.read(1) == b""
    assert file.closed
    file.close()
    for call in (lambda: file.read(1), lambda: file.write(b"x"), file.peek):
        with pytest.raises(ValueError, match="closed"):
            call()


def test_a_file_goes_wherever_python_takes_one(rig: Rig) -> None:
    with rig.node.open_file("bob", ECHO) as file:
        pair: Any = io.BufferedRWPair(file, file)
        text = io.TextIOWrapper(pair, encoding="utf-8", line_buffering=True)
        text.write("zwölf\n")
        assert text.readline() == "zwölf\n"
        text.detach()
    with io.BufferedReader(rig.node.open_file("bob", ECHO)) as reader:
        reader.raw.write(b"0123456789")
        assert (reader.peek(1)[:1], reader.read(7), reader.read1(99)) == (b"0", b"0123456", b"789")


def test_more_than_all_buffers_passes_a_file_whose_other_end_reads_slowly(rig: Rig) -> None:
    sizes: list[int] = []

    async def sink(_: PeerConnection, reader: SubstreamReader, __: SubstreamWriter) -> None:
        while data := await reader.read(10_000):
            sizes.append(len(data))
            await asyncio.sleep(0)

    rig.side.run(serve(rig.side, SINK, sink))
    with rig.node.open_file("bob", SINK) as file:
        assert file.write(bytes(2_000_000)) == 2_000_000
    rig.serve_until(lambda: sum(sizes) == 2_000_000)


def test_a_file_gives_up_in_time_and_loses_nothing(rig: Rig) -> None:
    go_on = asyncio.Event()

    async def slow(_: PeerConnection, reader: SubstreamReader, writer: SubstreamWriter) -> None:
        await go_on.wait()
        while data := await reader.read(100_000):
            writer.write(data)
            await writer.drain()

    rig.side.run(serve(rig.side, SLOW, slow))
    file = rig.node.open_file("bob", SLOW, timeout=10.0)
    file.timeout = 0.01
    with pytest.raises(SubstreamTimeout, match="read from"):
        file.read(1)
    with pytest.raises(SubstreamTimeout, match="write to"):
        file.write(bytes(3_000_000))
    with pytest.raises(SubstreamTimeout):
        file.flush()
    file.timeout = 10.0
    rig.side.loop.call_soon_threadsafe(go_on.set)
    received = 0
    while received < 3_000_000:
        received += len(file.read(1 << 20))
    file.close()


def test_a_file_that_is_dropped_is_reset(rig: Rig) -> None:
    started: list[bytes] = []
    failures: list[Exception] = []

    async def sink(_: PeerConnection, reader: SubstreamReader, __: SubstreamWriter) -> None:
        try:
            started.append(await reader.readexactly(6))
            await reader.read()
        except SubstreamReset as error:
            failures.append(error)

    rig.side.run(serve(rig.side, SINK, sink))
    file = rig.node.open_file("bob", SINK)
    file.write(b"half a")
    rig.serve_until(lambda: bool(started))
    del file
    gc.collect()
    rig.serve_until(lambda: bool(failures))


def test_a_file_whose_link_is_lost_says_so(rig: Rig) -> None:
    file = rig.node.open_file("bob", ECHO)
    rig.side.run(rig.side.lose_lane("the cable is cut"))
    with pytest.raises(SubstreamSessionOver, match="the cable is cut"):
        file.read(1)
    with pytest.raises(SubstreamSessionOver):
        file.close()
    assert file.closed


async def serve(side: BridgeSide, protocol: str, handler: object) -> None:
    side.bob.peers.serve(protocol, handler)  # type: ignore[arg-type]


# Readers and writers under every way of cutting.

READS = st.one_of(
    st.tuples(st.just("read"), st.integers(0, 9000)),
    st.tuples(st.just("readexactly"), st.integers(0, 9000)),
    st.tuples(st.just("readline"), st.just(0)),
    st.tuples(st.just("peek"), st.just(0)),
)


@pytest.fixture(scope="module")
def shared_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with blocking_rig(tmp_path_factory.mktemp("rig")) as rig:
        yield rig


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    pieces=st.lists(st.binary(max_size=300).map(lambda piece: piece * 20), max_size=8),
    reads=st.lists(READS, max_size=20),
)
def test_what_is_written_is_read_in_order_however_both_are_cut(
    shared_rig: Rig, pieces: list[bytes], reads: list[tuple[str, int]]
) -> None:
    expected = b"".join(pieces)

    async def scenario() -> None:
        reader, writer = await shared_rig.node.open("bob", ECHO)
        for piece in pieces:
            writer.write(piece)
        await writer.drain()
        writer.write_eof()
        at = 0
        for call, size in reads:
            left = expected[at:]
            if call == "read":
                got = await reader.read(size)
                assert len(got) <= size
                assert got or not size or not left
            elif call == "readexactly":
                try:
                    got = await reader.readexactly(size)
                    assert len(got) == size
                except asyncio.IncompleteReadError as error:
                    got = error.partial
                    assert len(got) < size
                    assert got == left
            elif call == "readline":
                got = await reader.readline()
                assert got == left[: left.find(b"\n") + 1 or len(left)]
            else:
                assert left.startswith(await reader.peek())
                got = b""
            assert left.startswith(got)
            at += len(got)
        assert await reader.read() == expected[at:]
        assert reader.at_eof()
        writer.close()

    shared_rig.block(scenario())
