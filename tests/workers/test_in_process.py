"""Parties whose links live in their own process: several of them in one event loop, in threads, and beside a family."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import socket
import subprocess
import sys
import threading
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import uvloop

from partywire import BatchRunner, BlockingParty, Party, PartyConfig
from partywire.engine.connection_pump import ConnectionPump
from partywire.engine.frames import encode_goodbye
from partywire.engine.in_process.links import InProcessLinks
from partywire.engine.in_process.loop import LinkLoop
from partywire.engine.in_process.multiplexer import InProcessMultiplexer
from partywire.engine.polling import Polling
from partywire.engine.tcp import TcpStream
from partywire.workers.config import parse_config, write_config
from partywire.workers.errors import AddressUnavailable, ConfigError, PartyFailed, PeerClosed, PeerLost, SessionError
from partywire.workers.hot import IS_COMPILED
from partywire.workers.in_process import AVERAGED_MIN, LARGE_SIZE, LEAVE_TIME_S, LEAVE_TURNS, InProcessWorker
from partywire.workers.link_events import LinkEvents
from partywire.workers.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from partywire import Session

DEADLINE_S = 20.0
LARGE = bytes(range(256)) * (24 << 12)  # 24 MiB: six times a ring


@contextmanager
def configured(*names: str, **settings: object) -> Iterator[list[tuple[PartyConfig, socket.socket]]]:
    """A configuration and a listening socket for each."""
    with ExitStack() as stack:
        listeners = {name: stack.enter_context(socket.create_server(("127.0.0.1", 0))) for name in names}
        parties = {name: listener.getsockname()[:2] for name, listener in listeners.items()}
        given = {"io": "in-process", "connect_s": DEADLINE_S, **settings}
        yield [(PartyConfig(name=name, parties=parties, **given), listeners[name]) for name in names]  # type: ignore[arg-type]


async def open_all(stack: AsyncExitStack, configs: list[tuple[PartyConfig, socket.socket]]) -> list[Party]:
    parties = [Party(config, listener) for config, listener in configs]
    for party in parties:
        stack.push_async_callback(party.close)
    await asyncio.gather(*(party.open() for party in parties))
    return parties


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_three_parties_share_one_loop_and_no_process(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def play() -> None:
        with configured("a", "b", "c") as configs:
            async with asyncio.timeout(DEADLINE_S), AsyncExitStack() as stack:
                parties = await open_all(stack, configs)
                assert all(party.pids == {} for party in parties)
                made = await asyncio.gather(*(party.make_sessions(2) for party in parties))
                sessions = [one for one, _ in made]

                async def rounds(index: int) -> list[list[object]]:
                    return [await sessions[index].gather((index * 100 + turn).to_bytes(2, "big")) for turn in range(50)]

                seen = await asyncio.gather(*(rounds(index) for index in range(3)))
                assert seen[0] == seen[1] == seen[2]
                assert seen[0][49] == [(index * 100 + 49).to_bytes(2, "big") for index in range(3)]
                # Everybody sends more than the rings hold before anybody receives.
                found = await asyncio.gather(*(session.gather(LARGE) for session in sessions))
                assert all(value == LARGE for values in found for value in values)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(play())


def test_plain_code_drives_its_links_while_it_waits() -> None:
    """Also the goodbye: nobody runs a loop here."""
    found: dict[str, list[object]] = {}

    def play(config: PartyConfig, listener: socket.socket) -> None:
        with BlockingParty(config, listener) as party:
            (session,) = party.make_sessions(1)
            found[config.name] = [session.exchange(1 - session.party_index, LARGE) == LARGE]
            found[config.name].append(session.exchange(1 - session.party_index, config.name.encode()))

    with configured("a", "b") as configs:
        threads = [threading.Thread(target=play, args=pair) for pair in configs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE_S)
    assert found == {"a": [True, b"b"], "b": [True, b"a"]}


def play_all(play: Callable[[PartyConfig, socket.socket], object], *names: str) -> None:
    """Play each party in a thread of its own."""
    with configured(*names) as configs:
        threads = [threading.Thread(target=play, args=pair, daemon=True) for pair in configs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE_S)
        assert not any(thread.is_alive() for thread in threads)


async def greet(session: Session, greeting: bytes) -> list[object]:
    return await session.gather(greeting)


def test_what_ends_a_batch_is_out_when_the_call_returns() -> None:
    """Whoever is done first does something else, and the others do not wait for it."""
    done = {name: threading.Event() for name in "abc"}
    waited: list[bool] = []

    def play(config: PartyConfig, listener: socket.socket) -> None:
        with BlockingParty(config, listener) as party:
            for _ in range(5):
                assert BatchRunner(party, sessions=1).map(greet, [b"x"]) == [[b"x"] * 3]
            done[config.name].set()
            waited.append(all(event.wait(DEADLINE_S / 2) for event in done.values()))

    play_all(play, "a", "b", "c")
    assert waited == [True] * 3


@pytest.mark.skipif(not IS_COMPILED, reason="frames are taken in as they come only with the compiled core")
def test_a_flood_of_frames_does_not_keep_a_caller_behind_its_call() -> None:
    """What is said goes out; what comes waits for whoever receives."""
    may_flood, has_flooded = threading.Event(), threading.Event()
    taken: list[int] = []

    def play(config: PartyConfig, listener: socket.socket) -> None:
        with BlockingParty(config, listener) as party:
            (session,) = party.make_sessions(1)
            party.barrier()
            (link,) = party.worker.links.values()
            lane = link.lanes[0]
            if config.name == "a":
                assert may_flood.wait(DEADLINE_S)
                assert lane.pump is not None
                with socket.socket(fileno=os.dup(lane.pump.direct_fd)) as raw:
                    raw.sendall(encode_goodbye() * 1000)  # each is taken by plain Python, and says nothing
                has_flooded.set()
                assert session.recv("b") == b"said"
                session.send("b", b"heard")
            else:
                may_flood.set()
                assert has_flooded.wait(DEADLINE_S)
                before = lane.bytes_received
                session.send("a", b"said")
                taken.append(lane.bytes_received - before)
                assert session.recv("a") == b"heard"
                taken.append(lane.bytes_received - before)
            party.barrier()

    play_all(play, "a", "b")
    assert taken[0] == 0
    assert taken[1] > 1000 * len(encode_goodbye())


def test_a_caller_does_not_wait_for_links_that_have_ever_more_to_do() -> None:
    calls: list[int] = []

    def play(config: PartyConfig, listener: socket.socket) -> None:
        with BlockingParty(config, listener) as party, ExitStack() as stack:
            party.barrier()
            worker = party.worker
            ours, theirs = map(stack.enter_context, socket.socketpair())
            theirs.send(b"never read")
            worker.watch(ours.fileno(), lambda: calls.append(1))
            clock = worker.clock
            worker.leave()
            worker.clock = lambda: len(calls) * LEAVE_TIME_S
            worker.leave()
            worker.clock = clock
            worker.unwatch(ours.fileno())
            taken.append(len(calls))
            calls.clear()

    taken: list[int] = []
    with configured("a", "b") as configs:
        peer = threading.Thread(target=meet, args=configs[1], daemon=True)
        peer.start()
        play(*configs[0])
        peer.join(DEADLINE_S)
        assert not peer.is_alive()
    assert taken == [LEAVE_TURNS + 1]


def meet(config: PartyConfig, listener: socket.socket) -> None:
    with BlockingParty(config, listener) as party:
        party.barrier()


def test_a_party_sleeps_although_a_ring_was_full() -> None:
    slept: list[int] = []

    def play(config: PartyConfig, listener: socket.socket) -> None:
        with BlockingParty(config, listener) as party:
            (session,) = party.make_sessions(1)
            assert session.exchange(1 - session.party_index, LARGE) == LARGE
            before = party.worker.counters.sleeps
            with pytest.raises(SessionError):  # of both, for the first of them gives it up
                session.recv(1 - session.party_index, timeout=0.3)
            slept.append(party.worker.counters.sleeps - before)

    play_all(play, "a", "b")
    assert len(slept) == 2
    assert max(slept) < 50  # thousands, if a bell that was rung is never answered


def test_what_comes_while_a_party_looks_again_is_taken_without_a_sleep() -> None:
    may_send, was_sent = threading.Event(), threading.Event()
    slept: list[int] = []

    def give_way() -> None:
        may_send.set()
        assert was_sent.wait(DEADLINE_S)

    def play(config: PartyConfig, listener: socket.socket) -> None:
        with BlockingParty(config, listener) as party:
            (session,) = party.make_sessions(1)
            party.barrier()
            if config.name == "a":
                stopped = itertools.repeat(0.0)  # no time passes: only what comes ends the look
                party.worker._polling = Polling(lambda: next(stopped), give_way)
                before = party.worker.counters.sleeps
                assert session.recv("b") == b"soon"
                slept.append(party.worker.counters.sleeps - before)
                party.worker._polling = Polling()
            else:
                assert may_send.wait(DEADLINE_S)
                session.send("a", b"soon")
                was_sent.set()
            party.barrier()

    play_all(play, "a", "b")
    assert slept == [0]


class CountedPolling(Polling):
    """Counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def look_again(self) -> bool:
        self.count += 1
        return super().look_again()


def test_who_receives_large_messages_sleeps_and_does_not_look() -> None:
    looks: list[tuple[int, ...]] = []

    def play(config: PartyConfig, listener: socket.socket) -> None:
        counts = []
        with BlockingParty(config, listener) as party:
            worker = party.worker
            assert isinstance(worker, InProcessWorker)
            (session,) = party.make_sessions(1)
            for size in (2 * LARGE_SIZE, 64, 2 * LARGE_SIZE):
                message = bytes(size)
                for _ in range(2):  # what came before is not of these
                    for _ in range(2 * AVERAGED_MIN):
                        session.exchange(1 - session.party_index, message)
                    worker._count_received()
                worker._polling = polling = CountedPolling()
                for _ in range(100):
                    session.exchange(1 - session.party_index, message)
                counts.append(polling.count)
        looks.append(tuple(counts))

    play_all(play, "a", "b")
    assert [(large, large_again) for large, _, large_again in looks] == [(0, 0), (0, 0)]
    assert any(small for _, small, _ in looks)


def test_a_job_that_awaits_asyncio_runs_on_before_the_party_sleeps() -> None:
    slept: list[int] = []

    def play(config: PartyConfig, listener: socket.socket) -> None:
        with BlockingParty(config, listener) as party:
            counters = party.worker.counters

            async def await_asyncio() -> None:
                before = counters.sleeps
                await asyncio.sleep(0)
                slept.append(counters.sleeps - before)

            party.barrier()
            if config.name == "a":
                scheduler = Scheduler(party.worker)
                scheduler.spawn(await_asyncio())
                scheduler.run()
                scheduler.close()
            party.barrier()

    play_all(play, "a", "b")
    assert slept == [0]


def test_a_party_does_not_rest_while_somebody_can_go_on() -> None:
    slept: list[int] = []

    def play(config: PartyConfig, listener: socket.socket) -> None:
        with BlockingParty(config, listener) as party:
            worker = party.worker
            party.barrier()
            while not worker.arm():
                worker.step()
            before = worker.counters.sleeps
            worker.has_resumed = True
            worker.rest()
            slept.append(worker.counters.sleeps - before)
            party.barrier()

    play_all(play, "a", "b")
    assert slept == [0, 0]


def test_a_party_of_processes_is_a_peer_like_any() -> None:
    async def play() -> None:
        with configured("a", "b") as configs:
            configs[1] = (replace(configs[1][0], io="processes"), configs[1][1])
            async with asyncio.timeout(DEADLINE_S), AsyncExitStack() as stack:
                ours, theirs = await open_all(stack, configs)
                (one,), (other,) = await asyncio.gather(ours.make_sessions(1), theirs.make_sessions(1))
                found = tuple(await asyncio.gather(one.gather(LARGE), other.gather(b"small")))
                assert found == ([LARGE, b"small"], [LARGE, b"small"])

    asyncio.run(play())


def test_a_link_that_was_lost_is_made_anew_and_a_goodbye_is_no_loss() -> None:
    async def play() -> None:
        with configured("a", "b") as configs:
            async with asyncio.timeout(DEADLINE_S), AsyncExitStack() as stack:
                parties = await open_all(stack, configs)
                (one,), (other,) = await asyncio.gather(*(party.make_sessions(1) for party in parties))
                waiting = asyncio.create_task(other.recv("a"))
                worker = parties[0].worker
                worker.link_life.ask_for_link(worker.link_of("b"), "for a test")
                with pytest.raises(PeerLost):
                    await waiting
                with pytest.raises(PeerLost, match="for a test"):
                    await one.recv("b")
                await asyncio.gather(*(party.wait_for_links() for party in parties))
                (one,), (other,) = await asyncio.gather(*(party.make_sessions(1) for party in parties))
                await one.send("b", b"last words")
                closing = asyncio.create_task(parties[0].close())
                assert await other.recv("a") == b"last words"
                with pytest.raises(PeerClosed):
                    await other.recv("a")
                await closing

    asyncio.run(play())


def test_a_peer_sees_the_end_of_a_link_although_a_fork_of_the_party_lives() -> None:
    async def play() -> None:
        with configured("a", "b", heartbeat_s=60.0) as configs:
            async with asyncio.timeout(DEADLINE_S), AsyncExitStack() as stack:
                parties = await open_all(stack, configs)
                (_,), (other,) = await asyncio.gather(*(party.make_sessions(1) for party in parties))
                waiting = asyncio.create_task(other.recv("a"))
                readable, writable = os.pipe()
                if (fork := os.fork()) == 0:
                    os.close(writable)
                    os.read(readable, 1)  # to the end of the test
                    os._exit(0)
                os.close(readable)
                try:
                    worker = parties[0].worker
                    worker.link_life.ask_for_link(worker.link_of("b"), "for a test")
                    with pytest.raises(PeerLost, match=r"reset by peer|without a goodbye"):
                        await waiting
                finally:
                    os.close(writable)
                    await asyncio.to_thread(os.waitpid, fork, 0)

    asyncio.run(play())


FORKING = """
import os, socket, sys, threading
from partywire import BlockingParty, PartyConfig

listeners = {name: socket.create_server(("127.0.0.1", 0)) for name in "ab"}
parties = {name: listener.getsockname() for name, listener in listeners.items()}

def play(name, *, forks):
    config = PartyConfig(name=name, parties=parties, io="in-process")
    with BlockingParty(config, listeners[name]) as party:
        (session,) = party.make_sessions(1)
        if forks:
            if (fork := os.fork()) == 0:
                sys.exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1]) == 7
        session.exchange(1 - session.party_index, name.encode())

peer = threading.Thread(target=play, args=("b",), kwargs={"forks": False})
peer.start()
play("a", forks=True)
peer.join()
"""


def test_a_fork_that_ends_says_nothing_of_the_links_and_disturbs_none() -> None:
    unwarned = ["-W", "ignore:This process:DeprecationWarning"]  # of a fork beside threads, from 3.12 on
    program = subprocess.run(
        [sys.executable, *unwarned, "-c", FORKING], capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert (program.returncode, program.stderr) == (0, "")


def test_a_bug_behind_a_descriptor_fails_the_party_instead_of_coming_again_and_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    planted: list[str] = []
    answer = InProcessMultiplexer._on_doorbell

    def break_down(self: InProcessMultiplexer) -> None:
        if planted:
            raise ZeroDivisionError(*planted)
        answer(self)

    monkeypatch.setattr(InProcessMultiplexer, "_on_doorbell", break_down)

    async def play() -> None:
        with configured("a", "b") as configs:
            async with asyncio.timeout(DEADLINE_S), AsyncExitStack() as stack:
                parties = await open_all(stack, configs)
                (one,), _ = await asyncio.gather(*(party.make_sessions(1) for party in parties))
                planted.append("planted")
                making = asyncio.ensure_future(parties[0].make_sessions(1))  # what openers say to each other rings
                with pytest.raises(PeerLost, match="party a failed"):
                    await one.recv("b")
                with pytest.raises(PartyFailed):
                    await making
                planted.clear()

    asyncio.run(play())
    assert "planted" in capsys.readouterr().err


def test_an_interrupt_amid_the_work_of_links_loses_them_before_another_byte_moves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C between the system call and its record: the same bytes would go out twice."""
    planted: list[str] = []
    send = ConnectionPump.serve_ring

    def interrupt(self: ConnectionPump) -> bool:
        if planted:
            planted.pop()
            raise KeyboardInterrupt
        return send(self)

    monkeypatch.setattr(ConnectionPump, "serve_ring", interrupt)
    monkeypatch.setattr(ConnectionPump, "direct_fd", -1)  # else nothing is in a ring

    async def play() -> None:
        with configured("a", "b") as configs:
            async with asyncio.timeout(DEADLINE_S), AsyncExitStack() as stack:
                parties = await open_all(stack, configs)
                (one,), (other,) = await asyncio.gather(*(party.make_sessions(1) for party in parties))
                await one.send("b", b"doubtful")
                planted.append("once")
                with pytest.raises(KeyboardInterrupt):
                    parties[0].worker.flush()
                with pytest.raises(PeerLost, match="interrupted the worker"):
                    await one.recv("b")
                with pytest.raises(PeerLost):
                    await other.recv("a")
                await asyncio.gather(*(party.wait_for_links() for party in parties))
                (one,), (other,) = await asyncio.gather(*(party.make_sessions(1) for party in parties))
                await one.send("b", b"sure")
                assert await other.recv("a") == b"sure"

    asyncio.run(play())


@pytest.mark.skipif(IS_COMPILED, reason="the compiled core receives and commits in one step")
def test_an_interrupt_amid_a_record_loses_the_links_and_not_the_party(monkeypatch: pytest.MonkeyPatch) -> None:
    planted: list[int] = []  # in which thread
    may_send = threading.Event()
    receive = TcpStream.try_recv_into

    def interrupt(self: TcpStream, view: memoryview) -> int | None:
        if threading.get_ident() in planted:
            planted.pop()
            raise KeyboardInterrupt
        return receive(self, view)

    monkeypatch.setattr(TcpStream, "try_recv_into", interrupt)

    def play(config: PartyConfig, listener: socket.socket) -> None:
        with BlockingParty(config, listener) as party:
            (session,) = party.make_sessions(1)
            if config.name == "a":
                planted.append(threading.get_ident())
                may_send.set()
                with pytest.raises(KeyboardInterrupt):
                    session.recv("b")
            else:
                assert may_send.wait(DEADLINE_S)
                session.send("a", b"doubtful")
                with pytest.raises(PeerLost):
                    session.recv("a")
            party.wait_for_links()
            (session,) = party.make_sessions(1)
            assert session.exchange(1 - session.party_index, b"sure") == b"sure"

    play_all(play, "a", "b")


def test_strangers_at_the_door_are_refused_and_disturb_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async def play() -> None:
        with configured("a", "b") as configs:
            async with asyncio.timeout(DEADLINE_S), AsyncExitStack() as stack:
                parties = await open_all(stack, configs)
                (one,), (other,) = await asyncio.gather(*(party.make_sessions(1) for party in parties))
                reader, writer = await asyncio.open_connection(*configs[0][1].getsockname())
                writer.write(b"GET / HTTP/1.1".ljust(32))
                assert await reader.read() == b""
                writer.close()
                await asyncio.gather(one.gather(b"1"), other.gather(b"2"))

    asyncio.run(play())
    assert "not PartyWire" in caplog.text


def test_an_address_that_is_taken_raises_and_leaves_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        parties = {"a": taken.getsockname(), "b": ("127.0.0.1", 1)}
        party = BlockingParty(PartyConfig(name="a", parties=parties, io="in-process"))
        with pytest.raises(AddressUnavailable, match="in use"):
            party.open()


@pytest.mark.parametrize("io", ["in-process", "processes"])
def test_an_opening_that_lacks_a_descriptor_to_watch_others_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, io: str
) -> None:
    def fail() -> None:
        raise OSError(errno.EMFILE, "planted")

    with configured("a", "b", io=io) as ((config, listener), _):
        party = BlockingParty(config, listener)
        before = len(os.listdir("/proc/self/fd"))
        monkeypatch.setattr("partywire.workers.watched.select", SimpleNamespace(epoll=fail))
        with pytest.raises((PartyFailed, OSError), match="planted"):
            party.open()
        assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("what", "error"),
    [
        (InProcessLinks, OSError("no descriptor is left")),
        (LinkEvents, RuntimeError("no thread can be started")),
    ],
)
def test_an_opening_that_fails_behind_the_worker_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, what: type[object], error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    made: list[InProcessWorker] = []
    begin_links = InProcessWorker.begin_links

    def noted(worker: InProcessWorker, links: InProcessLinks) -> None:
        made.append(worker)
        begin_links(worker, links)

    monkeypatch.setattr(InProcessWorker, "begin_links", noted)
    monkeypatch.setattr(what, "begin" if what is InProcessLinks else "__init__", fail)
    with configured("a", "b") as ((config, listener), _):
        with pytest.raises(PartyFailed, match=str(error)):
            BlockingParty(config, listener, on_event=lambda _: None).open()
        assert [worker.is_over for worker in made] == [True]


def test_a_small_message_rings_no_bell(monkeypatch: pytest.MonkeyPatch) -> None:
    rung: list[object] = []
    answer = InProcessMultiplexer._on_doorbell

    def note(self: InProcessMultiplexer) -> None:
        rung.append(self)
        answer(self)

    monkeypatch.setattr(InProcessMultiplexer, "_on_doorbell", note)

    async def play() -> None:
        with configured("a", "b") as configs:
            async with asyncio.timeout(DEADLINE_S), AsyncExitStack() as stack:
                parties = await open_all(stack, configs)
                (one,), (other,) = await asyncio.gather(*(party.make_sessions(1) for party in parties))
                await asyncio.gather(one.gather(b"1"), other.gather(b"2"))
                rung.clear()  # what openers say to each other is published at once, outside a pass
                for _ in range(20):
                    await asyncio.gather(one.gather(b"1"), other.gather(b"2"))
                assert rung == []
                await asyncio.gather(*(party.make_sessions(1) for party in parties))
                assert rung != []

    asyncio.run(play())


@pytest.mark.parametrize(
    ("key", "value"),
    [("workers", 2), ("compat", {"b": {"protocol": "iris"}}), ("io", "threads")],
)
def test_what_needs_processes_is_refused_without_them(key: str, value: object) -> None:
    settings = {"io": "in-process", key: value}
    with pytest.raises(ConfigError, match="io: "):
        PartyConfig(name="a", parties={"a": "127.0.0.1:1", "b": "127.0.0.1:2"}, **settings)  # type: ignore[arg-type]


def test_the_setting_is_written_and_read_back() -> None:
    config = PartyConfig(name="a", parties={"a": "127.0.0.1:1", "b": "127.0.0.1:2"}, io="in-process")
    assert parse_config(write_config(config)) == config
    assert "io =" not in write_config(replace(config, io="processes"))


# The loop that never waits.


class Watching:
    """A watcher that only counts."""

    def __init__(self) -> None:
        self.watched: dict[int, Callable[[], object]] = {}
        self.due = 0

    def watch(self, fd: int, callback: Callable[[], object]) -> None:
        self.watched[fd] = callback

    def unwatch(self, fd: int) -> None:
        del self.watched[fd]

    def has_due(self) -> None:
        self.due += 1


@pytest.fixture
def turned() -> Iterator[tuple[LinkLoop, Watching]]:
    loop, watching = LinkLoop(), Watching()
    loop.attach(watching)
    try:
        yield loop, watching
    finally:
        loop.detach()
        assert watching.watched == {}
        loop.close()


def test_a_loop_says_when_a_turn_is_due_and_runs_one_at_a_time(turned: tuple[LinkLoop, Watching]) -> None:
    loop, watching = turned
    seen: list[int] = []
    loop.call_soon(lambda: seen.append(1) or loop.call_soon(seen.append, 2))  # type: ignore[func-returns-value]
    assert (loop.is_due, watching.due) == (True, 1)
    loop.turn()
    assert (seen, loop.is_due) == ([1], True)
    loop.turn()
    assert (seen, loop.is_due) == ([1, 2], False)
    at = loop.time()
    loop.call_at(at + 1000, seen.append, 3)
    loop.call_at(at, seen.append, 4)
    assert loop.next_deadline() == at
    loop.turn()
    assert seen == [1, 2, 4]
    assert loop.next_deadline() == at + 1000


def test_what_an_interrupt_left_of_a_turn_is_still_due(turned: tuple[LinkLoop, Watching]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    loop, _ = turned
    seen: list[int] = []
    loop.call_soon(interrupt)
    loop.call_soon(seen.append, 1)
    with pytest.raises(KeyboardInterrupt):
        loop.turn()
    assert loop.is_due
    loop.turn()
    assert (seen, loop.is_due) == ([1], False)


def test_a_turn_may_be_inside_a_task_of_another_loop(turned: tuple[LinkLoop, Watching]) -> None:
    loop, _ = turned
    seen: list[object] = []

    async def inner() -> None:
        await asyncio.sleep(0)
        seen.append(asyncio.get_running_loop())

    async def outer() -> None:
        task = loop.create_task(inner())
        while not task.done():
            loop.turn()
        seen.append(asyncio.get_running_loop())
        assert asyncio.current_task() is not None

    with asyncio.Runner() as runner:
        runner.run(outer())
        assert seen == [loop, runner.get_loop()]


def test_a_turn_may_be_inside_a_loop_that_has_no_task_at_the_moment(
    turned: tuple[LinkLoop, Watching], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a batch, whose coroutines are none. What asyncio of Python 3.12.1 does then."""

    def swap(loop: asyncio.AbstractEventLoop, _: object) -> None:
        raise KeyError(loop)

    monkeypatch.setattr(asyncio.tasks, "_swap_current_task", swap, raising=False)
    loop, _ = turned
    seen: list[int] = []
    loop.call_soon(seen.append, 1)
    outer = asyncio.new_event_loop()
    asyncio._set_running_loop(outer)
    try:
        loop.turn()
        assert asyncio._get_running_loop() is outer
    finally:
        asyncio._set_running_loop(None)
        outer.close()
    assert seen == [1]


def test_another_thread_makes_the_watched_descriptor_readable(turned: tuple[LinkLoop, Watching]) -> None:
    import select

    loop, watching = turned
    seen: list[int] = []
    thread = threading.Thread(target=lambda: loop.call_soon_threadsafe(seen.append, 1))
    thread.start()
    poller = select.poll()
    for fd in watching.watched:
        poller.register(fd, select.POLLIN)
    ((fd, _),) = poller.poll(DEADLINE_S * 1000)
    thread.join()
    while not seen:
        watching.watched[fd]()
    assert seen == [1]
