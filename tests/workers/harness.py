"""Two or three workers in one process, joined through real rings by a stand-in for their I/O processes.

`Table` seats the workers. Its `move` does what I/O processes do: it takes the records of every tx ring, keeps the bytes
of each connection as one stream, and writes the stream into the other side's rx ring in slices of random sizes. Nothing
runs by itself and the clock stands still, so a test is the same in every run; `run` drives coroutines of all workers in
turns and fails when nobody can go on.
"""

from __future__ import annotations

import math
import os
import random
from collections import deque
from typing import TYPE_CHECKING, Any

from partywire.engine.bulk_commands import BulkLane
from partywire.engine.commands import Lanes
from partywire.engine.records import (
    CONTROL,
    DATA,
    FINISH,
    STREAM_END,
    StreamEnd,
    encode_stream_end,
)
from partywire.engine.topology import PartySpec, PeerSpec, connection_count
from partywire.shm import fence
from partywire.shm.doorbell import Bell, Doorbell
from partywire.shm.ring import RingReader, RingWriter
from partywire.shm.segment import Segment
from partywire.workers.scheduler import Scheduler
from partywire.workers.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import TracebackType

    from partywire.engine.iris_options import IrisOptions
    from partywire.workers.session import Session

NAMES = ("alice", "bob", "charlie")
TURNS_WITHOUT_WORK_MAX = 3


class Stuck(Exception):
    """Raised when every worker waits and nothing is under way."""


class Clock:
    """A monotonic clock that only tests move."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class End:
    """The I/O process's side of one connection at one party."""

    def __init__(self, writer: RingWriter, reader: RingReader, connection: int, epoch: int) -> None:
        self.writer = writer  # the worker's rx
        self.reader = reader  # the worker's tx
        self.connection = connection
        self.epoch = epoch
        self.stream = bytearray()  # bytes for the worker that are not in its ring yet
        self.records: deque[tuple[int, bytes]] = deque()  # whole records for it
        self.other: End | None = None


class Table:
    """Workers 0 of `count` parties, every link up. Use as a context manager."""

    def __init__(
        self,
        count: int = 2,
        *,
        seed: int = 1,
        ring_size: int = 1 << 20,
        slice_max: int = 1 << 16,
        workers: tuple[int, ...] = (1, 1, 1),
        inbox_size_max: int = 256 << 20,
        message_size_max: int = 2**32 - 1,
        epoch: int = 7,
        iris: IrisOptions | None = None,
    ) -> None:
        """With `iris`, all links speak that protocol."""
        self.iris = iris
        self.random = random.Random(seed)
        self.slice_max = slice_max
        self.clock = Clock()
        self.held: set[tuple[int, int]] = set()  # (from, to) whose bytes do not move
        self._ends: dict[tuple[int, int], list[End]] = {}
        self._fence = fence.probe()
        peers = tuple(
            PeerSpec(name, index, "127.0.0.1", 7001 + index, iris) for index, name in enumerate(NAMES[:count])
        )
        self.workers = [
            Worker(
                PartySpec(peer.name, peer.index, peers),
                Doorbell.create(self._fence),
                self._fence,
                workers=workers[peer.index],
                inbox_size_max=inbox_size_max,
                message_size_max=message_size_max,
            )
            for peer in peers
        ]
        for worker in self.workers:
            worker.clock = self.clock
        self.doorbell = Doorbell.create(self._fence)
        self._bells: list[Bell] = []
        for ours in range(count):
            for theirs in range(count):
                if ours != theirs:
                    self._seat(ours, theirs, workers, ring_size, message_size_max, epoch)
        for (ours, theirs), ends in self._ends.items():
            others = {end.connection: end for end in self._ends[theirs, ours]}
            for end in ends:  # the other end of a connection may belong to a worker that does not sit here
                end.other = others.get(end.connection)
        self.schedulers = [Scheduler(worker) for worker in self.workers]

    @staticmethod
    def _bell(doorbell: Doorbell) -> tuple[int, int]:
        eventfd, page_fd = doorbell.fds
        return os.dup(eventfd), os.dup(page_fd)

    def _seat(
        self, ours: int, theirs: int, workers: tuple[int, ...], ring_size: int, message_size_max: int, epoch: int
    ) -> None:
        worker = self.workers[ours]
        connections = self.iris.connections if self.iris else connection_count(workers[ours], workers[theirs])
        mine = [c for c in range(connections) if c % workers[ours] == 0]
        bell = Bell.from_fds(*self._bell(worker._doorbell))
        self._bells.append(bell)
        fds = list(self._bell(self.doorbell))
        ends = []
        for connection in [*mine, -1]:
            tx = Segment.create(ring_size)
            rx = Segment.create(ring_size)
            fds += [os.dup(tx.fileno()), os.dup(rx.fileno())]
            ends.append(End(RingWriter(rx, self._fence, bell), RingReader(tx, self._fence, bell), connection, epoch))
        self._ends[ours, theirs] = ends
        lanes = Lanes(0, theirs, epoch, workers[theirs], mine, connections, True, message_size_max)
        worker.link_life.add_lanes(lanes, fds)

    def add_bulk(self, number: int = 1, ring_size: int = 1 << 20) -> None:
        """A bulk connection on every link between workers that sit here."""
        for (pair, ends), bell in zip(self._ends.items(), self._bells, strict=True):
            ours, theirs = pair
            tx, rx = Segment.create(ring_size), Segment.create(ring_size)
            fds = [os.dup(tx.fileno()), os.dup(rx.fileno())]
            epoch = ends[-1].epoch
            ends.append(End(RingWriter(rx, self._fence, bell), RingReader(tx, self._fence, bell), number, epoch))
            message = BulkLane(0, theirs, epoch, number, self.workers[ours].message_size_max)
            self.workers[ours].commands.take(message, fds)
        for ours, theirs in self._ends:
            self.end_of(ours, theirs, number).other = self.end_of(theirs, ours, number)

    # What I/O processes do.

    def move(self) -> int:
        """Move what can be moved. Returns the count of records taken and written."""
        work = 0
        for pair, ends in self._ends.items():
            for end in ends:
                work += self._take(pair, end)
                work += self._write(end)
        return work

    def _take(self, pair: tuple[int, int], end: End) -> int:
        if pair in self.held:
            return 0
        records = end.reader.poll()
        for record in records:
            if end.other is None:
                continue
            if record.kind == DATA:
                end.other.stream += record.payload
            elif record.kind == CONTROL:
                end.other.records.append((CONTROL, bytes(record.payload)))
            elif record.kind == FINISH:
                end.other.records.append((STREAM_END, encode_stream_end(StreamEnd(True, ""))))
        count = len(records)
        records.clear()
        end.reader.release_all()
        return count

    def _write(self, end: End) -> int:
        work = 0
        while end.stream:
            size = min(len(end.stream), self.random.randint(1, self.slice_max))
            claim = end.writer.try_claim(size)
            if claim is None:
                break
            size = len(claim)
            claim[:] = end.stream[:size]
            claim.release()
            del end.stream[:size]
            end.writer.commit(size, DATA, max(end.connection, 0), end.epoch)
            work += 1
        while end.records and not end.stream:
            kind, payload = end.records[0]
            if not end.writer.try_write((payload,), len(payload), kind, max(end.connection, 0), end.epoch):
                break
            end.records.popleft()
            work += 1
        end.writer.publish()
        return work

    def end_of(self, party: int, peer: int, connection: int = 0) -> End:
        """The I/O side of a connection of `party` to `peer`."""
        return next(end for end in self._ends[party, peer] if end.connection == connection)

    def feed(self, party: int, peer: int, data: bytes, connection: int = 0) -> None:
        """Bytes that `party` receives from `peer` as if the peer had sent them."""
        self.end_of(party, peer, connection).stream += data
        self.turn()

    def cut(self, party: int, peer: int, cause: str = "connection reset by peer") -> None:
        """The link between two parties breaks."""
        for ours, theirs in ((party, peer), (peer, party)):
            for end in self._ends[ours, theirs]:
                end.stream.clear()
                end.records.clear()
                end.records.append((STREAM_END, encode_stream_end(StreamEnd(False, cause))))

    # Driving.

    def turn(self) -> int:
        """One pass of every worker, then everything moves."""
        work = 0
        for worker, scheduler in zip(self.workers, self.schedulers, strict=True):
            work += worker.service()
            work += scheduler.do_work()
            worker.flush()
        return work + self.move()

    def settle(self) -> None:
        """Turns until nothing happens any more."""
        idle = 0
        while idle < TURNS_WITHOUT_WORK_MAX:
            idle = 0 if self.turn() else idle + 1

    def run(self, *coroutines: Coroutine[Any, Any, Any], advance_s: float = 0.0) -> list[Any]:
        """Run one coroutine per worker, in order, to their ends; returns their results, or errors in their place.

        `advance_s` moves the clock whenever nothing else happens.
        """
        slots = [scheduler.spawn(coroutine) for scheduler, coroutine in zip(self.schedulers, coroutines, strict=False)]
        idle = 0
        while not all(slot.is_done for slot in slots):
            if self.turn():
                idle = 0
            elif advance_s:
                self.clock.now += advance_s
                idle += 1
                if idle > 10_000:
                    self._give_up()
            else:
                idle += 1
                if idle > TURNS_WITHOUT_WORK_MAX:
                    self._give_up()
        self.settle()
        return [slot.result if slot.error is None else slot.error for slot in slots]

    def ok(self, *coroutines: Coroutine[Any, Any, Any], advance_s: float = 0.0) -> list[Any]:
        """Like `run`; the first error is raised."""
        results = self.run(*coroutines, advance_s=advance_s)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results

    def _give_up(self) -> None:
        for scheduler in self.schedulers:
            scheduler.cancel("stuck")
        raise Stuck

    def sessions(self, *ids: int) -> list[tuple[Session, ...]]:
        """The same sessions at every worker: a tuple over workers for each id."""
        made = [tuple(worker.make_session(number) for worker in self.workers) for number in ids]
        return made

    def serve_blocking(self, party: int) -> None:
        """Blocking calls of one worker run the rest of the table instead of sleeping."""
        idle = 0

        def sleep(deadline: float = math.inf) -> None:
            nonlocal idle
            self.workers[party].flush()
            idle = 0 if self.turn() else idle + 1
            if idle > 10 * TURNS_WITHOUT_WORK_MAX:
                raise Stuck

        self.workers[party].sleep = sleep  # type: ignore[method-assign]

    def close(self) -> None:
        for scheduler in self.schedulers:
            scheduler.close()
        for worker in self.workers:
            worker.close()
        for ends in self._ends.values():
            for end in ends:
                end.writer.close()
                end.reader.close()
        for bell in self._bells:
            bell.close()
        self.doorbell.close()

    def __enter__(self) -> Table:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
