"""Links that come back, processes that are started again, and parties that rejoin: whole parties in one event loop."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from partywire import BatchRunner, BlockingParty, LinkEventKind, Party
from partywire.engine.frames import Descriptor, encode_frame
from partywire.engine.records import DATA, FINISH, STREAM_END, StreamEnd, encode_stream_end
from partywire.workers.errors import PeerAborted, PeerClosed, PeerLost, SessionError
from partywire.workers.local import make_local_parties
from partywire.workers.waiting import run_blocking
from tests.workers.harness import Table as RingTable

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

    from partywire import LinkEvent, PartyConfig, Session

pytestmark = pytest.mark.timeout(60)
DEADLINE_S = 30.0


class Table:
    """Open parties, their configurations and listening sockets, and what was told of their links."""

    def __init__(self, configs: list[PartyConfig], listeners: list[socket.socket]) -> None:
        self.configs = configs
        self.listeners = listeners
        self.parties: list[Party] = []
        self.events: list[list[LinkEvent]] = [[] for _ in configs]

    async def open(self) -> None:
        self.parties = [self._party(index) for index in range(len(self.configs))]
        await asyncio.gather(*(party.open() for party in self.parties))

    def _party(self, index: int) -> Party:
        return Party(self.configs[index], self.listeners[index], on_event=self.events[index].append)

    async def restart(self, index: int) -> None:
        """Open a party again, after it was closed or ended."""
        self.parties[index] = self._party(index)
        await self.parties[index].open()

    def kill(self, index: int, role: str, number: signal.Signals = signal.SIGKILL) -> int:
        pid = self.parties[index].pids[role]
        os.kill(pid, number)
        return pid

    async def all(self, what: Callable[[Party], Awaitable[Any]]) -> list[Any]:
        return list(await asyncio.gather(*(what(party) for party in self.parties)))

    async def sessions(self, count: int = 1) -> list[list[Session]]:
        return await self.all(lambda party: party.make_sessions(count))

    def epoch(self, party: int, peer: int) -> int:
        return self.parties[party].worker.links[peer].epoch

    async def until(self, what: Callable[[], object]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not what():
            assert time.monotonic() < deadline, "the condition never came true"
            await asyncio.sleep(0.005)


def run(count: int, scenario: Callable[[Table], Coroutine[Any, Any, None]], **settings: Any) -> None:
    async def main() -> None:
        with make_local_parties(count, settings.pop("workers", 1)) as local:
            options = {"ring_mib": 1, "connect_s": 20.0, "close_s": 3.0, "heartbeat_s": 0.9, **settings}
            async with seated([replace(config, **options) for config in local.configs], local.listeners) as table:
                await asyncio.wait_for(scenario(table), DEADLINE_S)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


@asynccontextmanager
async def seated(configs: list[PartyConfig], listeners: list[socket.socket]) -> AsyncIterator[Table]:
    table = Table(configs, listeners)
    try:
        await table.open()
        yield table
    finally:
        await asyncio.gather(*(party.close() for party in table.parties))


async def exchange(sessions: list[Session], text: bytes) -> None:
    """Everybody tells everybody, and hears exactly that."""
    for session in sessions:
        await session.broadcast(text + bytes([session.party_index]))
    for session in sessions:
        for other in sessions:
            if other is not session:
                assert await session.recv(other.party_index, timeout=10) == text + bytes([other.party_index])


def failures(sessions: list[list[Session]]) -> list[SessionError | None]:
    return [session.failure for [session] in sessions]


def test_a_killed_io_process_fails_the_sessions_and_the_next_ones_work() -> None:
    async def scenario(table: Table) -> None:
        before = await table.sessions()
        await exchange([session for [session] in before], b"before")
        old = table.kill(0, "link 1")
        await table.until(lambda: all(failures(before)))
        alice, bob, charlie = failures(before)
        assert isinstance(alice, PeerLost | PeerAborted)  # bob may have said so by way of charlie
        assert isinstance(bob, PeerLost | PeerAborted)
        assert isinstance(charlie, PeerAborted)
        after = await table.sessions()
        await exchange([session for [session] in after], b"after")
        assert {session.id for [session] in after} == {1}
        assert table.epoch(0, 1) == table.epoch(1, 0) == 2
        assert table.epoch(0, 2) == table.epoch(1, 2) == 1
        assert table.parties[0].pids["link 1"] != old
        kinds = [event.kind for event in table.events[0] if event.peer == "bob"]
        assert kinds == [LinkEventKind.ACCEPTED, LinkEventKind.CLOSED, LinkEventKind.ACCEPTED]
        assert failures(before) == [alice, bob, charlie]

    run(3, scenario)


@pytest.mark.parametrize(("clean", "count"), [(True, 2), (False, 3)], ids=["goodbye", "killed"])
def test_a_party_that_was_started_anew_rejoins_those_that_ran_on(clean: bool, count: int) -> None:
    """They have been through more rounds than anybody may be ahead in one epoch, and have given ids away."""

    async def scenario(table: Table) -> None:
        for _ in range(35):
            await table.all(Party.barrier)
            await table.sessions(2)
        if clean:
            await table.parties[1].close()
        else:
            table.parties[1]._end()
        await table.until(lambda: not table.parties[0].worker.links[1].is_up)
        with pytest.raises(PeerClosed if clean else PeerLost):
            await table.parties[0].wait_for_links(0.1)
        opening = asyncio.create_task(table.restart(1))
        ran_on = [party for index, party in enumerate(table.parties) if index != 1]
        await asyncio.gather(opening, *(party.wait_for_links(20) for party in ran_on))
        after = await table.sessions()
        assert {session.id for [session] in after} == {70}
        await exchange([session for [session] in after], b"again")
        await table.all(Party.barrier)

    run(count, scenario)


def test_a_step_that_has_begun_waits_for_a_link_and_for_a_party_that_is_started_anew() -> None:
    async def scenario(table: Table) -> None:
        waiting = asyncio.create_task(table.parties[0].barrier())
        await table.until(lambda: table.parties[1]._rounds.book._theirs["alice"])
        table.parties[1]._end()
        await table.restart(1)
        await asyncio.gather(waiting, table.parties[1].barrier())
        waiting = asyncio.create_task(table.parties[0].barrier())
        await table.until(lambda: table.parties[1]._rounds.book._theirs["alice"])
        table.kill(1, "link 0")
        await table.until(lambda: table.epoch(0, 1) == table.epoch(1, 0) == 3)
        assert not waiting.done()
        await asyncio.gather(waiting, table.parties[1].barrier())
        making = asyncio.create_task(table.parties[0].make_sessions(1))
        await table.until(lambda: 2 in table.parties[1]._rounds.book._theirs["alice"])
        table.parties[1]._end()
        await table.restart(1)
        [theirs] = await table.parties[1].make_sessions(1)
        [ours] = await making
        await exchange([ours, theirs], b"hello")

    run(2, scenario)


def test_a_link_that_does_not_come_back_in_time_is_an_error_that_says_why() -> None:
    async def scenario(table: Table) -> None:
        table.parties[1]._end()
        await table.until(lambda: not table.parties[0].worker.links[1].is_up)
        for step in (table.parties[0].barrier(), table.parties[0].make_sessions(1)):
            with pytest.raises(PeerLost, match="it did not come back: bob has not dialled us again"):
                await step

    run(2, scenario, reconnect_s=0.3)


@pytest.mark.parametrize("stopped", [0, 1], ids=["acceptor", "dialler"])
def test_an_io_process_that_was_stopped_for_long_recovers_at_both_ends(stopped: int) -> None:
    async def scenario(table: Table) -> None:
        before = await table.sessions()
        role = f"link {1 - stopped}"
        table.kill(stopped, role, signal.SIGSTOP)
        try:
            for [session] in before:
                await session.broadcast(b"stale")
            await table.until(lambda: failures(before)[1 - stopped])
            await asyncio.sleep(0.3)  # what is dialled meanwhile waits at the gateway
        finally:
            table.kill(stopped, role, signal.SIGCONT)
        await table.until(lambda: all(failures(before)))
        after = await table.sessions()
        await exchange([session for [session] in after], b"fresh")
        assert table.epoch(0, 1) == table.epoch(1, 0) > 1
        assert "silent" in str(before[1 - stopped][0].failure)

    run(2, scenario)


def test_a_moments_stop_loses_nothing_and_a_dialler_may_die_together_with_the_gateway_that_it_dials() -> None:
    async def scenario(table: Table) -> None:
        sessions = [session for [session] in await table.sessions()]
        table.kill(0, "link 1", signal.SIGSTOP)
        await asyncio.sleep(0.3)  # a third of the heartbeat timeout
        table.kill(0, "link 1", signal.SIGCONT)
        await exchange(sessions, b"x")
        assert table.epoch(0, 1) == table.epoch(1, 0) == 1
        table.kill(1, "link 0")
        table.kill(0, "gateway")
        await table.until(lambda: table.epoch(0, 1) == table.epoch(1, 0) == 2)
        await exchange([session for [session] in await table.sessions()], b"x")

    run(2, scenario)


def test_a_worker_that_died_is_replaced_and_the_next_batch_runs_on_it() -> None:
    async def scenario(table: Table) -> None:
        old = table.kill(0, "worker 1")
        await table.until(lambda: table.epoch(0, 1) == table.epoch(1, 0) == 2)
        await table.all(lambda party: party.wait_for_links(20))
        results = await table.all(lambda party: BatchRunner(party, sessions=2).amap(echo_pid, range(8)))
        assert old not in {pid for pid, _ in results[0]}
        assert {pid for pid, _ in results[0]} == {os.getpid(), table.parties[0].pids["worker 1"]}
        assert [pid for _, pid in results[0]] == [pid for pid, _ in results[1]]

    run(2, scenario, workers=2)


async def echo_pid(session: Session, number: int) -> tuple[int, int]:
    await session.broadcast(b"%d %d" % (number, os.getpid()))
    theirs = await session.recv(1 - session.party_index, timeout=20)
    assert theirs.split()[0] == b"%d" % number
    return os.getpid(), int(theirs.split()[1])


def test_ctrl_c_while_a_link_is_being_made_anew_closes_at_once() -> None:
    with make_local_parties(2) as local:
        alice, bob = (
            BlockingParty(replace(config, ring_mib=1, close_s=3.0), listener)
            for config, listener in zip(local.configs, local.listeners, strict=True)
        )

        def open_and_end() -> None:
            bob.open()
            bob.asynchronous._end()

        ending = threading.Thread(target=open_and_end)
        ending.start()
        with alice:
            ending.join()
            run_until(alice, lambda: not alice.worker.links[1].is_up)
            interrupt = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
            interrupt.start()
            with pytest.raises(KeyboardInterrupt):
                alice.barrier()
            interrupt.join()
            began = time.monotonic()
        assert time.monotonic() - began < 1.5


def run_until(party: BlockingParty, what: Callable[[], bool]) -> None:
    assert run_blocking(party.worker, party.worker.until(what, party.worker.clock() + DEADLINE_S))


# One worker, and the rings of two epochs of a link.


def begin_epoch(table: RingTable, epoch: int) -> None:
    """Bob's worker gets the lanes of a new epoch of its link to alice."""
    for end in table._ends[1, 0]:
        end.writer.close()
        end.reader.close()
    table._seat(1, 0, (1, 1), 1 << 20, 2**32 - 1, epoch)


def run_at_bob(table: RingTable, coroutine: Coroutine[Any, Any, Any]) -> list[Any]:
    slot = table.schedulers[1].spawn(coroutine)
    table.settle()
    assert slot.is_done
    return [slot.result if slot.error is None else slot.error]


def test_nothing_of_an_old_epoch_reaches_a_session_of_the_new_one_and_it_is_counted() -> None:
    with RingTable(2) as table:
        worker = table.workers[1]
        worker.expect_sessions()
        table.feed(1, 0, encode_frame(5, Descriptor.BYTES, b"early") * 3)
        table.settle()
        assert worker.counters.parked == 3
        table.cut(1, 0)
        table.settle()
        causes = [worker.links[0].cause]
        begin_epoch(table, 8)
        assert [*causes, worker.links[0].cause] == ["connection reset by peer", ""]
        assert worker.links[0].is_up
        assert (worker.counters.dropped_stale, worker.inbox_size) == (3, 0)
        session = worker.make_session(5)
        table.settle()
        assert not session._mailboxes[0].queue
        worker.expect_sessions_end()


def test_what_came_before_a_goodbye_can_still_be_received_when_the_peer_is_back_already() -> None:
    with RingTable(2) as table:
        [(_, theirs)] = table.sessions(0)
        end = table.end_of(1, 0)
        end.stream += encode_frame(0, Descriptor.BYTES, b"last words")
        end.records.append((STREAM_END, encode_stream_end(StreamEnd(True, ""))))
        while end.stream or end.records:
            table._write(end)  # into the ring, where bob has not looked when the new lanes arrive
        begin_epoch(table, 8)
        [heard] = run_at_bob(table, theirs.recv(0))
        assert heard == b"last words"
        [error] = run_at_bob(table, theirs.recv(0))
        assert isinstance(error, PeerClosed)
        assert error.epoch == 7
        assert table.workers[1].make_session(1).failure is None


def test_a_link_that_comes_back_while_the_party_says_goodbye_is_told_goodbye() -> None:
    with RingTable(2) as table:
        worker = table.workers[1]
        table.cut(1, 0)
        table.settle()
        [is_finished] = run_at_bob(table, worker.finish(worker.clock() + 1))
        assert is_finished
        begin_epoch(table, 8)
        worker.flush()
        kinds = [[record.kind for record in end.reader.poll()] for end in table._ends[1, 0]]
        assert kinds == [[DATA, FINISH], [FINISH]]
        for end in table._ends[1, 0]:
            end.reader.release_all()
