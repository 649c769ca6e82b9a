"""The start-up probe: which back end it picks, and that it refuses every unsound one."""

from __future__ import annotations

import os
import platform
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from partywire.shm import Segment, UnsoundOrdering, compiled, fence, probe, register
from partywire.shm.counters import WORD_CONSUMER_FENCE, WORD_PRODUCER_FENCE
from tests.shm.implementations import PURE, compiled_core, implementation

if TYPE_CHECKING:
    from collections.abc import Callable

    from partywire.shm import RingReader, RingWriter

on_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="asks for the back end of x86-64")


@pytest.fixture(autouse=True)
def no_compiled_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its back end comes before all others and needs nothing of the machine; the last tests give it back."""
    monkeypatch.setattr(compiled, "core", None)


def pretend_machine(monkeypatch: pytest.MonkeyPatch, machine: str) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine))


def pretend_kernel(monkeypatch: pytest.MonkeyPatch, answer: Callable[[int], int]) -> None:
    monkeypatch.setattr(fence, "membarrier", lambda number: answer)


def all_commands(command: int) -> int:
    return 0b111_1111 if command == fence.COMMAND_QUERY else 0


def refused(command: int) -> int:
    return -1


def test_registering_twice_is_harmless() -> None:
    register()
    register()


def test_the_probe_prefers_membarrier_and_the_waker_pays_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_kernel(monkeypatch, all_commands)
    pretend_machine(monkeypatch, "x86_64")
    found = probe()
    assert found.name == "membarrier"
    assert not found.waker_pays
    assert not found.observer_pays
    found.sleeper()
    found.waker()
    found.observe()


def test_on_arm64_the_observer_of_a_position_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_kernel(monkeypatch, all_commands)
    pretend_machine(monkeypatch, "aarch64")
    found = probe()
    assert found.name == "membarrier"
    assert found.observer_pays


@pytest.mark.parametrize("commands", [0, 1, 2, 4, 0b1001])
def test_x86_without_the_expedited_commands_falls_back_to_sched_yield(
    monkeypatch: pytest.MonkeyPatch, commands: int
) -> None:
    pretend_kernel(monkeypatch, lambda command: commands if command == 0 else 0)
    pretend_machine(monkeypatch, "x86_64")
    found = probe()
    assert found.name == "sched_yield"
    assert found.waker_pays
    found.sleeper()
    found.waker()


@pytest.mark.parametrize("failing", [fence.COMMAND_REGISTER_GLOBAL_EXPEDITED, fence.COMMAND_GLOBAL_EXPEDITED])
def test_a_command_that_the_kernel_names_and_then_refuses_does_not_count(
    monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    pretend_kernel(monkeypatch, lambda command: -1 if command == failing else all_commands(command))
    pretend_machine(monkeypatch, "x86_64")
    assert probe().name == "sched_yield"


def test_arm64_without_membarrier_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_kernel(monkeypatch, refused)
    pretend_machine(monkeypatch, "aarch64")
    with pytest.raises(UnsoundOrdering, match="this aarch64 machine offers no usable membarrier"):
        probe()


def test_an_unknown_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_machine(monkeypatch, "riscv64")
    with pytest.raises(UnsoundOrdering, match="riscv64"):
        probe()
    register()


def test_sched_yield_is_refused_where_it_is_no_barrier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(fence.OVERRIDE_VARIABLE, "sched_yield")
    pretend_machine(monkeypatch, "aarch64")
    with pytest.raises(UnsoundOrdering, match="not sound on aarch64"):
        probe()


@on_x86
@pytest.mark.parametrize("name", ["membarrier", "sched_yield"])
def test_the_override_picks_a_back_end(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(fence.OVERRIDE_VARIABLE, name)
    assert probe().name == name
    assert repr(probe()) == f"Fence({name!r})"


def test_the_override_none_is_a_machine_without_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(fence.OVERRIDE_VARIABLE, "none")
    with pytest.raises(UnsoundOrdering, match="not sound"):
        probe()


def test_an_override_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(fence.OVERRIDE_VARIABLE, "hope")
    with pytest.raises(UnsoundOrdering, match="unknown back end 'hope'"):
        probe()


def test_an_asked_for_membarrier_that_is_not_there_is_refused_and_never_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(fence.OVERRIDE_VARIABLE, "membarrier")
    pretend_kernel(monkeypatch, refused)
    with pytest.raises(UnsoundOrdering):
        probe()


def test_other_interpreters_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "implementation", SimpleNamespace(name="pypy"))
    with pytest.raises(UnsoundOrdering, match="pypy"):
        probe()


def test_a_build_without_the_gil_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    with pytest.raises(UnsoundOrdering, match="free-threaded"):
        probe()


def test_a_barrier_that_stops_working_is_not_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"broken": False}
    pretend_kernel(monkeypatch, lambda command: -1 if answers["broken"] else all_commands(command))
    pretend_machine(monkeypatch, "x86_64")
    found = probe()
    answers["broken"] = True
    with pytest.raises(UnsoundOrdering, match="fails now"):
        found.sleeper()


@on_x86
def test_two_sides_with_different_back_ends_are_refused() -> None:
    membarrier = fence.Fence("membarrier", sleeper=fence.do_nothing)
    yielding = fence.Fence("sched_yield", sleeper=os.sched_yield, waker=os.sched_yield)
    segment = Segment.create(128)
    writer = PURE.writer(segment, membarrier, None)
    with pytest.raises(UnsoundOrdering, match="consumer of a ring uses sched_yield and its other side membarrier"):
        PURE.reader(segment, yielding, None)
    writer.close()


@pytest.mark.parametrize(("word", "end"), [(WORD_CONSUMER_FENCE, PURE.writer), (WORD_PRODUCER_FENCE, PURE.reader)])
def test_an_unknown_back_end_at_the_other_side_is_refused(word: int, end: type[RingWriter | RingReader]) -> None:
    segment = Segment.create(128)
    segment.words[word] = 1 << 60
    with pytest.raises(UnsoundOrdering, match="unknown"):
        end(segment, probe(), None)
    segment.close()


# The back end of the compiled core.


def test_the_compiled_back_end_comes_first_and_asks_nothing_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    core = compiled_core()
    monkeypatch.setattr(compiled, "core", core)
    pretend_kernel(monkeypatch, refused)
    for machine in ("x86_64", "aarch64", "riscv64"):
        pretend_machine(monkeypatch, machine)
        found = probe()
        assert found.name == "compiled"
        assert found.waker_pays
        assert not found.observer_pays
        assert found.sleeper is found.waker is core.fence
        assert found.orders_plain_stores is (machine == "x86_64")


@on_x86
@pytest.mark.parametrize("name", ["compiled", "membarrier", "sched_yield"])
def test_the_override_picks_among_all_where_the_core_is_there(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(compiled, "core", compiled_core())
    monkeypatch.setenv(fence.OVERRIDE_VARIABLE, name)
    assert probe().name == name


def test_the_override_compiled_is_refused_without_the_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(fence.OVERRIDE_VARIABLE, "compiled")
    with pytest.raises(UnsoundOrdering, match="this process has no compiled core"):
        probe()


def test_plain_python_refuses_a_fence_that_does_not_order_its_stores() -> None:
    weak = fence.Fence("compiled", sleeper=fence.do_nothing, waker=fence.do_nothing, orders_plain_stores=False)
    segment = Segment.create(128)
    for end in (PURE.writer, PURE.reader):
        with pytest.raises(UnsoundOrdering, match="plain Python cannot use the fence compiled"):
            end(segment, weak, None)
    segment.close()


def test_the_two_sides_of_a_ring_are_refused_when_only_one_has_the_compiled_back_end() -> None:
    strong = implementation("compiled")
    segment = Segment.create(128)
    atomic = compiled_core().fence
    writer = strong.writer(segment, fence.Fence("compiled", sleeper=atomic, waker=atomic), None)
    with pytest.raises(UnsoundOrdering, match="consumer of a ring uses membarrier and its other side compiled"):
        PURE.reader(segment, fence.Fence("membarrier", sleeper=fence.do_nothing), None)
    writer.close()
