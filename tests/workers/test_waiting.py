"""The asyncio driver, real sleeping and waking, timers and events."""

from __future__ import annotations

import asyncio
import os
import select
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import uvloop

from partywire.workers.errors import PartyFailed, PeerAborted, SessionTimeout
from partywire.workers.waiting import LoopDriver, Wait, run_blocking
from tests.workers.harness import Clock, Table

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from partywire.workers.session import Session

MIB = 1 << 20


@pytest.fixture
def two() -> Iterator[Table]:
    with Table(2) as table:
        yield table


def drive(table: Table, main: Callable[[], Awaitable[Any]], factory: Any = None) -> Any:
    """Run `main` in a loop that drives every worker, with the bytes moved by a task."""

    async def whole() -> Any:
        loop = asyncio.get_running_loop()
        drivers = [LoopDriver(worker, loop) for worker in table.workers]
        for driver in drivers:
            driver.attach()

        async def move() -> None:
            while True:
                table.move()
                await asyncio.sleep(0)

        mover = loop.create_task(move())
        try:
            return await main()
        finally:
            mover.cancel()
            for driver in drivers:
                driver.detach()

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(whole())


@pytest.mark.parametrize("factory", [None, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_sessions_work_in_asyncio(two: Table, factory: Any) -> None:
    made = two.sessions(*range(20))

    async def rounds(session: Session) -> int:
        total = 0
        for value in range(10):
            total += int(await session.exchange(1 - session.party_index, np.array(value)))
        return total

    async def main() -> list[int]:
        return await asyncio.gather(*(rounds(session) for sessions in made for session in sessions))

    assert drive(two, main, factory) == [45] * 40


def test_large_messages_in_both_directions_in_asyncio(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)
    payload = bytes(5 * MIB)

    async def main() -> list[Any]:
        return list(await asyncio.gather(ours.exchange(1, payload), theirs.exchange(0, payload)))

    assert [len(message) for message in drive(two, main)] == [5 * MIB] * 2


def test_a_sender_that_hears_nothing_from_its_peer_goes_on_when_its_ring_drains(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)

    async def send() -> None:
        for _ in range(6):
            await ours.send(1, bytes(MIB))

    async def main() -> list[int]:
        sending = asyncio.create_task(send())
        sizes = [len(await theirs.recv(0)) for _ in range(6)]
        await sending
        return sizes

    assert drive(two, lambda: asyncio.wait_for(main(), 20)) == [MIB] * 6


def test_send_and_receive_of_one_session_may_run_at_once(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)

    async def main() -> list[Any]:
        results = await asyncio.gather(
            ours.send(1, b"a" * MIB), ours.send(1, b"b"), ours.recv(1), theirs.recv(0), theirs.send(0, b"back")
        )
        return [results[2], results[3], await theirs.recv(0)]

    back, first, second = drive(two, main)
    assert (back, len(first), second) == (b"back", MIB, b"b")


def test_cancelling_a_receive_loses_no_message(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)

    async def main() -> Any:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(theirs.recv(0), 0.001)
        out = np.zeros(4, np.uint8)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(theirs.recv(0, out=out), 0.001)
        await ours.send(1, b"kept")
        return await theirs.recv(0)

    assert drive(two, main) == b"kept"


def test_cancelling_a_blocked_send_lets_the_others_go_on(two: Table) -> None:
    [large, small] = two.sessions(0, 1)

    async def main() -> Any:
        two.held.add((0, 1))
        blocked = asyncio.ensure_future(large[0].send(1, bytes(8 * MIB)))
        behind = asyncio.ensure_future(small[0].send(1, bytes(MIB)))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not blocked.done()
        blocked.cancel()
        two.held.clear()
        received = await small[1].recv(0)
        await behind
        return len(received)

    assert drive(two, main) == MIB


def test_a_session_sleeps_while_others_go_on(two: Table) -> None:
    [(ours, theirs), (other, others_peer)] = two.sessions(0, 1)
    began = two.clock.now

    async def nap() -> float:
        await ours.sleep(3)
        return two.clock.now

    slot = two.schedulers[0].spawn(nap())
    two.ok(other.send(1, b"meanwhile"), others_peer.recv(0))
    ended = [slot.is_done]
    for seconds in (2.9, 0.2):
        two.clock.now += seconds
        two.settle()
        ended.append(slot.is_done)
    assert ended == [False, False, True]
    assert slot.result >= began + 3
    two.ok(ours.sleep(0), theirs.sleep(-1))


def test_a_session_sleeps_in_asyncio() -> None:
    with Table(2) as table:
        for worker in table.workers:
            worker.clock = time.monotonic
        [(ours, _)] = table.sessions(0)
        start = time.monotonic()
        drive(table, lambda: ours.sleep(0.02))
        assert time.monotonic() - start >= 0.02


def test_deadlines_fire_in_asyncio(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)
    for worker in two.workers:
        worker.clock = time.monotonic

    async def main() -> None:
        with pytest.raises(SessionTimeout):
            await ours.recv(1, timeout=0.01)
        with pytest.raises(PeerAborted):
            await theirs.recv(0)

    drive(two, main)


def test_a_session_without_a_loop_says_what_to_do(two: Table) -> None:
    [(ours, _)] = two.sessions(0)
    with pytest.raises(RuntimeError, match="async with Party"):
        asyncio.run(ours.recv(1))


def test_one_loop_at_a_time_drives_a_worker(two: Table) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        first = LoopDriver(two.workers[0], loop)
        first.attach()
        with pytest.raises(RuntimeError, match="already"):
            LoopDriver(two.workers[0], loop).attach()
        first.detach()
        first.detach()

    asyncio.run(main())


def test_a_driver_that_left_and_came_back_ends_waits_in_time(two: Table) -> None:
    """A service does that around each of its jobs."""
    [(ours, _)] = two.sessions(0)
    for worker in two.workers:
        worker.clock = time.monotonic

    async def main() -> None:
        driver = two.workers[0].loop_driver
        assert driver is not None
        waiting = asyncio.ensure_future(ours.recv(1, timeout=0.1))
        for _ in range(100):
            await asyncio.sleep(0)
        assert driver._timer is not None
        driver.detach()
        driver.attach()
        with pytest.raises(SessionTimeout):
            await asyncio.wait_for(waiting, 5)

    drive(two, main)


def test_a_blocking_call_inside_a_driven_loop_loses_no_bell(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)

    async def main() -> bytes:
        await asyncio.sleep(0)
        ours.blocking.send(1, b"plain")
        return bytes(await theirs.recv(0))

    assert drive(two, main) == b"plain"


def test_plain_code_cannot_await_asyncio(two: Table) -> None:
    async def naps() -> None:
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="asynchronous form"):
        run_blocking(two.workers[0], naps())


# Really sleeping.


def test_a_sleeping_worker_is_woken_by_its_doorbell() -> None:
    """Each worker blocks in its own thread; a third thread stands for the I/O processes and sleeps on its own bell."""
    with Table(2) as table:
        [(ours, theirs)] = table.sessions(0)
        stop = threading.Event()
        errors: list[BaseException] = []

        def move() -> None:
            while not stop.is_set():
                if not table.move():
                    table.doorbell.arm()
                    if not table.move():
                        poller = select.poll()
                        poller.register(table.doorbell.fileno(), select.POLLIN)
                        poller.poll(50)
                    table.doorbell.disarm()
                    table.doorbell.drain()

        def play(session: Session) -> None:
            try:
                plain = session.blocking
                for number in range(200):
                    assert plain.exchange(1 - session.party_index, b"%d" % number) == b"%d" % number
            except BaseException as error:
                errors.append(error)

        for worker in table.workers:
            worker.clock = time.monotonic
            worker._polling.look_again = lambda: False  # type: ignore[method-assign]
        threads = [threading.Thread(target=play, args=(session,)) for session in (ours, theirs)]
        mover = threading.Thread(target=move)
        for thread in [*threads, mover]:
            thread.start()
        for thread in threads:
            thread.join(60)
        stop.set()
        mover.join(60)
        assert not errors
        assert table.workers[0].counters.sleeps
        assert not table.workers[0].counters.bells_missed


# Timers and events.


def test_a_timer_that_was_moved_fires_once_at_its_last_deadline(two: Table) -> None:
    worker = two.workers[0]
    clock = two.clock
    woken: list[float] = []
    wait = Wait(worker)
    worker.set_timer(wait, clock.now + 1)
    worker.set_timer(wait, clock.now + 3)
    for _ in range(5):
        wait.waker = lambda: woken.append(clock.now)
        clock.now += 1
        worker.service()
    assert woken == [103.0]


def test_an_earlier_deadline_overtakes(two: Table) -> None:
    worker, clock = two.workers[0], two.clock
    woken: list[float] = []
    wait = Wait(worker)
    worker.set_timer(wait, clock.now + 5)
    worker.set_timer(wait, clock.now + 1)
    for _ in range(7):
        wait.waker = lambda: woken.append(clock.now)
        clock.now += 1
        worker.service()
        if woken:
            wait.deadline = float("inf")
    assert woken == [101.0]


def test_until_ends_with_its_condition_or_its_deadline(two: Table) -> None:
    worker = two.workers[0]
    state = {"ready": False}
    slot = two.schedulers[0].spawn(worker.until(lambda: state["ready"]))
    late = two.schedulers[0].spawn(worker.until(lambda: False, two.clock.now + 2))
    two.settle()
    assert not slot.is_done
    state["ready"] = True
    worker.notify()
    two.clock.now += 3
    two.settle()
    assert (slot.result, late.result) == (True, False)


def test_until_raises_when_the_party_fails(two: Table) -> None:
    worker = two.workers[0]
    slot = two.schedulers[0].spawn(worker.until(lambda: False))
    two.settle()
    worker.fail("its supervisor is gone")
    two.settle()
    assert isinstance(slot.error, PartyFailed)


def test_watched_descriptors_call_back(two: Table) -> None:
    worker = two.workers[0]
    reader, writer = os.pipe()
    try:
        seen: list[bytes] = []
        worker.watch(reader, lambda: seen.append(os.read(reader, 10)))
        os.write(writer, b"x")
        worker.clock = Clock()
        worker.sleep()
        assert seen == [b"x"]
        worker.unwatch(reader)
        worker.unwatch(reader)
    finally:
        os.close(reader)
        os.close(writer)


@pytest.fixture
def pipes() -> Iterator[list[tuple[int, int]]]:
    made = [os.pipe() for _ in range(2)]
    try:
        yield made
    finally:
        for fd in {fd for pipe in made for fd in pipe}:
            os.close(fd)


def test_a_descriptor_that_is_watched_again_calls_back_who_came_last(two: Table, pipes: list[tuple[int, int]]) -> None:
    worker = two.workers[0]
    (reader, writer), _ = pipes
    seen: list[str] = []
    worker.watch(reader, lambda: seen.append("first"))
    worker.watch(reader, lambda: seen.append("second"))
    os.write(writer, b"x")
    worker.sleep()
    assert seen == ["second"]


def test_a_descriptor_that_was_closed_is_no_longer_watched(two: Table, pipes: list[tuple[int, int]]) -> None:
    worker = two.workers[0]
    (reader, _), (other, writer) = pipes
    seen: list[str] = []
    worker.watch(reader, lambda: seen.append("closed"))
    os.dup2(other, reader)  # closes it, and gives its number to another one
    worker.unwatch(reader)
    os.write(writer, b"x")
    worker.watch(reader, lambda: seen.append("new"))
    worker.sleep()
    assert seen == ["new"]


def test_what_cannot_be_watched_leaves_nothing_behind(two: Table) -> None:
    worker = two.workers[0]
    with open(os.devnull, "rb") as file:
        with pytest.raises(PermissionError):
            worker.watch(file.fileno(), lambda: None)
        assert file.fileno() not in worker.descriptors()
        worker.unwatch(file.fileno())


def test_a_callback_that_closes_the_party_is_the_last(two: Table, pipes: list[tuple[int, int]]) -> None:
    worker = two.workers[0]
    seen: list[int] = []

    def close() -> None:
        seen.append(1)
        worker.close()

    for reader, writer in pipes:
        worker.watch(reader, close)
        os.write(writer, b"x")
    worker.sleep()
    assert seen == [1]
    with pytest.raises(PartyFailed, match="closed"):
        worker.watch(pipes[0][0], lambda: None)
    worker.unwatch(pipes[0][0])
