"""Ctrl-C amid the moving of bytes by a party of one process: it comes right behind; nobody else finds our handler."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from partywire import BatchRunner, BlockingParty, Party
from partywire.engine.connection_pump import ConnectionPump
from partywire.engine.in_process.loop import LinkLoop
from partywire.engine.in_process.multiplexer import InProcessMultiplexer
from partywire.workers import held_signals
from partywire.workers.errors import JobFailed, PeerClosed
from partywire.workers.held_signals import HeldSignals, signals_here
from partywire.workers.in_process import InProcessWorker
from tests.workers.test_in_process import DEADLINE_S, configured, meet

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from partywire import PartyConfig, Session
    from partywire.workers.blocking_session import BlockingSession
    from partywire.workers.worker import Worker

LARGE = bytes(range(256)) * 300
NEW_LOOPS = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])


class Stopped(BaseException):
    """What a program's own handler raises."""


def stop(number: int, _frame: object) -> None:
    raise Stopped(number)


@contextmanager
def handled_by(number: int, handler: signal.Handlers | Callable[[int, object], object]) -> Iterator[None]:
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def own_handlers() -> bool:
    """Whether Ctrl-C is the program's."""
    return signal.getsignal(signal.SIGINT) is signal.default_int_handler


@contextmanager
def beside(
    play: Callable[[PartyConfig, socket.socket], object], config: PartyConfig, listener: socket.socket
) -> Iterator[None]:
    """The other party plays in a thread, where no signal is handled, to its end."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            play(config, listener)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield
    thread.join(2 * DEADLINE_S)
    assert not thread.is_alive()
    assert failures == []


def echo_to_the_end(config: PartyConfig, listener: socket.socket) -> None:
    """Answer until the other party says goodbye."""
    with BlockingParty(config, listener) as party:
        (session,) = party.make_sessions(1)
        try:
            while True:
                session.send("a", session.recv("a"))
        except PeerClosed:
            pass


def raising(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, *numbers: int) -> list[int]:
    """Have signals come inside a method, before its work, of which then one half is done and the other one is not. They
    do once the list that this returns has something in it: in the main thread, and once for each entry."""
    planted: list[int] = []
    really = getattr(owner, name)

    def interrupted(self: object, *args: object) -> object:
        if planted and threading.current_thread() is threading.main_thread():
            planted.pop()
            for number in numbers:
                signal.raise_signal(number)
        return really(self, *args)

    monkeypatch.setattr(owner, name, interrupted)
    return planted


PLACES = [(ConnectionPump, "receive"), (InProcessMultiplexer, "serve"), (LinkLoop, "turn")]


@pytest.mark.parametrize(("owner", "name"), PLACES, ids=[name for _, name in PLACES])
def test_ctrl_c_amid_the_moving_of_bytes_comes_behind_it_and_the_goodbye_is_said(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> None:
    monkeypatch.setattr(ConnectionPump, "direct_fd", -1)  # else nothing is in a ring
    planted = raising(monkeypatch, owner, name, signal.SIGINT)
    with configured("a", "b") as (ours, theirs), beside(echo_to_the_end, *theirs), BlockingParty(*ours) as party:
        (session,) = party.make_sessions(1)
        (link,) = party.worker.links.values()
        epoch = link.epoch
        planted.append(1)
        make_due(party.worker)
        with pytest.raises(KeyboardInterrupt):
            exchange(session)
        assert own_handlers()
        assert (link.is_up, link.cause, link.epoch) == (True, "", epoch)


def make_due(worker: Worker) -> None:
    """Have the next pass turn the links."""
    assert isinstance(worker, InProcessWorker)
    assert worker._io is not None
    worker._io.loop.call_soon(int)


def exchange(session: BlockingSession) -> None:
    for body in [b"small", LARGE] * 10:
        session.send("b", body)
        assert session.recv("b") == body


def test_a_message_whose_receiver_was_interrupted_is_there_for_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    planted = raising(monkeypatch, ConnectionPump, "receive", signal.SIGINT)
    with configured("a", "b") as (ours, theirs), beside(echo_to_the_end, *theirs), BlockingParty(*ours) as party:
        (session,) = party.make_sessions(1)
        for body in (b"first", LARGE, b"last"):
            planted.append(1)
            with pytest.raises(KeyboardInterrupt):
                echo(session, body)
            assert session.recv("b") == body


def echo(session: BlockingSession, body: bytes) -> None:
    """Without the compiled core `send` takes in what comes meanwhile."""
    session.send("b", body)
    session.recv("b")


def test_a_batch_that_was_interrupted_amid_bytes_leaves_the_links_to_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    planted = raising(monkeypatch, ConnectionPump, "receive", signal.SIGINT)

    async def job(session: Session, value: bytes) -> object:
        if session.party_index == 0:
            await session.send("b", value)
            planted.append(1)
            return await session.recv("b")
        await session.send("a", await session.recv("a"))
        return await session.recv("a")

    def answer_all(config: PartyConfig, listener: socket.socket) -> None:
        with BlockingParty(config, listener) as party:
            with pytest.raises(JobFailed, match="interrupted"):
                BatchRunner(party, sessions=1, retries=0).map(job, [b"x"])
            (session,) = party.make_sessions(1)
            assert session.recv("a") == b"sure"

    with configured("a", "b") as (ours, theirs), beside(answer_all, *theirs), BlockingParty(*ours) as party:
        with pytest.raises(KeyboardInterrupt):
            BatchRunner(party, sessions=1, retries=0).map(job, [b"x"])
        assert own_handlers()
        (session,) = party.make_sessions(1)
        session.send("b", b"sure")


@NEW_LOOPS
@pytest.mark.parametrize("name", ["receive", "turn"])
def test_in_a_loop_without_a_runner_it_comes_behind_as_well(
    monkeypatch: pytest.MonkeyPatch, new_loop: Callable[[], asyncio.AbstractEventLoop], name: str
) -> None:
    planted = raising(monkeypatch, LinkLoop if name == "turn" else ConnectionPump, name, signal.SIGINT)
    loop = new_loop()

    async def play(party: Party) -> None:
        (session,) = await party.make_sessions(1)
        planted.append(1)
        make_due(party.worker)
        for _ in range(20):
            await session.send("b", LARGE)
            assert await session.recv("b") == LARGE
            assert own_handlers()

    with configured("a", "b") as (ours, theirs), beside(echo_to_the_end, *theirs):
        party = Party(*ours)
        loop.run_until_complete(party.open())
        try:
            (link,) = party.worker.links.values()
            epoch = link.epoch
            task = loop.create_task(play(party))
            with pytest.raises(KeyboardInterrupt):
                loop.run_until_complete(task)
            assert own_handlers()
            assert (link.is_up, link.cause, link.epoch) == (True, "", epoch)
            task.cancel()
            loop.run_until_complete(asyncio.wait([task]))
        finally:
            loop.run_until_complete(party.close())
            loop.close()


# Runners of asyncio.


def cancelled_by_ctrl_c() -> None:
    """Ctrl-C cancels the task of `asyncio.run`, wherever it stands, and comes out behind its end."""
    seen: list[BaseException] = []

    async def wait() -> None:
        try:
            asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)
            await asyncio.sleep(DEADLINE_S)
        except BaseException as error:
            seen.append(error)
            raise

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(wait())
    assert [type(error) for error in seen] == [asyncio.CancelledError]
    assert own_handlers()


def test_ctrl_c_of_asyncio_run_is_whole_beside_an_open_party() -> None:
    with configured("a", "b") as (ours, theirs), beside(echo_to_the_end, *theirs), BlockingParty(*ours) as party:
        cancelled_by_ctrl_c()
        (session,) = party.make_sessions(1)
        for body in (b"small", LARGE):
            session.send("b", body)
            assert session.recv("b") == body
            cancelled_by_ctrl_c()
    cancelled_by_ctrl_c()


@NEW_LOOPS
def test_ctrl_c_of_a_runner_cancels_its_task_amid_the_moving_of_bytes_too(
    monkeypatch: pytest.MonkeyPatch, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    planted = raising(monkeypatch, ConnectionPump, "receive", signal.SIGINT)
    seen: list[object] = []

    async def play(config: PartyConfig, listener: socket.socket) -> None:
        async with Party(config, listener) as party:
            (session,) = await party.make_sessions(1)
            planted.append(1)
            try:
                while True:
                    await session.send("b", LARGE)
                    assert await session.recv("b") == LARGE
            except asyncio.CancelledError:
                seen.append([link.is_up for link in party.worker.links.values()])
                raise

    with (
        configured("a", "b") as (ours, theirs),
        beside(echo_to_the_end, *theirs),
        asyncio.Runner(loop_factory=new_loop) as runner,
    ):
        with pytest.raises(KeyboardInterrupt):
            runner.run(play(*ours))
        assert own_handlers()
    assert seen == [[True]]


def test_a_party_may_be_opened_used_and_closed_in_different_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    planted = raising(monkeypatch, ConnectionPump, "receive", signal.SIGINT)

    async def use(party: Party, *, is_interrupted: bool) -> None:
        (session,) = sessions or await party.make_sessions(1)
        sessions[:] = [session]
        await session.send("b", LARGE)
        planted.extend([1] * is_interrupted)
        assert await session.recv("b") == LARGE

    sessions: list[Session] = []
    with configured("a", "b") as (ours, theirs), beside(echo_to_the_end, *theirs), asyncio.Runner() as runner:
        party = Party(*ours)
        runner.run(party.open())
        assert own_handlers()
        runner.run(use(party, is_interrupted=False))
        assert own_handlers()
        with pytest.raises(KeyboardInterrupt):
            runner.run(use(party, is_interrupted=True))
        assert own_handlers()
        (link,) = party.worker.links.values()
        assert link.is_up
        runner.run(party.close())
        assert own_handlers()


def test_what_a_loop_was_told_of_a_signal_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    planted = raising(monkeypatch, ConnectionPump, "receive", signal.SIGTERM)

    async def play(config: PartyConfig, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        told = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, told.set)
        handler = signal.getsignal(signal.SIGTERM)
        try:
            async with asyncio.timeout(DEADLINE_S), Party(config, listener) as party:
                (session,) = await party.make_sessions(1)
                planted.append(1)
                await session.send("b", b"x")
                assert await session.recv("b") == b"x"
                await told.wait()
                assert signal.getsignal(signal.SIGTERM) is handler
        finally:
            loop.remove_signal_handler(signal.SIGTERM)

    with configured("a", "b") as (ours, theirs), beside(echo_to_the_end, *theirs):
        asyncio.run(play(*ours))


# Whose handler is there, and when.


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_what_is_no_function_stays(monkeypatch: pytest.MonkeyPatch, handler: signal.Handlers) -> None:
    found: list[object] = []
    really = ConnectionPump.receive

    def look(self: ConnectionPump) -> None:
        if threading.current_thread() is threading.main_thread():
            found.append(signal.getsignal(signal.SIGTERM))
        really(self)

    monkeypatch.setattr(ConnectionPump, "receive", look)
    with (
        handled_by(signal.SIGTERM, handler),
        configured("a", "b") as (ours, theirs),
        beside(meet, *theirs),
        BlockingParty(*ours) as party,
    ):
        party.barrier()
        assert signal.getsignal(signal.SIGTERM) is handler
    assert set(found) == {handler}


def test_a_program_s_own_handlers_are_called_once_each_and_both(monkeypatch: pytest.MonkeyPatch) -> None:
    planted = raising(
        monkeypatch, ConnectionPump, "receive", signal.SIGINT, signal.SIGTERM, signal.SIGINT, signal.SIGTERM
    )
    calls: list[int] = []

    def note_and_stop(number: int, frame: object) -> None:
        assert frame is not None
        calls.append(number)
        raise Stopped(number)

    with (
        handled_by(signal.SIGINT, note_and_stop),
        handled_by(signal.SIGTERM, note_and_stop),
        configured("a", "b") as (ours, theirs),
        beside(echo_to_the_end, *theirs),
        BlockingParty(*ours) as party,
    ):
        (session,) = party.make_sessions(1)
        planted.append(1)
        with pytest.raises(Stopped) as raised:
            echo(session, b"x")
        assert isinstance(raised.value.__context__, Stopped)
        assert sorted(calls) == [signal.SIGINT, signal.SIGTERM]
        assert session.recv("b") == b"x"
        assert signal.getsignal(signal.SIGINT) is signal.getsignal(signal.SIGTERM) is note_and_stop


def test_a_handler_that_a_job_installs_stays_and_is_called_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def job(session: BlockingSession, value: bytes) -> object:
        session.exchange(1 - session.party_index, value)
        if session.party_index == 1:
            return True
        if value == b"first":
            before.append(signal.signal(signal.SIGINT, stop))
        return signal.getsignal(signal.SIGINT) is stop

    def play(config: PartyConfig, listener: socket.socket) -> None:
        with BlockingParty(config, listener) as party:
            assert BatchRunner(party, sessions=1).map(job, [b"first", b"second"]) == [True] * 2
            assert BatchRunner(party, sessions=1).map(job, [b"third"]) == [True]

    before: list[Any] = []
    with configured("a", "b") as (ours, theirs), beside(play, *theirs), BlockingParty(*ours) as party:
        try:
            assert BatchRunner(party, sessions=1).map(job, [b"first", b"second"]) == [True] * 2
            assert signal.getsignal(signal.SIGINT) is stop
            with pytest.raises(Stopped):
                signal.raise_signal(signal.SIGINT)
            signal.signal(signal.SIGINT, before[0])  # ours, kept and put back behind the batch
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            assert BatchRunner(party, sessions=1).map(job, [b"third"]) == [False]
            assert own_handlers()  # so it is known again
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def test_a_call_inside_a_batch_of_another_party_gives_nothing_back() -> None:
    """Two parties in one thread: the outer one's batch goes on, and its handler stays, when the inner call returns."""
    held: list[bool] = []

    with configured("a", "b") as pairs, configured("a", "b") as others:

        def job(session: BlockingSession, value: int) -> int:
            if session.party_index == 0:
                inner.barrier()
                held.append(not own_handlers())
            return value

        with beside(partial(play_batch, job), *pairs[1]), beside(meet, *others[1]):
            with BlockingParty(*others[0]) as inner, BlockingParty(*pairs[0]) as party:
                assert BatchRunner(party, sessions=1).map(job, [1]) == [1]
            assert own_handlers()
    assert held == [True]


def play_batch(job: Callable[[BlockingSession, int], int], config: PartyConfig, listener: socket.socket) -> None:
    with BlockingParty(config, listener) as party:
        BatchRunner(party, sessions=1).map(job, [1])


def test_parties_of_other_threads_leave_handlers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[bool] = []
    really = ConnectionPump.receive

    def look(self: ConnectionPump) -> None:
        found.append(own_handlers())
        really(self)

    monkeypatch.setattr(ConnectionPump, "receive", look)
    with configured("a", "b") as (ours, theirs), beside(meet, *ours), beside(meet, *theirs):
        pass
    assert found
    assert all(found)


@pytest.mark.parametrize("is_main_thread", [True, False])
def test_a_fork_begins_with_the_program_s_handlers_and_no_step(is_main_thread: bool) -> None:
    """Made inside a batch; or by another thread, when this one may stand anywhere."""

    def fork() -> None:
        if (pid := os.fork()) == 0:
            try:
                here = signals_here()
                is_new = (here.depth, here._owners, here._is_main_thread) == (0, set(), True)
                os._exit(0 if own_handlers() and is_new else 1)
            finally:
                os._exit(2)
        found.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    def job(session: BlockingSession, value: int) -> int:
        if session.party_index == 1:
            return value
        assert not own_handlers()
        if is_main_thread:
            fork()
        else:
            held = signals_here()
            held.depth += 1
            thread = threading.Thread(target=fork)
            thread.start()
            thread.join(DEADLINE_S)
            held.depth -= 1
        return value

    found: list[int] = []
    with configured("a", "b") as (ours, theirs), beside(partial(play_batch, job), *theirs):
        play_batch(job, *ours)
    assert found == [0]


@pytest.mark.parametrize("number", held_signals.NUMBERS)
def test_a_signal_that_comes_as_handlers_change_loses_none_of_them(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Python calls handlers of what has come before it takes another one."""
    really = held_signals._set_handler
    planted: list[int] = []

    def set_handler(changed: int, handler: object) -> object:
        if planted and planted.pop():
            signal.raise_signal(number)
        return really(changed, handler)

    monkeypatch.setattr(held_signals, "_set_handler", set_handler)
    with handled_by(signal.SIGINT, stop), handled_by(signal.SIGTERM, stop):
        for at in range(4):
            held = HeldSignals(is_main_thread=True)
            planted[:] = [1, *[0] * at]
            with pytest.raises(Stopped):
                take_and_let_go(held)
            assert signal.getsignal(signal.SIGINT) is signal.getsignal(signal.SIGTERM) is stop


def take_and_let_go(held: HeldSignals) -> None:
    try:
        held.take(held)
    finally:
        held.depth += 1
        try:
            held.let_go(held)
        finally:
            held.depth -= 1
            held.deliver()


def test_an_error_of_a_step_is_the_context_of_what_came_amid_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: InProcessWorker, _fd: int) -> None:
        signal.raise_signal(signal.SIGINT)
        raise ZeroDivisionError

    with configured("a", "b") as (ours, theirs), beside(echo_to_the_end, *theirs), BlockingParty(*ours) as party:
        party.make_sessions(1)
        monkeypatch.setattr(InProcessWorker, "_answer", fail)
        with pytest.raises(KeyboardInterrupt) as raised:
            party.worker.take_event(-1)
        assert isinstance(raised.value.__context__, ZeroDivisionError)
        monkeypatch.undo()
        assert own_handlers()
