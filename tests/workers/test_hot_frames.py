"""The compiled lane against the plain one: the same bytes, in the same records, must come out the same.

Each case is made from its seed alone: sessions, a stream of frames, the records that it is cut into, and what our own
side does between them. `play` feeds a case through a ring to the worker of this process and writes down everything that
can be seen from outside. A second process with PARTYWIRE_CORE=pure plays the same cases; the two journals are compared
line by line.

What is left to the core is written in workers/hot_pure.py: good records in front of one with a corrupt header.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pytest

from partywire.engine import limits
from partywire.engine.frames import (
    FRAGMENT_BEGIN_HEADER,
    HEADER,
    LINK_SESSION,
    SPEC_OF,
    Descriptor,
    JobStatus,
    ResetCode,
    encode_frame,
    encode_goodbye,
    encode_job_end,
    encode_ping,
    encode_reset,
    fragment_begin_header,
)
from partywire.engine.records import DATA, FINISH, STREAM_END, StreamEnd, encode_stream_end
from partywire.shm.errors import ShmError
from partywire.workers.array_meta import array_meta
from partywire.workers.hot import IS_COMPILED
from tests.workers.harness import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from partywire.workers.lane import Lane
    from partywire.workers.mailbox import Mailbox
    from partywire.workers.session import Session

ROOT: Final = Path(__file__).parents[2]
DEADLINE_S: Final = 60.0
EPOCH: Final = 7  # the default of Table
RING_SIZE: Final = 1 << 16
RECORD_SIZE_MAX: Final = 20_000
LAST_SESSION: Final = LINK_SESSION - 1
ARRAY: Final = np.arange(300, dtype=np.int32)
FIXED: Final = [spec for spec in SPEC_OF.values() if spec.fixed_size is not None]
VECTORS: Final = [spec for spec in SPEC_OF.values() if spec.element_size > 1]

Record = tuple[int, int, int, bytes]
"""Kind, connection, epoch, payload."""


class Interrupted(BaseException):
    """What a Ctrl-C handler raises, in a callback."""


# Making frames.


class Peer:
    """Writes what a peer could send: legal as long as only `legal` is called."""

    def __init__(self, draw: random.Random, sessions: list[int]) -> None:
        self.draw = draw
        self.sessions = sessions
        self.jobs = dict.fromkeys(sessions, 0)
        self.open: dict[int, int] = {}  # session -> bytes that its fragmented message misses

    def body(self) -> bytes:
        draw = self.draw
        size = draw.choice((0, 1, draw.randint(2, 40), draw.randint(2, 40), draw.randint(41, 3000)))
        return draw.randbytes(size)

    def legal(self) -> bytes:
        """A frame that belongs here now."""
        draw = self.draw
        session = draw.choice(self.sessions)
        if session in self.open and draw.random() < 0.7:
            return self._fragment(session)
        kind = draw.randrange(24)
        if kind < 7:
            return encode_frame(session, Descriptor.BYTES, self.body())
        if kind < 11:
            spec = draw.choice(FIXED)
            return encode_frame(session, spec.descriptor, draw.randbytes(spec.fixed_size or 0))
        if kind < 14:
            spec = draw.choice(VECTORS)
            return encode_frame(session, spec.descriptor, draw.randbytes(spec.element_size * draw.randint(0, 40)))
        if kind < 16:
            meta = array_meta(ARRAY)
            return encode_frame(session, Descriptor.ARRAY, meta + ARRAY.tobytes() if kind == 14 else b"\x00\x01\x02")
        if kind == 16:
            bits = draw.randint(0, 70)
            return encode_frame(session, Descriptor.VEC_RING_BIT, draw.randbytes((bits + 7) // 8), bits)
        if kind == 17:
            return encode_frame(session, Descriptor.NETWORK_VEC, self.body())
        if kind < 20:
            return self._begin(session)
        if kind == 20:
            return encode_frame(draw.choice((6, 6, 8, 1 << 20)), Descriptor.BYTES, self.body())
        if kind == 21 and draw.random() < 0.2:
            return encode_reset(session, draw.choice(list(ResetCode)), "enough")
        if kind == 22 and draw.random() < 0.2:
            return encode_goodbye("for now")
        job, self.jobs[session] = self.jobs[session], self.jobs[session] + 1
        status = JobStatus.FAILED if draw.random() < 0.05 else JobStatus.DONE
        return encode_job_end(session, job, status, "why")

    def _begin(self, session: int) -> bytes:
        if session in self.open:
            return self._fragment(session)
        if self.draw.random() < 0.5:
            body = array_meta(ARRAY) + ARRAY.tobytes()
            first = self.draw.randint(0, len(body))
            data = body[:first]
            header = fragment_begin_header(session, Descriptor.ARRAY, len(body), first)
            missing = len(body) - first
        else:
            size = self.draw.choice((0, 1, 500, 4000))
            data = self.draw.randbytes(self.draw.randint(0, size))
            header = fragment_begin_header(session, Descriptor.BYTES, size, len(data))
            missing = size - len(data)
        if missing:
            self.open[session] = missing
        return header + data

    def _fragment(self, session: int) -> bytes:
        size = self.draw.randint(1, self.open[session])
        self.open[session] -= size
        if not self.open[session]:
            del self.open[session]
        return HEADER.pack(session, Descriptor.FRAGMENT, size) + self.draw.randbytes(size)

    def illegal(self) -> bytes:
        """A frame that no peer may send, or not now; sometimes it is legal by chance."""
        draw = self.draw
        session = draw.choice(self.sessions)
        spec = draw.choice(list(SPEC_OF.values()))
        choices: list[Callable[[], bytes]] = [
            lambda: HEADER.pack(session, draw.choice([d for d in range(256) if d not in SPEC_OF]), 0),
            lambda: HEADER.pack(LINK_SESSION, spec.descriptor, draw.randint(0, 20)) + draw.randbytes(20),
            lambda: HEADER.pack(session, spec.descriptor, draw.choice((limits.FRAME_SIZE_MAX + 1, 2**32 - 1))),
            lambda: HEADER.pack(session, draw.choice(VECTORS).descriptor, 2 * draw.randint(0, 9) + 1),
            lambda: HEADER.pack(session, spec.descriptor, draw.randint(0, 3)) + draw.randbytes(3),
            lambda: HEADER.pack(session, Descriptor.FRAGMENT, 9) + draw.randbytes(9),
            lambda: FRAGMENT_BEGIN_HEADER.pack(session, Descriptor.FRAGMENT_BEGIN, 5, spec.descriptor, 2**32 - 1),
            lambda: fragment_begin_header(session, Descriptor.BYTES, 3, 9) + draw.randbytes(9),
            lambda: HEADER.pack(session, Descriptor.PING, 8) + bytes(8),
            lambda: encode_ping(7),
            lambda: encode_job_end(session, draw.choice((9, 2**64 - 1)), JobStatus.DONE),
            lambda: encode_frame(session, Descriptor.JOB_END, bytes(8) + bytes((draw.randint(2, 255),))),
            lambda: encode_frame(session, Descriptor.RESET, bytes((draw.choice((0, 9, 255)),)) + b"\xff\x00"),
            lambda: encode_frame(draw.choice((1, 7)), Descriptor.BYTES, b"on a connection that is not its own"),
            lambda: draw.randbytes(draw.randint(1, 60)),
        ]
        return draw.choice(choices)()


def mutated(draw: random.Random, frame: bytes) -> bytes:
    """A frame with a byte changed, lost or added."""
    at = draw.randrange(len(frame))
    change = draw.randrange(3)
    if change == 0:
        return frame[:at] + draw.randbytes(1) + frame[at + 1 :]
    return frame[:at] + (draw.randbytes(1) + frame[at:] if change == 1 else frame[at + 1 :])


# Cutting a stream into records.


def cut_anywhere(draw: random.Random, stream: bytes) -> Iterator[bytes]:
    size_max = draw.choice((3, 30, 500, 5000, RECORD_SIZE_MAX))
    if len(stream) > 400 * size_max:
        size_max = RECORD_SIZE_MAX
    start = 0
    while start < len(stream):
        stop = start + draw.randint(0 if draw.random() < 0.1 else 1, size_max)
        yield stream[start:stop]
        start = stop


# Playing.


class Game:
    """One worker, its peer's records, and the journal of what came out. The peer's own worker does nothing."""

    def __init__(self, seed: int, *, inbox_size_max: int = 256 << 20) -> None:
        self.draw = random.Random(seed)
        self.table = Table(
            2, ring_size=RING_SIZE, workers=(1, 2, 1), inbox_size_max=inbox_size_max, message_size_max=50_000
        )
        self.worker = self.table.workers[0]
        self.end = self.table.end_of(0, 1)
        self.lane: Lane = self.worker.links[1].lanes[0]
        self.sessions: list[Session] = []
        self.journal: list[str] = []

    def __enter__(self) -> Game:
        return self

    def __exit__(self, *_: object) -> None:
        self.table.close()

    def open(self, *ids: int) -> list[int]:
        """Make sessions, and forget session 6, whose frames are late from then on."""
        for number in ids:
            session = self.worker.make_session(number)
            session.on_final = lambda job, number=number: self.note("final", number, job)
            session.on_failure = lambda error, number=number: self.note("failed", number, error)
            self.sessions.append(session)
        self.worker.make_session(6).close()
        return list(ids)

    def note(self, *what: object) -> None:
        self.journal.append(" ".join(str(part) for part in what))

    def write(self, record: Record) -> None:
        kind, connection, epoch, payload = record
        for at in range(0, max(len(payload), 1), RECORD_SIZE_MAX):
            piece = payload[at : at + RECORD_SIZE_MAX]
            assert self.end.writer.try_write((piece,), len(piece), kind, connection, epoch)
        self.end.writer.publish()

    def serve(self) -> None:
        """One pass: receive, resume, publish; then everything that changed is written down."""
        try:
            self.note("pass", self.worker.service(), self.resume())
        except Interrupted as error:
            self.note("interrupted by", error)
        self.worker.flush()
        self.look()

    def resume(self) -> int:
        """Passes of the scheduler until nobody can go on: a single one may end early by its clock."""
        count = 0
        while resumed := self.table.schedulers[0].do_work():
            count += resumed
        return count

    def look(self) -> None:
        worker, lane = self.worker, self.lane
        self.note("lane", lane.is_over, repr(lane.cause), lane.is_urgent)
        self.note("counted", lane.messages_received, lane.bytes_received)
        counters = worker.counters
        self.note("worker", worker.inbox_size, counters.dropped_stale, counters.dropped_unknown, counters.parked)
        for session in self.sessions:
            [mailbox] = session._peers
            assembly = mailbox.assembly
            filled = None if assembly is None else (assembly.size, assembly.filled, assembly.target is not None)
            self.note("session", session.id, len(mailbox.queue), filled, mailbox.behind, mailbox.markers_seen)
        try:
            records = self.end.reader.poll()
            for record in records:
                self.note("sent", record.kind, bytes(record.payload))
            records.clear()
            self.end.reader.release_all()
        except ShmError as error:
            self.note("ring", error)

    def act(self) -> None:
        """Something that our own side does."""
        session = self.draw.choice(self.sessions)
        what = self.draw.randrange(8)
        scheduler = self.table.schedulers[0]
        if what < 4:
            out = np.zeros_like(ARRAY) if what == 3 else None
            scheduler.spawn(self._receive(session, self.draw.randint(1, 6), out))
        elif what == 4:
            scheduler.spawn(self._end_job(session))
        elif what == 5:
            scheduler.spawn(self._send(session, self.draw.randbytes(self.draw.choice((0, 50, 17_000)))))
        elif what == 6:
            if self.worker.table._expectations:
                self.worker.expect_sessions_end()
            else:
                self.worker.expect_sessions()
        elif self.draw.random() < 0.1:
            session.abort("no longer wanted")
        self.note("act", what, session.id, self.resume())

    async def _receive(self, session: Session, count: int, out: Any) -> None:
        try:
            for _ in range(count):
                self.note("received", session.id, describe(await session.recv(1, out=out)))
        except Exception as error:
            self.note("recv raised", session.id, type(error).__name__, error)

    async def _send(self, session: Session, value: bytes) -> None:
        try:
            await session.send_next(value)
            self.note("sent to it", session.id, describe(value))
        except Exception as error:
            self.note("send raised", session.id, type(error).__name__, error)

    async def _end_job(self, session: Session) -> None:
        try:
            self.note("ended", session.id, await session.end_job())
        except Exception as error:
            self.note("end_job raised", session.id, type(error).__name__, error)

    def finish(self) -> list[str]:
        """What lies in the queues at last, and what every wait ends with."""
        for session in self.sessions:
            [mailbox] = session._peers
            for entry in mailbox.queue:
                self.note("left", session.id, describe(entry))
        for _ in range(3):
            self.serve()
        return self.journal


def describe(value: Any) -> str:
    if isinstance(value, tuple):
        return f"{value[:-1]} {describe(value[-1])}"
    if isinstance(value, (bytes, bytearray)):
        return f"{type(value).__name__} {len(value)} {zlib.crc32(value):08x}"
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape} {zlib.crc32(value.tobytes()):08x}"
    return str(value)


def play_legal(seed: int) -> list[str]:
    """A legal stream, cut anywhere, several records in a pass, between records that are not for this lane."""
    with Game(seed) as game:
        draw = game.draw
        ids = game.open(0, 2, LAST_SESSION) if seed % 3 == 0 else game.open(0, 2, 4)
        peer = Peer(draw, ids)
        stream = b"".join(peer.legal() for _ in range(draw.choice((20, 60, 120))))
        for piece in cut_anywhere(draw, stream):
            if draw.random() < 0.05:
                game.write(draw.choice(((DATA, 0, EPOCH - 1, b"late"), (DATA, 1, EPOCH, b"x"), (77, 0, EPOCH, b""))))
            game.write((DATA, 0, EPOCH, piece))
            if draw.random() < 0.3:
                game.act()
            if game.end.writer.free_size < 2 * RECORD_SIZE_MAX or draw.random() < 0.5:
                game.serve()
        if draw.random() < 0.7:
            end = StreamEnd(draw.random() < 0.5, "the net is gone")
            game.write((STREAM_END, 0, EPOCH, encode_stream_end(end)))
            game.write((draw.choice((DATA, FINISH)), 0, EPOCH, b"behind the end"))
        game.serve()
        return game.finish()


def play_hostile(seed: int) -> list[str]:
    """Legal frames, then illegal ones, mutated ones or noise; also what comes behind them."""
    with Game(seed) as game:
        draw = game.draw
        peer = Peer(draw, game.open(0, 2, 4))
        frames = [peer.legal() for _ in range(draw.randint(0, 25))]
        frames += [
            peer.illegal() if draw.random() < 0.7 else mutated(draw, peer.legal()) for _ in range(draw.randint(1, 4))
        ]
        frames += [peer.legal() for _ in range(3)]
        for piece in cut_anywhere(draw, b"".join(frames)):
            game.write((DATA, 0, EPOCH, piece))
            if draw.random() < 0.2:
                game.act()
            if game.end.writer.free_size < 2 * RECORD_SIZE_MAX or draw.random() < 0.8:
                game.serve()
        game.serve()
        return game.finish()


def play_overflow(seed: int) -> list[str]:
    """More than the inbox holds."""
    with Game(seed, inbox_size_max=random.Random(seed).choice((300, 2000, 9000))) as game:
        draw = game.draw
        peer = Peer(draw, game.open(0, 2, 4))
        stream = b"".join(peer.legal() for _ in range(50))
        for piece in cut_anywhere(draw, stream):
            game.write((DATA, 0, EPOCH, piece))
            if draw.random() < 0.15:
                game.act()
            game.serve()
        return game.finish()


def play_interrupted(seed: int) -> list[str]:
    """An exception comes out of a callback inside a pass; the next pass has to find the lane unusable."""
    return play_callback(seed, interrupts=True)


def play_closing(seed: int) -> list[str]:
    """A callback inside a pass closes the party."""
    return play_callback(seed, interrupts=False)


def play_callback(seed: int, *, interrupts: bool) -> list[str]:
    """Something happens in the middle of a record: a waker or a session's own callback does it."""
    with Game(seed) as game:
        draw = game.draw
        ids = game.open(0, 2, 4)
        peer = Peer(draw, ids)

        def act(*_: object) -> None:
            if interrupts:
                raise Interrupted("Ctrl-C")
            game.worker.close()

        victim = draw.choice(game.sessions)
        mailbox: Mailbox = victim._peers[0]
        if draw.random() < 0.7:
            mailbox.waker = act
        else:
            victim.on_final = act
            game.table.schedulers[0].spawn(game._end_job(victim))
        for piece in cut_anywhere(draw, b"".join(peer.legal() for _ in range(30))):
            game.write((DATA, 0, EPOCH, piece))
            game.serve()
        return game.finish()


def play_corrupt(seed: int) -> list[str]:
    """The process at the other end of the ring spoils the header of a record."""
    with Game(seed) as game:
        draw = game.draw
        peer = Peer(draw, game.open(0, 2, 4))
        for _ in range(draw.randint(0, 4)):
            game.write((DATA, 0, EPOCH, peer.legal()))
            game.serve()
        segment = game.end.writer._segment
        at = game.end.writer._tail % RING_SIZE
        assert game.end.writer.try_write((b"spoiled",), 7, DATA, 0, EPOCH)
        field = draw.choice((0, 4, 6, 16, 24))
        segment.data[at + field : at + field + 2] = draw.choice((b"\xff\xff", b"\x00\x80", draw.randbytes(2)))
        game.end.writer.publish()
        game.serve()
        return game.finish()


FAMILIES: Final[dict[str, tuple[Callable[[int], list[str]], int]]] = {
    "legal": (play_legal, 70),
    "hostile": (play_hostile, 120),
    "overflow": (play_overflow, 50),
    "interrupted": (play_interrupted, 30),
    "closing": (play_closing, 30),
    "corrupt": (play_corrupt, 40),
}


def play_all(family: str) -> list[list[str]]:
    play, count = FAMILIES[family]
    return [play(seed) for seed in range(count)]


@pytest.mark.skipif(not IS_COMPILED, reason="the compiled core is not there, or not wanted")
@pytest.mark.parametrize("family", FAMILIES)
def test_both_cores_make_the_same_of_the_same_records(family: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.workers.test_hot_frames", family],
        cwd=ROOT,
        env=os.environ | {"PARTYWIRE_CORE": "pure"},
        stdout=subprocess.PIPE,
        text=True,
    ) as plain:
        try:
            ours = play_all(family)
            printed, _ = plain.communicate(timeout=DEADLINE_S)
        finally:
            plain.kill()
    assert plain.returncode == 0
    for seed, (compiled, pure) in enumerate(zip(ours, json.loads(printed), strict=True)):
        for line, (here, there) in enumerate(zip(compiled, pure, strict=False)):
            assert here == there, f"{family} {seed}, line {line}, after {compiled[max(0, line - 12) : line]}"
        assert len(compiled) == len(pure), f"{family} {seed}"


if __name__ == "__main__":
    json.dump(play_all(sys.argv[1]), sys.stdout)
