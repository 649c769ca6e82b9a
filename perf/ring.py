"""What does one lane carry between two processes, and what does a batch cost on each side?

Topology: a producer process and this one, the consumer, joined by one ring of 4 MiB; no socket, no frame codec.
Throughput runs from the first record that the consumer polls to the last one it has copied out, so the start of the
producer is outside. Both sides sleep at their doorbells, exactly as workers and I/O processes do; nobody spins.
Every run checks the number of frames, their order, and their bytes at a few places.

  frames, a record each   64 bytes, 256 records per publication; copied in, copied out as bytes
  frames, joined          64 bytes, 256 frames joined in one record, as a lane does; copied out one by one
  messages of 1 MiB       in records of 256 KiB, each published; copied in, copied out into one reused buffer
  memcpy                  the floor: one process copies 1 MiB between two buffers that fit the cache just as well
  batch, record           one process plays both sides with nobody asleep: microseconds of CPU that each side pays

What would make it lie: cores shared with other work, a host that moves the processes between cores with other caches,
and comparing digits of two runs. The messages always come from one buffer, so the source stays in the cache.
"""

from __future__ import annotations

import argparse
import os
import select
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Final

from partywire.perf.report import Figure, print_figures, warn_if_busy
from partywire.shm import Bell, Doorbell, RingReader, RingWriter, Segment, probe, register

RING_SIZE: Final = 4 << 20
FRAME_SIZE: Final = 64
BATCH_COUNT: Final = 256
MESSAGE_SIZE: Final = 1 << 20
RECORD_SIZE: Final = 256 << 10

# Both sides give up when nothing moves for so long: the other one died.
STALL_MAX_S: Final = 20.0
RUNS: Final = 5


@dataclass(frozen=True)
class Amounts:
    """How much each measurement moves."""

    frames: int
    messages: int
    batches: int
    runs: int


FULL: Final = Amounts(frames=2_000_000, messages=8_192, batches=20_000, runs=RUNS)
SMOKE: Final = Amounts(frames=20_000, messages=16, batches=200, runs=1)


class Sleeper:
    """Waits at this process's doorbell, never longer than STALL_MAX_S."""

    def __init__(self, doorbell: Doorbell) -> None:
        self._doorbell = doorbell
        self._poller = select.poll()
        self._poller.register(doorbell.fileno(), select.POLLIN)

    def wait_for_bell(self) -> None:
        if not self._poller.poll(STALL_MAX_S * 1000):
            raise SystemExit("the other side of the ring did nothing for too long")
        self._doorbell.drain()

    def wait_for_records(self, reader: RingReader) -> None:
        self._doorbell.arm()
        if reader.is_empty():
            self.wait_for_bell()
        self._doorbell.disarm()


# The producer.


def produce(workload: str, count: int, segment_fd: int, our_fds: tuple[int, int], their_fds: tuple[int, int]) -> None:
    """Main of the producer process."""
    register()
    fence = probe()
    doorbell = Doorbell.from_fds(*our_fds, fence)
    writer = RingWriter(Segment.attach(segment_fd), fence, Bell.from_fds(*their_fds))
    sleeper = Sleeper(doorbell)
    if workload == "frames":
        produce_frames(writer, sleeper, count)
    elif workload == "joined":
        produce_joined(writer, sleeper, count)
    else:
        produce_messages(writer, sleeper, count)
    writer.close()
    doorbell.close()


def frame_of(number: int) -> bytes:
    return number.to_bytes(8, "little") * (FRAME_SIZE // 8)


def write_whole(writer: RingWriter, sleeper: Sleeper, parts: list[bytes], size: int) -> None:
    while not writer.try_write(parts, size, 1):
        if not writer.request_space():
            sleeper.wait_for_bell()


def produce_frames(writer: RingWriter, sleeper: Sleeper, count: int) -> None:
    parts = [[frame_of(number)] for number in range(BATCH_COUNT)]
    try_write = writer.try_write
    for _ in range(count // BATCH_COUNT):
        for part in parts:
            if not try_write(part, FRAME_SIZE, 1):
                write_whole(writer, sleeper, part, FRAME_SIZE)
        writer.publish()


def produce_joined(writer: RingWriter, sleeper: Sleeper, count: int) -> None:
    frames = [frame_of(number) for number in range(BATCH_COUNT)]
    for _ in range(count // BATCH_COUNT):
        parts = []
        for frame in frames:
            parts.append(frame)  # noqa: PERF402 - a lane collects its frames one by one
        write_whole(writer, sleeper, parts, FRAME_SIZE * BATCH_COUNT)
        writer.publish()


def produce_messages(writer: RingWriter, sleeper: Sleeper, count: int) -> None:
    message = memoryview(frame_of(0x0123456789ABCDEF) * (MESSAGE_SIZE // FRAME_SIZE))
    for _ in range(count):
        for start in range(0, MESSAGE_SIZE, RECORD_SIZE):
            piece = message[start : start + RECORD_SIZE]
            while not writer.try_write((piece,), RECORD_SIZE, 1):
                if not writer.request_space():
                    sleeper.wait_for_bell()
            writer.publish()


# The consumer.


def consume_frames(reader: RingReader, sleeper: Sleeper, count: int) -> float:
    """Seconds from the first poll that found something to the last frame copied out."""
    seen = 0
    start = 0.0
    while seen < count:
        records = reader.poll(BATCH_COUNT)
        if not records:
            sleeper.wait_for_records(reader)
            continue
        start = start or time.perf_counter()
        frames = [bytes(record.payload) for record in records]
        reader.release_all()
        check_frame(frames[0], seen)
        seen += len(frames)
    return time.perf_counter() - start


def consume_joined(reader: RingReader, sleeper: Sleeper, count: int) -> float:
    seen = 0
    start = 0.0
    while seen < count:
        records = reader.poll()
        if not records:
            sleeper.wait_for_records(reader)
            continue
        start = start or time.perf_counter()
        for record in records:
            payload = record.payload
            frames = [bytes(payload[at : at + FRAME_SIZE]) for at in range(0, len(payload), FRAME_SIZE)]
            check_frame(frames[-1], seen + len(frames) - 1)
            seen += len(frames)
        reader.release_all()
    return time.perf_counter() - start


def consume_messages(reader: RingReader, sleeper: Sleeper, count: int) -> float:
    message = bytearray(MESSAGE_SIZE)
    view = memoryview(message)
    filled = 0
    seen = 0
    start = 0.0
    while seen < count:
        records = reader.poll()
        if not records:
            sleeper.wait_for_records(reader)
            continue
        start = start or time.perf_counter()
        for record in records:
            size = len(record.payload)
            view[filled : filled + size] = record.payload
            reader.release(1)
            filled += size
            if filled == MESSAGE_SIZE:
                filled = 0
                seen += 1
    elapsed = time.perf_counter() - start
    if message != frame_of(0x0123456789ABCDEF) * (MESSAGE_SIZE // FRAME_SIZE):
        raise SystemExit("a message arrived changed")
    return elapsed


def check_frame(frame: bytes, number: int) -> None:
    if frame != frame_of(number % BATCH_COUNT):
        raise SystemExit(f"frame {number} arrived out of order or changed")


# Measuring.


def measure_pair(workload: str, count: int) -> float:
    """Seconds that `count` frames or messages take through one ring between two processes."""
    fence = probe()
    segment = Segment.create(RING_SIZE)
    ours = Doorbell.create(fence)
    theirs = Doorbell.create(fence)
    fds = (segment.fileno(), *theirs.fds, *ours.fds)
    command = [sys.executable, "-m", "partywire.perf.ring", "--produce", workload, str(count), *map(str, fds)]
    producer = subprocess.Popen(command, pass_fds=fds)
    bell = Bell.from_fds(*(os.dup(fd) for fd in theirs.fds))
    reader = RingReader(segment, fence, bell)
    try:
        consume = {"frames": consume_frames, "joined": consume_joined, "messages": consume_messages}[workload]
        elapsed = consume(reader, Sleeper(ours), count)
        if producer.wait(STALL_MAX_S) != 0:
            raise SystemExit("the producer failed")
    finally:
        producer.kill()
        producer.wait()
        reader.close()
        for end in (bell, ours, theirs):
            end.close()
    return elapsed


def measure_costs(batches: int) -> tuple[float, float, float, float]:
    """Microseconds per batch and per record: writer's batch, reader's batch, writer's record, reader's record."""
    fence = probe()
    segment = Segment.create(RING_SIZE)
    doorbell = Doorbell.create(fence)
    bell = Bell.from_fds(*(os.dup(fd) for fd in doorbell.fds))
    writer = RingWriter(segment, fence, bell)
    reader = RingReader(Segment.attach(os.dup(segment.fileno())), fence, bell)
    parts = [frame_of(1)]
    costs = []
    for records in (1, BATCH_COUNT):
        wrote, read = [], []
        for _ in range(batches * (1 if records > 1 else 10)):
            begin = time.perf_counter_ns()
            for _ in range(records):
                writer.try_write(parts, FRAME_SIZE, 1)
            writer.publish()
            middle = time.perf_counter_ns()
            reader.poll(BATCH_COUNT)
            reader.release_all()
            end = time.perf_counter_ns()
            wrote.append(middle - begin)
            read.append(end - middle)
        costs.append((statistics.median(wrote) / 1000, statistics.median(read) / 1000))
    for closing in (writer, reader, bell, doorbell):
        closing.close()
    (writer_one, reader_one), (writer_many, reader_many) = costs
    writer_record = (writer_many - writer_one) / (BATCH_COUNT - 1)
    reader_record = (reader_many - reader_one) / (BATCH_COUNT - 1)
    return writer_one - writer_record, reader_one - reader_record, writer_record, reader_record


def measure_memcpy(copies: int) -> float:
    source = memoryview(bytes(MESSAGE_SIZE))
    target = memoryview(bytearray(MESSAGE_SIZE))
    target[:] = source
    begin = time.perf_counter()
    for _ in range(copies):
        target[:] = source
    return time.perf_counter() - begin


def measure(amounts: Amounts) -> list[Figure]:
    register()
    frames = amounts.frames // BATCH_COUNT * BATCH_COUNT
    runs = range(amounts.runs)
    size = amounts.messages * MESSAGE_SIZE
    separate = tuple(frames / measure_pair("frames", frames) for _ in runs)
    joined = tuple(frames / measure_pair("joined", frames) for _ in runs)
    messages = tuple(size / measure_pair("messages", amounts.messages) for _ in runs)
    memcpy = tuple(size / measure_memcpy(amounts.messages) for _ in runs)
    costs = [measure_costs(amounts.batches // 10) for _ in runs]
    sides = ("writer, per batch", "reader, per batch", "writer, per record", "reader, per record")
    return [
        Figure("ring: 64 B frames, a record each", "frames/s", separate, target=1e6),
        Figure("ring: 64 B frames, 256 joined", "frames/s", joined, target=1e6),
        Figure("ring: 1 MiB messages, 4 MiB ring", "B/s", messages, target=4e9),
        Figure("floor: memcpy of 1 MiB", "B/s", memcpy),
        *(
            Figure(f"ring: {side}", "us", tuple(cost[number] for cost in costs), lower_is_better=True)
            for number, side in enumerate(sides)
        ),
    ]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m partywire.perf.ring", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object per figure")
    parser.add_argument("--smoke", action="store_true", help="tiny amounts: shows that it runs, measures nothing")
    parser.add_argument("--produce", nargs=7, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.produce:
        workload, *numbers = options.produce
        count, segment, *bells = map(int, numbers)
        produce(workload, count, segment, (bells[0], bells[1]), (bells[2], bells[3]))
        return
    if not options.smoke:
        warn_if_busy()
    print_figures(measure(SMOKE if options.smoke else FULL), json=options.json)


if __name__ == "__main__":
    main()
