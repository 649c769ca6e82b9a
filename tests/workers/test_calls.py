"""A call of Session.send or recv is a coroutine, whichever core made it: nothing happens before it is awaited, it is
awaited once, and it can be thrown into and closed at any point without losing a message."""

from __future__ import annotations

import asyncio
import collections.abc
import gc
import inspect
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from partywire.workers.errors import UnknownPeer
from partywire.workers.hot import IS_COMPILED
from partywire.workers.waiting import LoopDriver, Wait
from tests.workers.harness import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from partywire.workers.session import Session

CALLS = ("send", "send_next", "send_prev", "recv", "recv_next", "recv_prev")


@pytest.fixture
def two() -> Iterator[Table]:
    with Table(2) as table:
        yield table


@pytest.fixture
def ours(two: Table) -> Session:
    [(session, _)] = two.sessions(0)
    return session


def call(session: Session, name: str) -> Any:
    arguments: dict[str, tuple[object, ...]] = {
        "send": (1, b"x"), "send_next": (b"x",), "send_prev": (b"x",), "recv": (1,), "recv_next": (), "recv_prev": ()
    }  # fmt: skip
    return getattr(session, name)(*arguments[name])


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_a_coroutine(ours: Session, name: str) -> None:
    made = call(ours, name)
    assert isinstance(made, collections.abc.Coroutine)
    assert inspect.isawaitable(made)
    assert asyncio.iscoroutine(made)
    made.close()


def test_nothing_is_sent_before_the_call_is_awaited(two: Table, ours: Session) -> None:
    made = ours.send(1, b"never")
    made.close()
    two.ok(ours.send(1, b"first"))
    [theirs] = two.workers[1].table.live.values()
    assert two.ok(theirs.recv(0)) == [b"first"]


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_is_never_awaited_is_complained_of(ours: Session, name: str) -> None:
    with pytest.warns(RuntimeWarning, match="was never awaited"):
        call(ours, name)


@pytest.mark.parametrize("name", CALLS)
def test_a_closed_call_is_not(ours: Session, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call(ours, name).close()
        gc.collect()


def test_a_call_is_awaited_once(two: Table, ours: Session) -> None:
    made = ours.send(1, b"x")
    two.ok(made)
    with pytest.raises(RuntimeError, match="already awaited"):
        made.send(None)


@pytest.mark.parametrize(
    ("arguments", "keywords"),
    [
        ((), {}),
        ((1,), {}),
        ((1, b"x", 3.0), {}),
        ((1, b"x"), {"out": None}),
        ((1, b"x"), {"value": b"y"}),
        ((1,), {"valeu": b"y"}),
    ],
)
def test_wrong_arguments_of_send_are_refused_at_the_call(
    ours: Session, arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> None:
    with pytest.raises(TypeError):
        ours.send(*arguments, **keywords).close()


@pytest.mark.parametrize(("arguments", "keywords"), [((), {}), ((1, 2), {}), ((1,), {"value": b"x"})])
def test_wrong_arguments_of_recv_are_refused_at_the_call(
    ours: Session, arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> None:
    with pytest.raises(TypeError):
        ours.recv(*arguments, **keywords).close()


def test_arguments_may_be_named(two: Table, ours: Session) -> None:
    [theirs] = two.workers[1].table.live.values()
    two.ok(ours.send(value=b"by name", peer="bob", timeout=1.0))
    assert two.ok(theirs.recv(peer="alice", out=None, timeout=None)) == [b"by name"]
    two.ok(ours.send_next(value=b"next", timeout=None))
    assert two.ok(theirs.recv_prev(timeout=2)) == [b"next"]


@pytest.mark.parametrize("peer", ["nobody", 0, 9, None, [], 1.5])
def test_an_unknown_peer_is_told_when_awaited(two: Table, ours: Session, peer: Any) -> None:
    for name, arguments in (("send", (peer, b"x")), ("recv", (peer,))):
        with pytest.raises(UnknownPeer, match="bob"):
            two.ok(getattr(ours, name)(*arguments))


class Stop(Exception):
    pass


def step(two: Table, made: Any) -> Any:
    """Resume a call as a native driver does."""
    worker = two.workers[0]
    worker.driving = True
    try:
        return made.send(None)
    finally:
        worker.driving = False


def test_throwing_into_a_waiting_receive_loses_no_message(two: Table, ours: Session) -> None:
    [theirs] = two.workers[1].table.live.values()
    made = ours.recv(1)
    assert isinstance(step(two, made), Wait)
    two.ok(theirs.send(0, b"kept"))
    two.settle()
    with pytest.raises(Stop):
        made.throw(Stop())
    assert two.ok(ours.recv(1)) == [b"kept"]


def test_closing_a_waiting_receive_loses_no_message(two: Table, ours: Session) -> None:
    [theirs] = two.workers[1].table.live.values()
    made = ours.recv(1)
    assert isinstance(step(two, made), Wait)
    made.close()
    two.ok(theirs.send(0, b"kept"))
    two.settle()
    assert two.ok(ours.recv(1)) == [b"kept"]


@pytest.mark.parametrize("error", [Stop, Stop("why")])
def test_what_is_thrown_before_the_first_step_comes_out(ours: Session, error: Any) -> None:
    made = ours.recv(1)
    with pytest.raises(Stop):
        made.throw(error)
    with pytest.raises(RuntimeError, match="already awaited"):
        made.send(None)


def test_a_wrong_throw_is_refused(ours: Session) -> None:
    made = ours.recv(1)
    with pytest.raises(TypeError):
        made.throw("no exception")  # type: ignore[call-overload]
    made.close()


def test_throwing_into_a_receive_with_a_timeout_reaches_the_coroutine(two: Table, ours: Session) -> None:
    made = ours.recv(1, timeout=5.0)
    assert isinstance(step(two, made), Wait)
    with pytest.raises(Stop):
        made.throw(Stop())
    assert ours.failure is None
    assert two.workers[0].next_deadline() > 0


def test_a_receive_resumed_in_vain_waits_on(two: Table, ours: Session) -> None:
    [theirs] = two.workers[1].table.live.values()
    made = ours.recv(1)
    wait = step(two, made)
    assert step(two, made) is wait
    two.ok(theirs.send(0, b"now"))
    two.settle()
    with pytest.raises(StopIteration) as stopped:
        step(two, made)
    assert stopped.value.value == b"now"


@pytest.mark.parametrize("timeout", [None, 5.0], ids=["compiled", "delegated"])
def test_a_second_await_is_refused_and_the_first_goes_on(two: Table, ours: Session, timeout: float | None) -> None:
    [theirs] = two.workers[1].table.live.values()
    made = ours.recv(1, timeout=timeout)

    async def awaits() -> Any:
        return await made

    first, second = awaits(), awaits()
    assert isinstance(step(two, first), Wait)
    with pytest.raises(RuntimeError, match="being awaited already"):
        step(two, second)
    two.ok(theirs.send(0, b"for the first"))
    two.settle()
    with pytest.raises(StopIteration) as stopped:
        step(two, first)
    assert stopped.value.value == b"for the first"
    with pytest.raises(RuntimeError, match="already awaited"):
        step(two, awaits())


def test_throwing_into_a_finished_call_is_refused(two: Table, ours: Session) -> None:
    made = ours.send(1, b"x")
    two.ok(made)
    with pytest.raises(RuntimeError, match="already awaited"):
        made.throw(Stop())


def test_a_call_that_is_resumed_from_inside_itself_goes_on(two: Table, ours: Session) -> None:
    made: Any = None
    raised: list[str] = []

    class Peer:
        """Hashed by the Python half of the call."""

        def __hash__(self) -> int:
            if inspect.currentframe().f_back.f_code.co_name in ("_send", "_recv"):  # type: ignore[union-attr]
                for method, arguments in ((made.send, (None,)), (made.throw, (Stop(),)), (made.close, ())):
                    try:
                        method(*arguments)
                    except ValueError as error:
                        raised.append(str(error))
            return hash(1)

        def __eq__(self, other: object) -> bool:
            return other == 1

    made = ours.send(Peer(), bytearray(b"whole"))  # type: ignore[arg-type]
    two.ok(made)
    assert raised == ["coroutine already executing"] * 3
    [theirs] = two.workers[1].table.live.values()
    assert two.ok(_nothing(), theirs.recv(0))[1] == b"whole"


async def _nothing() -> None:
    pass


@pytest.mark.parametrize("name", CALLS)
def test_a_call_has_the_name_of_what_was_called(ours: Session, name: str) -> None:
    made = call(ours, name)
    kind = name[:4]
    assert made.__name__.removeprefix("_") == kind
    assert made.__qualname__.replace("._", ".") == f"Session.{kind}"
    assert not made.cr_running
    made.close()
    assert made.cr_await is None
    assert made.cr_frame is None


def test_a_task_shows_the_call_that_it_waits_in(two: Table, ours: Session) -> None:
    [theirs] = two.workers[1].table.live.values()

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        loop.set_debug(True)
        driver = LoopDriver(two.workers[0], loop)
        driver.attach()
        try:
            task = loop.create_task(ours.recv(1))
            assert "recv" in repr(task)
            await asyncio.sleep(0)
            assert "session.py" in repr(task)
            [frame] = task.get_stack()
            assert frame.f_code.co_name == "_recv"
            await theirs.send(0, b"the end")
            two.workers[1].flush()
            two.move()
            two.move()
            return await task
        finally:
            driver.detach()

    assert asyncio.run(main()) == b"the end"


@pytest.mark.skipif(not IS_COMPILED, reason="the compiled core is not there, or not wanted")
def test_the_compiled_calls_are_in_use(ours: Session) -> None:
    made = ours.recv(1)
    assert type(made).__name__ == "Operation"
    made.close()
