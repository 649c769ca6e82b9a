"""Whole families of real processes: they come up, carry bytes, close, and end whatever is killed."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from partywire.engine.commands import LinkFailed, LinkLost, LinkProgress, ListenFailed, Refused, Stopped, WorkerLost
from partywire.engine.handshake import Handshake, Role
from partywire.engine.handshake_messages import Hello
from partywire.engine.link_options import LinkOptions
from partywire.engine.preamble import ConnectionClass, Preamble
from partywire.engine.restarts import RESTARTS_MAX, STAYS_AWAY
from partywire.engine.topology import PartySpec, PeerSpec, routing_tag
from tests.support.family import DEADLINE_S, Opener, make_listener, make_parties, open_all
from tests.support.processes import wait_until_gone

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def listeners_for(stack: ExitStack, count: int) -> list[socket.socket]:
    return [stack.enter_context(make_listener()) for _ in range(count)]


def family(stack: ExitStack, count: int, **how: object) -> list[Opener]:
    listeners = listeners_for(stack, count)
    return open_all(make_parties(listeners), listeners, stack, **how)


@pytest.mark.parametrize("count", [2, 3])
def test_parties_come_up_carry_bytes_and_close(stack: ExitStack, count: int) -> None:
    openers = family(stack, count)
    rng = random.Random(count)
    sent = {
        (a.party.index, peer.index): rng.randbytes(rng.choice([1, 5000, 700_000]))
        for a in openers
        for peer in a.party.peers
    }
    for (source, target), data in sent.items():
        openers[source].send(target, data, others=openers)
    openers[0].wait(
        lambda: all(
            len(openers[target].lanes[source, 0].received) >= len(data) for (source, target), data in sent.items()
        ),
        openers,
    )
    for (source, target), data in sent.items():
        assert openers[target].lanes[source, 0].received == data
    pids = [pid for opener in openers for pid in opener.pids.values()]
    for opener in openers:
        opener.finish(openers)
        opener.request_close()
    openers[0].wait(lambda: all(opener.message(Stopped) for opener in openers), openers)
    for opener in openers:
        assert opener.message(Stopped) == Stopped([])
        assert all(lane.end is not None and lane.end.clean for lane in opener.lanes.values())
    wait_until_gone(pids)


def test_control_messages_pass_between_openers(stack: ExitStack) -> None:
    alice, bob = family(stack, 2)
    alice.send_control(1, b'{"type": "x"}')
    bob.send_control(0, b"{}")
    alice.wait(lambda: bob.control_lanes[0].control == [b'{"type": "x"}'], [bob])
    alice.wait(lambda: alice.control_lanes[1].control == [b"{}"], [bob])


def test_closing_delivers_everything_that_was_sent(stack: ExitStack) -> None:
    """Several rings and socket buffers full, sent before the goodbye, and the peer reads only afterwards."""
    alice, bob = family(stack, 2)
    data = random.Random(1).randbytes(3_000_000)
    alice.send(1, data, others=[bob])
    alice.finish([bob])
    alice.request_close()
    bob.wait(lambda: bob.lanes[0, 0].end is not None, [alice])
    assert bob.lanes[0, 0].received[: len(data)] == data
    assert bob.lanes[0, 0].end is not None
    assert bob.lanes[0, 0].end.clean
    alice.wait(lambda: alice.message(Stopped), [bob])
    assert alice.message(Stopped) == Stopped([])


def test_a_party_that_closes_while_its_peer_does_not_read_still_ends(stack: ExitStack) -> None:
    options = LinkOptions(ring_size=64 * 1024, control_ring_size=64 * 1024, close_timeout_s=0.5)
    alice, bob = family(stack, 2, options=options)
    alice.finish()  # bob is not served from here on
    bob.send_control(0, b"{}")
    alice.request_close()
    alice.wait(lambda: alice.message(Stopped))
    del bob


def test_workers_of_both_parties_have_connections_of_their_own(stack: ExitStack) -> None:
    listeners = listeners_for(stack, 2)
    parties = make_parties(listeners)
    alice = Opener(parties[0], listeners[0], workers=2)
    stack.callback(alice.close)
    bob = Opener(parties[1], listeners[1], workers=1)
    stack.callback(bob.close)
    alice.wait(lambda: alice.is_up and bob.is_up and alice.channels, [bob])
    assert alice.links[1].connections == [0]
    assert alice.links[1].connection_count == 2
    assert bob.links[0].connections == [0, 1]
    assert bob.links[0].peer_workers == 2
    assert alice.channels[1].recv(100) == b"worker 1 is here"
    bob.send(0, b"to the second worker", connection=1)
    bob.wait(lambda: bob.lanes[0, 1].received == b"to the second worker", [alice])  # it echoes
    assert not alice.lanes[1, 0].received
    alice.finish()
    alice.request_close()
    bob.wait(lambda: bob.lanes[0, 1].end is not None and bob.lanes[0, 0].end is not None, [alice])
    assert bob.lanes[0, 1].end is not None
    assert bob.lanes[0, 1].end.clean
    alice.wait(lambda: alice.message(Stopped), [bob])
    assert alice.message(Stopped) == Stopped([])


# Something dies.


def test_a_killed_worker_is_replaced_and_the_links_are_made_anew(stack: ExitStack) -> None:
    listeners = listeners_for(stack, 2)
    parties = make_parties(listeners)
    alice = Opener(parties[0], listeners[0], workers=2)
    stack.callback(alice.close)
    bob = Opener(parties[1], listeners[1], workers=1)
    stack.callback(bob.close)
    alice.wait(lambda: alice.is_up and bob.is_up and alice.pids, [bob])
    os.kill(alice.pids["worker 1"], signal.SIGKILL)
    lost = alice.wait(lambda: alice.message(WorkerLost), [bob])
    assert lost == WorkerLost(1, "worker 1 was killed by SIGKILL")
    alice.wait(lambda: alice.links[1].epoch == bob.links[0].epoch == 2, [bob])
    assert alice.channels[1].recv(100) == b"worker 1 is here"
    bob.send(0, b"to the new worker", connection=1)
    bob.wait(lambda: bob.lanes[0, 1].received == b"to the new worker", [alice])  # it echoes
    bob.send(0, b"still here")
    alice.wait(lambda: alice.lanes[1, 0].received == b"still here", [bob])
    alice.finish([bob])
    alice.request_close()
    bob.wait(lambda: bob.lanes[0, 0].end is not None, [alice])
    assert bob.lanes[0, 0].end is not None
    assert bob.lanes[0, 0].end.clean
    alice.wait(lambda: alice.message(Stopped), [bob])


def test_a_killed_io_process_is_told_on_both_sides_and_spares_other_links(stack: ExitStack) -> None:
    alice, bob, charlie = openers = family(stack, 3)
    os.kill(alice.pids["link 1"], signal.SIGKILL)
    lost = alice.wait(lambda: alice.message(LinkLost), openers)
    assert lost == LinkLost(1, "our I/O process of the link to bob was killed by SIGKILL")
    end = bob.wait(lambda: bob.lanes[0, 0].end, openers)
    assert end is not None
    assert not end.clean
    charlie.send(0, b"x")
    charlie.send(1, b"y")
    charlie.wait(lambda: alice.lanes[2, 0].received == b"x" and bob.lanes[2, 0].received == b"y", openers)
    alice.wait(lambda: alice.links[1].epoch == bob.links[0].epoch == 2, openers)
    alice.send(1, b"again")
    alice.wait(lambda: bob.lanes[0, 0].received == b"again", openers)
    assert alice.links[2].epoch == 1
    for opener in openers:
        opener.finish(openers)
        opener.request_close()
    alice.wait(lambda: all(opener.message(Stopped) for opener in openers), openers)


def test_an_io_process_that_dies_again_and_again_stays_away_and_the_party_still_closes(stack: ExitStack) -> None:
    alice, bob = family(stack, 2)

    def losses() -> list[LinkLost]:
        return [message for message in alice.messages if isinstance(message, LinkLost)]

    for count in range(1, RESTARTS_MAX + 2):
        pid = alice.pids["link 1"]
        os.kill(pid, signal.SIGKILL)
        alice.wait(lambda count=count: len(losses()) == count, [bob])  # type: ignore[misc]
        if count <= RESTARTS_MAX:
            alice.wait(lambda pid=pid: alice.pids["link 1"] != pid, [bob])  # type: ignore[misc]
    assert [lost.cause.endswith(STAYS_AWAY) for lost in losses()] == [False] * RESTARTS_MAX + [True]
    alice.request_close()
    stopped = alice.wait(lambda: alice.message(Stopped), [bob])
    assert stopped == Stopped([])


def test_a_killed_gateway_is_replaced_and_links_live_on(stack: ExitStack) -> None:
    listeners = listeners_for(stack, 2)
    parties = make_parties(listeners)
    alice = Opener(parties[0], listeners[0])
    stack.callback(alice.close)
    alice.wait(lambda: alice.pids)
    refused = [Refused(0, garbage, 0) for garbage in (1, 2)]
    with socket.create_connection(listeners[0].getsockname()) as stranger:
        stranger.send(b"GET / HTTP/1.0")
        alice.wait(lambda: refused[0] in alice.messages)
    os.kill(alice.pids["gateway"], signal.SIGKILL)
    wait_until_gone([alice.pids["gateway"]])
    with socket.create_connection(listeners[0].getsockname()) as stranger:
        stranger.send(b"GET / HTTP/1.0")
        alice.wait(lambda: refused[1] in alice.messages)  # the new one's are counted on
    bob = Opener(parties[1], listeners[1])
    stack.callback(bob.close)
    alice.wait(lambda: alice.is_up and bob.is_up and bob.pids, [bob])
    os.kill(bob.pids["gateway"], signal.SIGKILL)
    bob.send(0, b"x")
    bob.wait(lambda: alice.lanes[1, 0].received == b"x", [alice])


def test_a_killed_supervisor_takes_its_children_along(stack: ExitStack) -> None:
    alice, bob = family(stack, 2)
    pids = list(alice.pids.values())
    os.kill(alice.supervisor.process.pid, signal.SIGKILL)
    alice.wait(lambda: alice.is_hung_up, [bob])
    end = bob.wait(lambda: bob.lanes[0, 0].end, [alice])
    assert end is not None
    assert not end.clean
    wait_until_gone(pids)
    assert alice.supervisor.end() == "was killed by SIGKILL"


OPENER_PROGRAM = """
import sys, time
from tests.support.family import *
listeners = [make_listener(), make_listener()]
parties = make_parties(listeners)
with ExitStack() as stack:
    openers = open_all(parties, listeners, stack, workers=int(sys.argv[1]))
    print(*[pid for opener in openers for pid in (opener.supervisor.process.pid, *opener.pids.values())], flush=True)
    while True:
        openers[0].serve(1)
"""

FORK = """
    import os
    if (fork := os.fork()) == 0:
        time.sleep(60)
        os._exit(0)
    print(fork, flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_opener_leaves_nothing(number: int) -> None:
    with subprocess.Popen([sys.executable, "-c", OPENER_PROGRAM, "2"], stdout=subprocess.PIPE, text=True) as opener:
        assert opener.stdout is not None
        pids = [int(pid) for pid in opener.stdout.readline().split()]
        assert len(pids) == 2 * 4
        opener.send_signal(number)
        opener.wait(DEADLINE_S)
        wait_until_gone(pids)


def test_a_killed_opener_leaves_nothing_although_its_fork_lives_on() -> None:
    """The fork has a copy of the control socket, so the supervisor reads no end of file."""
    program = OPENER_PROGRAM.replace("    while True:", FORK + "    while True:")
    with subprocess.Popen([sys.executable, "-c", program, "1"], stdout=subprocess.PIPE, text=True) as opener:
        assert opener.stdout is not None
        pids = [int(pid) for pid in opener.stdout.readline().split()]
        fork = int(opener.stdout.readline())
        try:
            opener.kill()
            opener.wait(DEADLINE_S)
            wait_until_gone(pids)
        finally:
            os.kill(fork, signal.SIGKILL)


def test_an_opener_killed_while_everything_starts_leaves_nothing() -> None:
    program = OPENER_PROGRAM.replace("openers = open_all", "print('go', flush=True); openers = open_all")
    for delay_s in (0.0, 0.02, 0.05, 0.1, 0.2):
        with subprocess.Popen([sys.executable, "-c", program, "1"], stdout=subprocess.PIPE, text=True) as opener:
            assert opener.stdout is not None
            opener.stdout.readline()
            time.sleep(delay_s)  # not synchronisation: the point is to hit different moments of the start
            family = descendants(opener.pid)
            opener.kill()
            opener.wait(DEADLINE_S)
        wait_until_gone(sorted(family))


def descendants(pid: int) -> set[int]:
    found: set[int] = set()
    pending = [pid]
    while pending:
        parent = pending.pop()
        try:
            children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        except OSError:
            continue
        new = {int(child) for child in children} - found
        found |= new
        pending += new
    return found


# The party does not come up.


def test_an_address_in_use_is_told_at_once(stack: ExitStack) -> None:
    parties = make_parties(listeners_for(stack, 2))
    alice = Opener(parties[0])  # the test itself listens there
    stack.callback(alice.close)
    failed = alice.wait(lambda: alice.message(ListenFailed))
    assert failed is not None
    assert "alice cannot listen on 127.0.0.1:" in failed.message
    assert "address already in use" in failed.message
    alice.wait(lambda: alice.is_hung_up)
    assert alice.supervisor.end() == ""


def test_a_peer_that_is_not_there_is_named_with_the_cause_on_both_sides(stack: ExitStack) -> None:
    listeners = listeners_for(stack, 2)
    parties = make_parties(listeners)
    options = LinkOptions(ring_size=65536, control_ring_size=65536, connect_timeout_s=1.5)
    listeners[0].close()
    bob = Opener(parties[1], listeners[1], options=options)
    stack.callback(bob.close)
    progress = bob.wait(lambda: bob.message(LinkProgress))
    assert progress is not None
    assert progress.peer == 0
    assert "alice cannot be reached at 127.0.0.1" in progress.cause
    assert "connection refused" in progress.cause
    failed = bob.wait(lambda: bob.message(LinkFailed))
    assert failed is not None
    assert (failed.peer, failed.code) == (0, "TIMEOUT")
    assert "no link to alice within 1.5 s" in failed.message
    assert "connection refused" in failed.message


def test_a_peer_whose_address_takes_connections_and_never_answers_is_named(stack: ExitStack) -> None:
    listeners = listeners_for(stack, 2)
    parties = make_parties(listeners)
    options = LinkOptions(ring_size=65536, control_ring_size=65536, connect_timeout_s=0.5)
    bob = Opener(parties[1], listeners[1], options=options)
    stack.callback(bob.close)
    failed = bob.wait(lambda: bob.message(LinkFailed))
    assert failed is not None
    assert failed.code == "TIMEOUT"
    host, port = listeners[0].getsockname()
    assert failed.message.startswith(f"no link to alice within 0.5 s; nothing answered at {host}:{port}; is it running")


def test_an_acceptor_says_who_has_not_dialled_and_which_strangers_did(stack: ExitStack) -> None:
    listeners = listeners_for(stack, 2)
    parties = make_parties(listeners)
    alice = Opener(parties[0], listeners[0])
    stack.callback(alice.close)
    alice.wait(lambda: alice.message(LinkProgress))
    stranger = stack.enter_context(socket.create_connection(listeners[0].getsockname()))
    stranger.sendall(Preamble(ConnectionClass.CONTROL, 0, bytes(16)).encode())
    stranger.settimeout(DEADLINE_S)
    assert stranger.recv(1) == b""
    alice.wait(lambda: "refused connections at our address: 1 of parties" in str(alice.message(LinkProgress)))
    progress = alice.message(LinkProgress)
    assert progress is not None
    assert "bob has not dialled us yet" in progress.cause


def test_a_party_that_starts_late_is_found(stack: ExitStack) -> None:
    listeners = listeners_for(stack, 2)
    parties = make_parties(listeners)
    address = listeners[0].getsockname()
    listeners[0].close()
    bob = Opener(parties[1], listeners[1])
    stack.callback(bob.close)
    bob.wait(lambda: bob.message(LinkProgress))
    alice = Opener(parties[0], stack.enter_context(socket.create_server(address)))
    stack.callback(alice.close)
    alice.wait(lambda: alice.is_up and bob.is_up, [bob])


def test_different_parameters_fail_on_both_sides(stack: ExitStack) -> None:
    listeners = listeners_for(stack, 2)
    parties = make_parties(listeners)
    openers = []
    for party, listener, digest in zip(parties, listeners, (bytes(32), b"\x01" * 32), strict=True):
        openers.append(Opener(party, listener, options=LinkOptions(parameter_digest=digest)))
        stack.callback(openers[-1].close)
    alice, bob = openers
    alice.wait(lambda: alice.message(LinkFailed) and bob.message(LinkFailed), [bob])
    for opener, peer, words in ((alice, 1, "we refused bob"), (bob, 0, "alice refused us")):
        failed = opener.message(LinkFailed)
        assert failed is not None
        assert (failed.peer, failed.code) == (peer, "PARAMETERS")
        assert words in failed.message
        assert "different parameters" in failed.message


def test_different_party_sets_fail_on_both_sides(stack: ExitStack) -> None:
    listeners = listeners_for(stack, 3)
    two, three = make_parties(listeners[:2]), make_parties(listeners)
    alice = Opener(two[0], listeners[0])
    stack.callback(alice.close)
    bob = Opener(three[1], listeners[1])
    stack.callback(bob.close)
    alice.wait(lambda: alice.message(LinkFailed) and bob.message(LinkFailed), [bob])
    failed = alice.message(LinkFailed)
    assert failed is not None
    assert failed.code == "PARTY_SET"
    assert "alice, bob, charlie" in failed.message


def test_a_wrong_identity_behind_a_right_routing_tag_is_refused_and_ends_nothing(stack: ExitStack) -> None:
    listeners = listeners_for(stack, 2)
    parties = make_parties(listeners)
    alice = Opener(parties[0], listeners[0])
    stack.callback(alice.close)
    alice.wait(lambda: alice.message(LinkProgress))
    preamble = Preamble(ConnectionClass.CONTROL, 0, routing_tag("alice", "bob")).encode()
    core = Handshake(Role.INITIATOR, Hello("mallory", "alice", os.urandom(32)), preamble)
    mallory = stack.enter_context(socket.create_connection(listeners[0].getsockname()))
    mallory.settimeout(DEADLINE_S)
    mallory.sendall(preamble + core.data_to_send())
    assert b"mallory is not a party at alice" in mallory.recv(4096)
    alice.wait(lambda: "mallory is not a party at alice" in str(alice.message(LinkProgress)))
    bob = Opener(parties[1], listeners[1])
    stack.callback(bob.close)
    alice.wait(lambda: alice.is_up and bob.is_up, [bob])
    assert alice.message(LinkFailed) is None


def test_a_second_process_with_the_same_name_is_refused_and_the_first_is_not_disturbed(stack: ExitStack) -> None:
    alice, bob = family(stack, 2)
    spare = stack.enter_context(make_listener())
    ours = PeerSpec("bob", 1, *spare.getsockname()[:2])
    second = Opener(PartySpec("bob", 1, (alice.party.parties[0], ours)), spare)
    stack.callback(second.close)
    failed = second.wait(lambda: second.message(LinkFailed), [alice, bob])
    assert failed is not None
    assert (failed.peer, failed.code) == (0, "DUPLICATE_IDENTITY")
    assert "alice is already linked with a bob" in failed.message
    bob.send(0, b"undisturbed")
    bob.wait(lambda: alice.lanes[1, 0].received == b"undisturbed", [alice])
    assert alice.message(LinkFailed) is None


def test_a_party_restarted_under_the_same_name_while_starting_is_welcome(stack: ExitStack) -> None:
    """Its first process died before all three were up; the acceptor forgets it and greets the second."""
    listeners = listeners_for(stack, 2)
    parties = make_parties(listeners)
    alice = Opener(parties[0], listeners[0])
    stack.callback(alice.close)
    alice.wait(lambda: alice.message(LinkProgress))
    preamble = Preamble(ConnectionClass.CONTROL, 0, routing_tag("alice", "bob")).encode()
    hello = Hello("bob", "alice", os.urandom(32), party_set=("alice", "bob"))
    core = Handshake(Role.INITIATOR, hello, preamble)
    with socket.create_connection(listeners[0].getsockname()) as first:
        first.settimeout(DEADLINE_S)
        first.sendall(preamble + core.data_to_send())
        while core.result is None:
            core.receive_data(first.recv(4096))
        first.sendall(core.data_to_send())  # greeted, and it never attaches its connection
    bob = Opener(parties[1], listeners[1])
    stack.callback(bob.close)
    alice.wait(lambda: alice.is_up and bob.is_up, [bob])
    assert alice.links[1].epoch == 2


def test_a_peer_without_a_word_is_lost_after_the_heartbeat_timeout(stack: ExitStack) -> None:
    options = LinkOptions(
        ring_size=65536, control_ring_size=65536, heartbeat_interval_s=0.2, heartbeat_timeout_s=1.0
    )
    alice, bob = family(stack, 2, options=options)
    os.kill(alice.pids["link 1"], signal.SIGSTOP)
    try:
        end = bob.wait(lambda: bob.lanes[0, 0].end)
    finally:
        os.kill(alice.pids["link 1"], signal.SIGCONT)
    assert end is not None
    assert not end.clean
    assert "silent" in end.cause


@pytest.mark.parametrize("program", ["gateway", "io_process", "supervisor"])
def test_children_import_no_more_than_they_need(program: str) -> None:
    code = f"import sys, partywire.engine.{program}; print(*sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = set(printed.split())
    assert not loaded & {"numpy", "click", "rich", "cryptography", "multiprocessing"}
    if program != "io_process":
        assert not loaded & {"asyncio", "uvloop", "ssl", "concurrent.futures", "threading", "logging"}
    if program != "supervisor":
        assert not loaded & {"partywire.engine.stat_page", "partywire.engine.stat_server"}


def test_an_opener_imports_none_of_its_childrens_programs() -> None:
    code = "import sys, partywire.workers.party; print(*sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    programs = {f"partywire.engine.{name}" for name in ("supervisor", "gateway", "io_process", "front", "stat_page")}
    assert "partywire.engine.supervisor_handle" in printed.split()
    assert not set(printed.split()) & programs
