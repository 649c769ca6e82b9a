"""Dialling real sockets by names that a table of this file resolves: several addresses, moves, hangs, own addresses."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from partywire.engine import tcp
from partywire.engine.dialler import DialCause, DialFailed, Dialler
from partywire.engine.eyeballs import Failed, race
from partywire.engine.listening import open_listening
from partywire.engine.memory import memory_pair
from partywire.engine.resolver import ADDRESSES_MAX, Resolver, interleave, literal_of
from partywire.engine.tcp import TcpStream, TcpTransport
from tests.support.ipv6 import needs_ipv6

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from partywire.engine.addresses import Address
    from partywire.engine.transport import Stream

DEADLINE_S = 20.0
NOBODY = "127.0.0.2"
BLACKHOLE = "127.0.0.3"
HERE = "127.0.0.1"


def run(scenario: Coroutine[object, object, None]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(scenario, DEADLINE_S)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(bounded())


class Names:
    """A table of names, called like getaddrinfo. What is not in it does not exist."""

    def __init__(self, **table: list[str]) -> None:
        self.table = table
        self.asked = 0

    def __call__(self, host: str, port: int, *_: int) -> list[Any]:
        self.asked += 1
        if host not in self.table:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET6 if ":" in literal else socket.AF_INET, socket.SOCK_STREAM, 6, "", (literal, port))
            for literal in self.table[host]
        ]


@contextmanager
def blackhole(port: int) -> Iterator[None]:
    """An address that answers no SYN, because its queue of new connections is full and nobody accepts."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((BLACKHOLE, port))
        listener.listen(0)
        for _ in range(2):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((BLACKHOLE, port))
        yield


def dialler(names: Callable[..., list[Any]], port: int, client_host: str | None = None) -> Dialler:
    transport = TcpTransport(asyncio.get_running_loop(), Resolver(names))
    return Dialler(transport, "bob", "bob", port, client_host)


# Several addresses.


def test_a_dead_and_a_silent_address_cost_a_moment_and_the_living_one_answers() -> None:
    async def scenario() -> None:
        with socket.create_server((HERE, 0)) as server, blackhole(port := server.getsockname()[1]):
            stream = await dialler(Names(bob=[NOBODY, BLACKHOLE, HERE]), port).attempt()
            assert stream.peer_address == f"{HERE}:{port}"
            stream.close()

    run(scenario())


def test_each_address_that_was_tried_is_named_with_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("partywire.engine.dialler.ATTEMPT_TIMEOUT_S", 0.05)

    async def scenario() -> None:
        with socket.create_server((HERE, 0)) as server, blackhole(port := server.getsockname()[1]):
            with pytest.raises(DialFailed) as failed:
                await dialler(Names(bob=[NOBODY, BLACKHOLE]), port).attempt()
            assert failed.value.cause == (
                f"tried {NOBODY}:{port} connection refused; {BLACKHOLE}:{port} no answer within 0.05 s"
            )
            assert failed.value.kind is DialCause.NO_ANSWER

    run(scenario())


def test_families_take_turns_and_the_rest_is_bounded() -> None:
    four, six = [(f"10.0.0.{n}", 1) for n in range(4)], [(f"fd00::{n}", 1) for n in range(2)]
    assert interleave([*six, *four]) == [six[0], four[0], six[1], four[1], four[2], four[3]]
    assert interleave([*four, *six]) == [four[0], six[0], four[1], six[1], four[2], four[3]]
    many = Names(bob=[f"10.0.{n}.1" for n in range(ADDRESSES_MAX + 1)])
    assert len(Resolver(many).resolve("bob", 7)) == ADDRESSES_MAX


class Pairs:
    """A network in which some addresses answer, at once or never."""

    def __init__(self, silent: set[str], dead: set[str]) -> None:
        self._silent, self._dead = silent, dead
        self.tried: list[str] = []
        self.ended: list[str] = []
        self.far: dict[str, Stream] = {}

    async def connect(self, address: Address) -> Stream:
        host = address[0]
        self.tried.append(host)
        try:
            if host in self._dead:
                raise ConnectionRefusedError
            if host in self._silent:
                await asyncio.Event().wait()
            near, self.far[host] = memory_pair(asyncio.get_running_loop())
            return near
        finally:
            self.ended.append(host)


def test_the_next_address_waits_for_the_delay_unless_the_one_before_it_failed() -> None:
    async def scenario() -> None:
        failed: list[Failed] = []
        at_once = Pairs(set(), {"a"})
        stream = await race([("a", 1), ("b", 1)], at_once.connect, failed.append, delay_s=1000)
        assert stream is not None
        assert [one.address for one in failed] == [("a", 1)]
        later = Pairs({"a"}, set())
        assert await race([("a", 1), ("b", 1)], later.connect, failed.append, delay_s=0.001) is not None
        assert later.tried == ["a", "b"]
        assert later.ended == ["b", "a"]  # the slow one was given up
        patient = Pairs({"c"}, set())
        assert await race([("b", 1), ("c", 1)], patient.connect, failed.append, delay_s=1000) is not None
        assert patient.tried == ["b"]

    run(scenario())


def test_of_two_that_stand_at_once_one_is_returned_and_the_other_closed() -> None:
    async def scenario() -> None:
        pairs = Pairs(set(), set())
        ready = asyncio.Event()

        async def together(address: Address) -> Stream:
            if address[0] == "b":
                ready.set()
            await ready.wait()
            return await pairs.connect(address)

        stream = await race([("a", 1), ("b", 1)], together, print, delay_s=0.001)
        assert stream is not None
        assert set(pairs.far) == {"a", "b"}
        buffer = memoryview(bytearray(1))
        ends = [far.try_recv_into(buffer) for far in pairs.far.values()]
        assert sorted(ends, key=str) == [0, None]  # one saw its end, one lives

    run(scenario())


def test_a_cancelled_race_leaves_nothing_open() -> None:
    async def scenario() -> None:
        pairs = Pairs({"a", "b"}, set())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(race([("a", 1), ("b", 1)], pairs.connect, print, delay_s=0.001), 0.05)
        assert sorted(pairs.ended) == ["a", "b"]
        assert await race([], pairs.connect, print) is None

    run(scenario())


def test_a_race_that_is_cancelled_while_it_closes_the_others_leaves_nothing_open() -> None:
    async def scenario() -> None:
        pairs, later = Pairs({"a"}, set()), Pairs(set(), set())
        leaving, let_go, connected = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def slow_to_leave(address: Address) -> Stream:
            try:
                return await pairs.connect(address)
            except asyncio.CancelledError:
                leaving.set()
                await let_go.wait()
                connected.set()
                return await later.connect(address)  # it had connected before it heard

        racing = asyncio.ensure_future(race([("a", 1), ("b", 1)], slow_to_leave, print, delay_s=0.001))
        await leaving.wait()
        racing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await racing
        buffer = memoryview(bytearray(1))
        assert pairs.far["b"].try_recv_into(buffer) == 0
        let_go.set()
        await connected.wait()
        await asyncio.sleep(0)  # for what is called when the attempt is done
        assert later.far["a"].try_recv_into(buffer) == 0

    run(scenario())


# Names.


def test_a_peer_that_moved_is_found_at_the_next_dial() -> None:
    async def scenario() -> None:
        names = Names(bob=[NOBODY])
        with socket.create_server((HERE, 0)) as server:
            ours = dialler(names, server.getsockname()[1])
            with pytest.raises(DialFailed, match="connection refused"):
                await ours.attempt()
            names.table["bob"] = [HERE]
            stream = await ours.attempt()
            stream.close()
            ours.lost()
            names.table["bob"] = [NOBODY]
            with pytest.raises(DialFailed, match=NOBODY):
                await ours.attempt()
        assert names.asked == 3

    run(scenario())


def test_a_resolver_that_hangs_is_bounded_and_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "RESOLVE_TIMEOUT_S", 0.05)
    answer_now = threading.Event()
    names = Names(bob=[HERE])

    def slow(host: str, port: int, *rest: int) -> list[Any]:
        found = names(host, port, *rest)
        answer_now.wait(DEADLINE_S)
        return found

    async def scenario() -> None:
        with socket.create_server((HERE, 0)) as server:
            ours = dialler(slow, server.getsockname()[1])
            for _ in range(3):
                with pytest.raises(DialFailed, match=r"resolver has not answered within 0\.05 s") as failed:
                    await ours.attempt()
                assert failed.value.kind is DialCause.UNRESOLVED
            assert names.asked == 1
            monkeypatch.setattr(tcp, "RESOLVE_TIMEOUT_S", DEADLINE_S)
            dialling = asyncio.ensure_future(ours.attempt())
            await asyncio.sleep(0)
            answer_now.set()
            (await dialling).close()

    try:
        run(scenario())
    finally:
        answer_now.set()


def test_a_look_up_for_which_there_is_no_thread_fails_and_the_next_one_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolver = Resolver(Names(bob=[HERE]))
    with monkeypatch.context() as patch:

        def no_thread(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        patch.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(OSError, match="no thread"):
            resolver.resolve("bob", 7)
    assert resolver.resolve("bob", 7) == [(HERE, 7)]


@pytest.mark.parametrize(
    ("host", "words"), [("eve", "not known"), ("a..b", "not a valid host name"), ("none", "no address")]
)
def test_a_name_without_an_address_says_so(host: str, words: str) -> None:
    def look_up(host: str, *rest: int) -> list[Any]:
        return Names(none=[])(host, *rest) if host != "a..b" else list(host.encode("idna"))

    with pytest.raises(OSError, match=words):
        Resolver(look_up).resolve(host, 7)


def test_a_dial_to_a_name_without_an_address_says_so() -> None:
    async def scenario() -> None:
        with pytest.raises(DialFailed, match=r"looked up \(the name has no address\)") as failed:
            await dialler(Names(bob=[]), 7).attempt()
        assert failed.value.kind is DialCause.UNRESOLVED

    run(scenario())


def test_a_scope_id_survives_and_an_unknown_one_is_refused_without_asking() -> None:
    index, name = socket.if_nameindex()[0]
    resolver = Resolver(Names())
    assert resolver.resolve(f"fe80::1%{name}", 7) == [(f"fe80::1%{index}", 7)]
    assert literal_of(("fe80::1", 7, 0, index)) == (f"fe80::1%{index}", 7)
    with pytest.raises(OSError, match="this host's interfaces"):
        resolver.resolve("fe80::1%no-such-if", 7)


def test_a_name_of_one_family_is_looked_up_in_that_family_alone() -> None:
    asked: list[int] = []

    def both(host: str, port: int, family: int, _: int) -> list[Any]:
        asked.append(family)
        return Names(bob=["::1", HERE])(host, port)

    resolver = Resolver(both)
    assert resolver.resolve("bob", 7) == [("::1", 7), (HERE, 7)]
    assert resolver.resolve("/dns4/bob", 7) == [(HERE, 7)]
    assert resolver.resolve("/dns6/bob", 7) == [("::1", 7)]
    assert asked == [0, socket.AF_INET, socket.AF_INET6]
    with pytest.raises(OSError, match="the name has no IPv6 address"):
        Resolver(Names(bob=[HERE])).resolve("/dns6/bob", 7)


def test_a_dial_to_a_name_without_an_address_of_its_family_says_so() -> None:
    async def scenario() -> None:
        transport = TcpTransport(asyncio.get_running_loop(), Resolver(Names(bob=[HERE])))
        with pytest.raises(DialFailed, match=r"bob cannot be reached at /dns6/bob/tcp/7 \(.*no IPv6 address") as failed:
            await Dialler(transport, "bob", "/dns6/bob", 7).attempt()
        assert failed.value.kind is DialCause.UNRESOLVED

    run(scenario())


def test_a_name_of_one_family_is_listened_on_in_that_family_alone() -> None:
    listening = open_listening([("/dns4/localhost", 0)])
    try:
        assert [sock.family for sock in listening.sockets] == [socket.AF_INET]
    finally:
        listening.close()


# Our own address.


def test_the_acceptor_sees_the_address_that_we_dial_from() -> None:
    async def scenario() -> None:
        with socket.create_server((HERE, 0)) as server:
            stream = await dialler(Names(bob=[HERE], us=["::1", "127.0.0.7"]), server.getsockname()[1], "us").attempt()
            accepted, (host, _) = server.accept()
            accepted.close()
            stream.close()
            assert host == "127.0.0.7"  # the one of the peer's family

    run(scenario())


@needs_ipv6
def test_an_address_to_dial_from_without_the_peers_family_leaves_the_others() -> None:
    async def scenario() -> None:
        with socket.create_server((HERE, 0)) as server:
            names = Names(bob=["::1", HERE])
            stream = await dialler(names, server.getsockname()[1], "127.0.0.7").attempt()
            assert stream.peer_address.startswith(HERE)
            stream.close()
            names.table["bob"] = ["::1"]
            with pytest.raises(DialFailed, match="it has no IPv6 address") as failed:
                await dialler(names, server.getsockname()[1], "127.0.0.7").attempt()
            assert failed.value.kind is DialCause.UNREACHABLE

    run(scenario())


def test_an_address_to_dial_from_that_cannot_be_looked_up_is_our_fault() -> None:
    async def scenario() -> None:
        with pytest.raises(DialFailed, match="cannot dial from nowhere") as failed:
            await dialler(Names(bob=[HERE]), 1, "nowhere").attempt()
        assert failed.value.kind is DialCause.CLIENT_HOST

    run(scenario())


def test_a_hanging_resolver_is_not_the_peers_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "RESOLVE_TIMEOUT_S", 0.05)
    monkeypatch.setattr("partywire.engine.dialler.ATTEMPT_TIMEOUT_S", 0.01)
    answer_now = threading.Event()
    names = Names(bob=[HERE], us=[HERE])

    def slow_for_us(host: str, port: int, *rest: int) -> list[Any]:
        if host == "us":
            answer_now.wait(DEADLINE_S)
        return names(host, port, *rest)

    async def scenario() -> None:
        with pytest.raises(DialFailed, match="cannot dial from us: the resolver has not answered") as failed:
            await dialler(slow_for_us, 1, "us").attempt()
        assert failed.value.kind is DialCause.CLIENT_HOST

    try:
        run(scenario())
    finally:
        answer_now.set()


# Unix sockets.


def test_a_unix_socket_has_no_tcp_options_and_needs_no_address_to_dial_from(tmp_path: Any) -> None:
    path = f"{tmp_path}/a.sock"

    async def scenario() -> None:
        transport = TcpTransport(asyncio.get_running_loop(), Resolver(Names()))
        accepted: asyncio.Future[Stream] = asyncio.get_running_loop().create_future()
        listener = transport.listen(f"unix:{path}", 0, accepted.set_result)
        assert listener.address == (f"unix:{path}", 0)
        stream = await Dialler(transport, "bob", f"unix:{path}", 0, "192.0.2.1").attempt()
        assert isinstance(stream, TcpStream)
        stream.bound_unacknowledged(1.0)
        assert stream.peer_address == f"unix:{path}"
        far = await accepted
        assert far.peer_address == "a unix socket"
        for end in (stream, far, listener):
            end.close()
        with pytest.raises(DialFailed, match="no such file") as failed:
            await Dialler(transport, "bob", f"unix:{path}", 0).attempt()
        assert failed.value.kind is DialCause.REFUSED

    run(scenario())


def test_a_unix_socket_that_accepts_nothing_is_no_answer(tmp_path: Any) -> None:
    path = f"{tmp_path}/a.sock"

    async def scenario() -> None:
        with ExitStack() as stack:
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(path)
            listener.listen(0)
            for _ in range(2):
                filler = stack.enter_context(socket.socket(socket.AF_UNIX))
                filler.setblocking(False)
                filler.connect_ex(path)
            transport = TcpTransport(asyncio.get_running_loop())
            with pytest.raises(DialFailed, match="queue of new connections is full") as failed:
                await Dialler(transport, "bob", f"unix:{path}", 0).attempt()
            assert failed.value.kind is DialCause.NO_ANSWER

    run(scenario())
