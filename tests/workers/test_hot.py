"""The compiled bases of the worker against the plain ones: same results, no leak, no way to crash the process."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywire.shm.compiled import core
from partywire.workers import hot_pure
from tests.workers.harness import Table

pytestmark = pytest.mark.skipif(core is None, reason="the compiled core is not there, or not wanted")

Step = tuple[str, int]
steps: st.SearchStrategy[list[Step]] = st.lists(
    st.tuples(st.sampled_from(["append", "popleft", "clear", "get", "set"]), st.integers(0, 9)), max_size=200
)


@given(steps)
def test_a_queue_is_a_deque(plan: list[Step]) -> None:
    assert core is not None
    queue, model = core.Queue(), deque[Any]()
    for what, number in plan:
        outcomes = []
        for target in (queue, model):
            try:
                if what == "append":
                    outcomes.append(target.append(number))
                elif what == "popleft":
                    outcomes.append(target.popleft())
                elif what == "clear":
                    outcomes.append(target.clear())
                elif what == "get":
                    outcomes.append(target[number])
                else:
                    target[number] = str(number)
                    outcomes.append(None)
            except IndexError:
                outcomes.append(IndexError)
        assert outcomes[0] == outcomes[1]
        assert len(queue) == len(model)
        assert bool(queue) is bool(model)
        assert list(queue) == list(model)


def test_a_queue_takes_part_in_garbage_collection() -> None:
    assert core is not None

    class Thing:
        pass

    queue, thing = core.Queue(), Thing()
    thing.queue = queue  # type: ignore[attr-defined]
    queue.append(thing)
    watch = weakref.ref(thing)
    del queue, thing
    gc.collect()
    assert watch() is None


def test_a_burst_costs_a_queue_no_memory_for_life() -> None:
    assert core is not None
    queue = core.Queue()
    tracemalloc.start()
    try:
        for emptied in (queue.popleft, queue.clear):
            for _ in range(100_000):
                queue.append(None)
            while len(queue):
                emptied()
            assert tracemalloc.get_traced_memory()[0] < 64 * 1024
    finally:
        tracemalloc.stop()
    queue.append("it goes on")
    assert list(queue) == ["it goes on"]


@pytest.mark.parametrize("runner", ["pure", "compiled"])
def test_a_coroutine_may_be_taken_from_its_slot_while_it_runs(runner: str) -> None:
    assert core is not None
    namespace: Any = hot_pure if runner == "pure" else core
    ready = namespace.Queue()
    ended: list[Any] = []

    async def forgets() -> str:
        slot.coroutine = None
        return "the end"

    class Slot(namespace.SlotHot):  # type: ignore[misc]
        pass

    slot = Slot(forgets(), ready)
    ready.append(slot)
    finish = lambda slot, result, failure: ended.append(result)  # noqa: E731
    assert namespace.run_slots(ready, 1, 1, 10**9, 10**9, finish, None) == 1
    assert ended == ["the end"]


@pytest.mark.parametrize("runner", ["pure", "compiled"])
def test_a_pass_tells_of_every_kind_of_end(runner: str) -> None:
    assert core is not None
    namespace: Any = hot_pure if runner == "pure" else core
    ready = namespace.Queue()
    told: list[tuple[str, Any, Any]] = []

    worker = namespace.WorkerHot()
    worker.driving = True
    wait = namespace.WaitHot(worker)

    class Foreign:
        def __await__(self) -> Any:
            yield "something of asyncio"

    async def returns() -> int:
        return 7

    async def fails() -> None:
        raise LookupError("why")

    async def waits() -> str:
        await wait
        return "woken"

    async def awaits_others() -> None:
        await Foreign()

    coroutines = {"returns": returns(), "fails": fails(), "waits": waits(), "foreign": awaits_others()}
    names = {}
    for name, coroutine in coroutines.items():
        slot = namespace.SlotHot(coroutine, ready)
        names[slot] = name
        ready.append(slot)

    def finish(slot: Any, result: Any, error: BaseException | None) -> None:
        told.append((names[slot], result, type(error)))
        slot.is_done = True

    def promote(slot: Any, awaited: Any) -> None:
        told.append((names[slot], "promoted", awaited))

    assert namespace.run_slots(ready, 100, 1, 10**9, 10**9, finish, promote) == 4
    assert told == [
        ("returns", 7, type(None)),
        ("fails", None, LookupError),
        ("foreign", "promoted", "something of asyncio"),
    ]
    assert not ready
    wait.wake()
    wait.wake()  # nobody stands there any more
    assert len(ready) == 1
    assert namespace.run_slots(ready, 100, 1, 10**9, 10**9, finish, promote) == 1
    assert told[-1] == ("waits", "woken", type(None))
    coroutines["foreign"].close()


@pytest.mark.parametrize("runner", ["pure", "compiled"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interruption_ends_the_pass_and_its_coroutine_only(runner: str, error: type[BaseException]) -> None:
    assert core is not None
    namespace: Any = hot_pure if runner == "pure" else core
    ready = namespace.Queue()
    ended: list[Any] = []

    async def interrupted() -> None:
        raise error

    async def other() -> None:
        return None

    slots = [namespace.SlotHot(coroutine, ready) for coroutine in (interrupted(), other())]
    for slot in slots:
        ready.append(slot)
    finish = lambda slot, result, failure: ended.append((slot, failure))  # noqa: E731
    with pytest.raises(error):
        namespace.run_slots(ready, 100, 1, 10**9, 10**9, finish, None)
    assert ended == [(slots[0], None)]
    assert namespace.run_slots(ready, 100, 1, 10**9, 10**9, finish, None) == 1


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_a_pass_keeps_its_limit(limit: int) -> None:
    assert core is not None
    ready = core.Queue()

    async def nothing() -> None:
        return None

    for _ in range(3):
        ready.append(core.SlotHot(nothing(), ready))
    assert core.run_slots(ready, limit, 1, 10**9, 10**9, lambda *_: None, None) == limit
    core.run_slots(ready, 3, 1, 10**9, 10**9, lambda *_: None, None)


def test_hot_frames_need_whole_tables() -> None:
    assert core is not None
    table = bytes(256)
    with pytest.raises(ValueError, match="256"):
        core.set_frame_kinds(b"", table, b"\1" * 256, table, 1, 100)
    with pytest.raises(ValueError, match="0 bytes"):
        core.set_frame_kinds(table, table, table, table, 1, 100)


@pytest.mark.parametrize("name", ["LaneHot", "SessionHot", "SlotHot", "WaitHot", "ReceiverHot"])
def test_half_made_objects_do_no_harm(name: str) -> None:
    """Every field is looked at while NULL: what `__new__` alone gives must not crash anything."""
    assert core is not None
    kind = getattr(core, name)
    made = kind.__new__(kind)
    for attribute in dir(made):
        if not attribute.startswith("__"):
            try:
                value = getattr(made, attribute)
                if callable(value):
                    value()
            except (TypeError, AttributeError, RuntimeError, SystemError):
                pass
    gc.collect()
    del made
    with pytest.raises(TypeError):
        kind()


def test_messages_leave_no_memory_behind() -> None:
    with Table(2) as two:
        [(ours, theirs)] = two.sessions(0)

        async def send(count: int) -> None:
            for _ in range(count):
                await ours.send(1, bytes(100))
                await ours.recv(1)

        async def echo(count: int) -> None:
            for _ in range(count):
                await theirs.send(0, await theirs.recv(0))

        def play(count: int) -> None:
            two.run(send(count), echo(count))

        tracemalloc.start()
        try:
            play(500)
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
            objects = len(gc.get_objects())
            play(3000)
            gc.collect()
            assert len(gc.get_objects()) < objects + 200
            # Two messages and four calls a round: one lost block of any of them would be 50 KiB at least.
            assert tracemalloc.get_traced_memory()[0] < before + 32 * 1024
        finally:
            tracemalloc.stop()
