"""An I/O process that serves several links: one that is lost spares the others, its death is the loss of all."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import ExitStack
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from partywire.engine import polling_in_core
from partywire.engine.commands import LinkEventKind, LinkFailed, LinkLost, LinkNews, LinkProgress, Stopped
from partywire.engine.connection_pump import ConnectionPump
from partywire.engine.handshake import Handshake, Role
from partywire.engine.handshake_messages import Hello
from partywire.engine.polling import POLL_NS, Polling
from partywire.engine.polling_in_core import LINES_MAX, PUMP_TOTAL_NS, SMALL_SHARED_SIZE
from partywire.engine.preamble import ConnectionClass, Preamble
from partywire.engine.topology import routing_tag
from tests.support.family import DEADLINE_S, Opener, make_listener, make_parties
from tests.support.link_rig import LinkRig

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def three_parties(stack: ExitStack) -> list[Opener]:
    """Alice serves both links by one process; bob and charlie have one for each."""
    listeners = [stack.enter_context(make_listener()) for _ in range(3)]
    openers = []
    for party, listener in zip(make_parties(listeners), listeners, strict=True):
        openers.append(Opener(party, listener, links_per_io_process=2 if party.index == 0 else 1))
        stack.callback(openers[-1].close)
    openers[0].wait(lambda: all(opener.is_up and opener.pids for opener in openers), openers)
    return openers


def news(opener: Opener, peer: int) -> list[LinkNews]:
    return [message for message in opener.messages if isinstance(message, LinkNews) and message.peer == peer]


def talk(one: Opener, other: Opener, openers: list[Opener], data: bytes) -> None:
    """Bytes pass both ways between two openers."""
    i, j = one.party.index, other.party.index
    before = len(other.lanes[i, 0].received), len(one.lanes[j, 0].received)
    one.send(j, data, others=openers)
    other.send(i, data, others=openers)
    one.wait(
        lambda: other.lanes[i, 0].received[before[0] :] == data and one.lanes[j, 0].received[before[1] :] == data,
        openers,
    )


def test_a_lost_link_spares_the_other_one_of_its_process(stack: ExitStack) -> None:
    alice, bob, charlie = openers = three_parties(stack)
    assert alice.pids["link 1"] == alice.pids["link 2"]
    assert bob.pids["link 0"] != bob.pids["link 2"]
    talk(alice, bob, openers, os.urandom(700_000))
    os.kill(bob.pids["link 0"], signal.SIGKILL)
    end = alice.wait(lambda: alice.lanes[1, 0].end, openers)
    assert end is not None
    assert not end.clean
    talk(alice, charlie, openers, os.urandom(700_000))
    assert alice.lanes[2, 0].end is None
    closed = alice.wait(lambda: [one for one in news(alice, 1) if one.kind == LinkEventKind.CLOSED.value], openers)
    assert closed[0].cause == end.cause
    alice.wait(lambda: alice.links[1].epoch == bob.links[0].epoch == 2, openers)
    for opener in openers:
        opener.finish(openers)
        opener.request_close()
    alice.wait(lambda: all(opener.message(Stopped) for opener in openers), openers)
    assert alice.message(Stopped) == Stopped([])
    assert [one.kind for one in news(alice, 2)] == [LinkEventKind.ACCEPTED.value, LinkEventKind.CLOSED.value]
    assert news(alice, 2)[-1].cause == ""


def test_a_killed_process_loses_all_of_its_links_and_says_why(stack: ExitStack) -> None:
    alice, bob, charlie = openers = three_parties(stack)
    os.kill(alice.pids["link 1"], signal.SIGKILL)
    cause = "our I/O process of the links to bob, charlie was killed by SIGKILL"
    alice.wait(lambda: alice.message(LinkLost) == LinkLost(2, cause), openers)
    assert [message for message in alice.messages if isinstance(message, LinkLost)] == [
        LinkLost(1, cause),
        LinkLost(2, cause),
    ]
    for peer in (1, 2):
        assert [(one.kind, one.cause) for one in news(alice, peer)] == [("accepted", ""), ("closed", cause)]
    for opener in (bob, charlie):
        end = opener.wait(lambda opener=opener: opener.lanes[0, 0].end, openers)  # type: ignore[misc]
        assert end is not None
        assert not end.clean
    talk(bob, charlie, openers, b"without alice")


def test_a_link_that_cannot_be_made_spares_the_other_one_of_its_process(stack: ExitStack) -> None:
    listeners = [stack.enter_context(make_listener()) for _ in range(3)]
    parties = make_parties(listeners)
    alice = Opener(parties[0], listeners[0], links_per_io_process=2)
    stack.callback(alice.close)
    alice.wait(lambda: alice.message(LinkProgress))
    preamble = Preamble(ConnectionClass.CONTROL, 0, routing_tag("alice", "bob")).encode()
    core = Handshake(Role.INITIATOR, Hello("bob", "alice", os.urandom(32), party_set=("alice", "bob")), preamble)
    other_bob = stack.enter_context(socket.create_connection(listeners[0].getsockname()))
    other_bob.settimeout(DEADLINE_S)
    other_bob.sendall(preamble + core.data_to_send())
    assert b"the parties are alice, bob, charlie at alice" in other_bob.recv(4096)
    failed = alice.wait(lambda: alice.message(LinkFailed))
    assert failed is not None
    assert (failed.peer, failed.code) == (1, "PARTY_SET")
    charlie = Opener(parties[2], listeners[2])
    stack.callback(charlie.close)
    charlie.wait(lambda: (0, 0) in charlie.lanes and (2, 0) in alice.lanes, [alice])
    talk(charlie, alice, [alice, charlie], b"the other link stands")


def neighbour(*, line: tuple[str, ...] | None = ("theirs",), bulk: tuple[object, ...] = (), moved: int = 0) -> Any:
    """What a multiplexer knows of another one of its process."""
    pump = SimpleNamespace(line=line, bytes_moved=moved)
    return SimpleNamespace(_served=[pump], _bulk=bulk, _outcome=None, _polling=Polling())


@pytest.mark.parametrize(
    ("neighbours", "lines", "quiet_ns", "total_ns"),
    [
        ([], 1, POLL_NS, PUMP_TOTAL_NS),
        ([neighbour(), neighbour()], 3, POLL_NS, PUMP_TOTAL_NS),
        ([neighbour(), neighbour(line=None)], 1, 0, PUMP_TOTAL_NS // 3),
        ([neighbour(), neighbour(bulk=("bulk",))], 1, 0, PUMP_TOTAL_NS // 3),
        ([neighbour() for _ in range(LINES_MAX)], 1, 0, PUMP_TOTAL_NS // (LINES_MAX + 1)),
    ],
    ids=["alone", "all usual", "one unusual", "one with bulk", "too many"],
)
def test_links_that_share_a_process_poll_for_all_or_for_their_part_of_the_time(
    monkeypatch: pytest.MonkeyPatch, neighbours: list[Any], lines: int, quiet_ns: int, total_ns: int
) -> None:
    calls: set[tuple[int, int, int]] = set()

    def pump_while_busy(lines: tuple[object, ...], _watched: object, quiet_ns: int, total_ns: int) -> Any:
        calls.add((len(lines), quiet_ns, total_ns))
        return [0] * len(lines), -1, None

    # The rig's streams are no sockets, so the compiled pump is replaced; what it is told is what counts.
    monkeypatch.setattr(polling_in_core, "core", SimpleNamespace(ReaderCore=object, pump_while_busy=pump_while_busy))
    monkeypatch.setattr(ConnectionPump, "line", ("a line",))
    monkeypatch.setattr(Polling, "look_again", lambda _: True)  # on a busy machine it learns not to
    rig = LinkRig(neighbours=neighbours)
    monkeypatch.setattr(rig.bob.multiplexer, "_pump_for_a_moment", lambda: None)
    try:
        rig.up()
        rig.wait(lambda: calls)
    finally:
        rig.close()
    assert calls == {(lines, quiet_ns, total_ns)}


def test_links_that_share_a_process_take_turns_while_much_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    other = neighbour()
    calls: list[tuple[int, int]] = []

    def pump_while_busy(lines: tuple[object, ...], _watched: object, quiet_ns: int, _total_ns: int) -> Any:
        calls.append((len(lines), quiet_ns))
        return ([0, SMALL_SHARED_SIZE + (len(calls) == 2)] if len(lines) == 2 else [0]), -1, None

    monkeypatch.setattr(polling_in_core, "core", SimpleNamespace(ReaderCore=object, pump_while_busy=pump_while_busy))
    monkeypatch.setattr(ConnectionPump, "line", ("a line",))
    monkeypatch.setattr(Polling, "look_again", lambda _: True)
    rig = LinkRig(neighbours=[other])
    monkeypatch.setattr(rig.bob.multiplexer, "_pump_for_a_moment", lambda: None)
    try:
        rig.up()
        rig.wait(lambda: len(calls) >= 4)
    finally:
        rig.close()
    assert calls[:4] == [(2, POLL_NS), (2, POLL_NS), (1, 0), (2, POLL_NS)]
    assert other._served[0].bytes_moved >= 3 * SMALL_SHARED_SIZE
