"""Whom the stat server answers, with what, and what it costs the party."""

from __future__ import annotations

import array
import os
import resource
import selectors
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import orjson
import pytest

from partywire.engine import stat_server
from partywire.engine.commands import Lanes, LinkEnded, LinkFailed, LinkLost, LinkProgress, Refused
from partywire.engine.stat_server import (
    ACCEPT_PAUSE_S,
    CONNECTIONS_MAX,
    OPENER,
    READERS_MAX,
    TICK_S,
    WATCH,
    ProcessEntry,
    StatServer,
)
from partywire.engine.topology import PartySpec, PeerSpec
from partywire.workers import stat_reader
from partywire.workers.cli_stat import named
from partywire.workers.exit_code import UsageMistake
from partywire.workers.metrics import FamilyMetrics
from partywire.workers.stat_reader import PartyEnded, Running, StatReader, StatUnavailable, running_parties
from partywire.workers.stat_view import party_view
from tests.support.stat_party import DEADLINE_S, StatParty

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from partywire.workers.stat_reader import PartySnapshot


@pytest.fixture(autouse=True)
def ticks_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stat_server, "TICK_S", 0.05)


def until(reader: StatReader, condition: Callable[[PartySnapshot], bool]) -> PartySnapshot:
    """The first snapshot for which the condition holds."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition(snapshot := reader.read_fresh(0.1)):
        assert time.monotonic() < deadline, snapshot
        time.sleep(0.01)
    return snapshot


def sessions(snapshot: PartySnapshot) -> list[int]:
    return [value.value for value in snapshot.values("sessions")]


def test_a_reader_sees_what_is_published_and_what_comes_later() -> None:
    with StatParty() as party, StatReader(party.running) as reader:
        assert (reader.party, reader.opener_pid) == ("alice", os.getpid())
        until(reader, lambda snapshot: sessions(snapshot) == [5])
        party.sessions = 6
        until(reader, lambda snapshot: sessions(snapshot) == [6])


def test_nothing_is_published_while_nobody_reads() -> None:
    with StatParty() as party:
        with StatReader(party.running) as reader:
            until(reader, lambda snapshot: sessions(snapshot) == [5])
        asked = party.asked
        with StatReader(party.running):
            pass
        deadline = time.monotonic() + DEADLINE_S
        while party.server._watchers and time.monotonic() < deadline:
            time.sleep(0.01)
        assert party.server.timeout_s(time.monotonic()) is None
        assert party.asked <= asked + 1


def test_a_process_that_does_not_answer_is_asked_once() -> None:
    with StatParty() as party, StatReader(party.running) as reader:
        party.answers = False
        before = party.asked
        first = reader.read().publications["supervisor"].published_ns
        until(reader, lambda snapshot: snapshot.publications["supervisor"].published_ns > first + 200_000_000)
        assert party.asked - before <= 1  # one was under way perhaps


def test_a_process_that_does_not_read_is_asked_when_it_reads_again() -> None:
    with StatParty() as party:
        party.reads = False
        with StatReader(party.running) as reader:
            assert sessions(reader.read_fresh(0.1)) == []
            party.reads = True
            until(reader, lambda snapshot: sessions(snapshot) == [5])


def test_more_readers_than_the_limit_are_refused_and_one_that_leaves_makes_room() -> None:
    with StatParty() as party, ExitStack() as stack:
        readers = [stack.enter_context(StatReader(party.running)) for _ in range(READERS_MAX)]
        with pytest.raises(StatUnavailable, match="too many programs"):
            StatReader(party.running)
        readers[0].close()
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                stack.enter_context(StatReader(party.running))
                break
            except StatUnavailable:
                assert time.monotonic() < deadline
        until(readers[1], lambda snapshot: [value.value for value in snapshot.values("stat_readers")] == [READERS_MAX])


@contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """While it lasts, this process can open `count` descriptors and no more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    with ExitStack() as stack:
        while (filler := os.open(os.devnull, os.O_RDONLY)) <= highest:
            stack.callback(os.close, filler)
        os.close(filler)
        resource.setrlimit(resource.RLIMIT_NOFILE, (filler + count, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("left", range(9))
def test_a_party_without_descriptors_lives_on_and_shows_its_figures_later(left: int) -> None:
    peers = tuple(PeerSpec(name, index, "127.0.0.1", 7001) for index, name in enumerate(("alice", "bob")))
    entries = [ProcessEntry(OPENER, os.getpid(), lambda message, fds: True)]
    with selectors.DefaultSelector() as selector, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as reader:
        server = StatServer(PartySpec("alice", 0, peers), selector, lambda: entries)

        def turn(later_s: float = 0.0) -> int:
            server.tick(time.monotonic() + later_s)
            ready = [key.fileobj for key, _ in selector.select(0)]
            for sock in ready:
                assert isinstance(sock, socket.socket)
                server.serve(sock)
            return len(ready)

        try:
            assert server._listener is not None
            reader.connect(server._listener.getsockname())
            reader.send(WATCH)
            with descriptors_left(left):
                turn()
                turn()
                turn(TICK_S)
                assert turn() == 0  # nobody spins over what cannot be accepted
            turn(ACCEPT_PAUSE_S)
            turn()
            turn(TICK_S)
            pages: list[str] = []
            while len(pages) < 2:
                data, ancillary, _, _ = reader.recvmsg(65536, 1024, socket.MSG_DONTWAIT)
                pages = orjson.loads(data)["pages"]
                for _, _, packed in ancillary:
                    for fd in array.array("i", packed):
                        os.close(fd)
            assert pages == ["supervisor", OPENER]
        finally:
            server.close()


@pytest.mark.parametrize("said", [b"hello", b"watch!", b"watch"])
def test_a_reader_that_says_something_else_is_dismissed(said: bytes) -> None:
    with StatParty() as party, StatReader(party.running) as reader:
        reader._sock.send(said)  # it watches already, so that saying it again is something else too
        with pytest.raises(PartyEnded, match="alice"):
            until(reader, lambda snapshot: False)


def test_who_only_looks_for_a_party_disturbs_nobody_and_is_not_counted() -> None:
    with StatParty() as party, ExitStack() as stack:
        lookers = [stack.enter_context(StatReader(party.running, watch=False)) for _ in range(READERS_MAX + 1)]
        assert {(reader.party, reader.links_up, reader.opener_pid) for reader in lookers} == {("alice", 0, os.getpid())}
        assert party.asked == 0
        for reader in lookers[:READERS_MAX]:
            reader.watch()
        with pytest.raises(StatUnavailable, match="too many programs"):
            lookers[-1].watch()


def test_more_lookers_than_the_limit_are_refused() -> None:
    with StatParty() as party, ExitStack() as stack:
        for _ in range(CONNECTIONS_MAX):
            stack.enter_context(StatReader(party.running, watch=False))
        with pytest.raises(StatUnavailable, match="too many programs"):
            StatReader(party.running, watch=False)


def test_another_user_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with StatParty() as party:
        monkeypatch.setattr(stat_server, "peer_uid", lambda sock: os.geteuid() + 1)
        with pytest.raises(StatUnavailable, match="shows no figures"):
            StatReader(party.running)
        assert party.asked == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")
def test_a_process_of_another_user_gets_nothing() -> None:
    program = (
        "import os, socket, sys\n"
        "os.setuid(65534)\n"
        "sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "sock.settimeout(20)\n"
        "sock.connect('\\0' + sys.argv[1])\n"
        "print(len(sock.recv(65536)))\n"
    )
    with StatParty() as party:
        arguments = [sys.executable, "-I", "-S", "-c", program, party.running.address[1:]]
        answer = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
        assert answer.stdout == "0\n", answer.stderr
        assert party.asked == 0


def test_a_server_of_another_user_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    with StatParty() as party:
        monkeypatch.setattr(stat_reader, "peer_uid", lambda sock: os.geteuid() + 1)
        with pytest.raises(StatUnavailable, match="another user"):
            StatReader(party.running)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"{}", "cannot be read"),
        (b"[1]", "cannot be read"),
        (b"nonsense", "cannot be read"),
        (b'{"protocol": 2}', "another version"),
        (
            b'{"protocol": 1, "party": "a", "parties": [], "started_ns": 1, "pids": {}, "links_up": 0, "pages": ["x"]}',
            "number of descriptors",
        ),
    ],
)
def test_an_answer_of_something_else_is_a_sentence(answer: bytes, said: str) -> None:
    name = f"\0partywire-test-{os.getpid()}-{os.urandom(4).hex()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(name)
        listener.listen(1)
        listener.settimeout(DEADLINE_S)

        def serve() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.send(answer)
                sock.settimeout(DEADLINE_S)
                sock.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            with pytest.raises(StatUnavailable, match=said):
                StatReader(Running(os.getpid(), name))
        finally:
            thread.join()


def test_a_party_that_is_gone_is_a_sentence_and_leaves_no_name() -> None:
    with StatParty() as party:
        reader = StatReader(party.running)
    try:
        with pytest.raises(PartyEnded):
            reader.read()
        assert party.running not in running_parties()
        with pytest.raises(StatUnavailable, match="does not answer"):
            StatReader(party.running)
    finally:
        reader.close()


def test_metrics_attach_once_and_again_after_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with StatParty() as party:
        running = party.running
        monkeypatch.setattr("partywire.workers.stat_reader.running_parties", lambda: [running])
        metrics = FamilyMetrics(os.getpid())
        assert 'partywire_link_up{party="alice",peer="bob"} 0\n' in metrics.text()
        assert len(party.server._watchers) == 1
        metrics.text()
        assert len(party.server._watchers) == 1
    with pytest.raises(PartyEnded):
        metrics.text()
    with pytest.raises(StatUnavailable):
        metrics.text()
    metrics.close()


def test_two_parties_of_one_name_are_told_apart_by_pid() -> None:
    with (
        StatParty() as one,
        StatParty() as other,
        StatReader(one.running) as first,
        StatReader(other.running) as second,
    ):
        second.pid = 1  # both servers are of this process
        with pytest.raises(UsageMistake, match=rf"several parties are named alice.*: {first.pid}, 1"):
            named([first, second], "alice")
        assert named([first, second], "1") is second
        with pytest.raises(UsageMistake, match=r"no party dave.*running: alice"):
            named([first, second], "dave")


def test_what_the_supervisor_hears_of_links_is_shown() -> None:
    with StatParty() as party, StatReader(party.running) as reader:

        def seen(peer: str) -> tuple[str, str, int | None]:
            view = party_view(reader.read())
            [link] = [link for link in view.links if link.peer == peer]
            return link.state, link.cause, link.losses

        def wait(peer: str, expected: tuple[str, str, int | None]) -> None:
            until(reader, lambda _: seen(peer) == expected)

        wait("bob", ("connecting", "", 0))
        party.server.hear(LinkProgress(1, "refused"), [])
        wait("bob", ("connecting", "refused", 0))
        party.server.hear(Lanes(0, 1, 3, 1, [], 0, False, 1), [])
        wait("bob", ("up", "", 0))
        party.server.hear(LinkLost(1, "killed"), [])
        wait("bob", ("lost", "killed", 1))
        party.server.hear(LinkProgress(1, "refused"), [])
        wait("bob", ("lost", "killed; refused", 1))
        party.server.hear(Lanes(0, 1, 4, 1, [], 0, False, 1), [])
        wait("bob", ("up", "", 1))
        party.server.hear(LinkProgress(1, "late"), [])
        party.server.hear(LinkLost(1, "killed"), [])
        wait("bob", ("lost", "killed", 2))
        party.server.hear(LinkEnded(2, True, "charlie said goodbye"), [])
        wait("charlie", ("closed", "charlie said goodbye", 0))
        party.server.hear(LinkFailed(2, "TIMEOUT", "no answer"), [])
        wait("charlie", ("failed", "no answer", 0))
        party.server.hear(Refused(1, 2, 3), [])
        until(reader, lambda snapshot: sum(v.value for v in snapshot.values("refused_connections_total")) == 6)
        party.server.hear_end("gateway")
        party.server.hear_end("worker 1")
        until(reader, lambda snapshot: party_view(snapshot).gateway_restarts == 1)
        assert party_view(reader.read()).worker_losses == 1
