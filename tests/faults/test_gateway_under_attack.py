"""A party whose address is attacked: bounded memory and descriptors, and its honest peer gets through."""

from __future__ import annotations

import os
import resource
import socket
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from partywire.engine.channel.link_security import LinkSecurity
from partywire.engine.commands import LinkFailed, LinkOptions, LinkProgress, Refused
from partywire.engine.limits import UNIDENTIFIED_MAX
from partywire.engine.link_keeper import ACCEPT_BATCH, ACCEPTED_MAX
from partywire.engine.preamble import SecurityMode
from tests.faults.hostile import Horde
from tests.support.certificates import noise_links
from tests.support.family import Opener, make_listener, make_parties
from tests.support.processes import cpu_s, descriptor_count, rss_kib

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(120)

CONNECT_CEILING_S = 15.0
"""From the start of the honest party's five processes until the link is up. Alone it takes half a second, of which the
dialling is a few milliseconds; the rest is for a busy machine. A half handshake would cost five seconds each."""

LINK_DESCRIPTORS = 24
"""What a link of one connection opens, with room to spare."""

GROWTH_MAX_KIB = 32 * 1024
"""What a process may grow by. docs/memory.md bounds strangers to 3 MiB at the gateway and 0.5 MiB for each link; what
Python and malloc keep of a crowd that came and went comes on top."""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("mode", [SecurityMode.PLAINTEXT, SecurityMode.NOISE_XX_AES])
def test_an_honest_peer_connects_while_500_hostile_sockets_are_at_it(
    stack: ExitStack, tmp_path: Path, mode: SecurityMode
) -> None:
    listeners = [stack.enter_context(make_listener()) for _ in range(2)]
    parties = make_parties(listeners)
    ours, theirs = noise_links(tmp_path, mode) if mode else (LinkSecurity(), LinkSecurity())
    alice = Opener(parties[0], listeners[0], options=LinkOptions(1 << 18, 1 << 16, security=(ours, ours)))
    stack.callback(alice.close)
    alice.wait(lambda: bool(alice.pids and alice.message(LinkProgress)))
    watched = {role: alice.pids[role] for role in ("gateway", "link 1")}
    before = {role: (rss_kib(pid), descriptor_count(pid)) for role, pid in watched.items()}
    with Horde(listeners[0].getsockname(), 500, mode=mode) as horde:
        alice.wait(lambda: horde.closed > 1000)  # every kind has been there many times
        started = time.monotonic()
        bob = Opener(parties[1], listeners[1], options=LinkOptions(1 << 18, 1 << 16, security=(theirs, theirs)))
        stack.callback(bob.close)
        alice.wait(lambda: alice.is_up and bob.is_up, [bob])
        took_s = time.monotonic() - started
        bob.send(0, b"in spite of them")
        bob.wait(lambda: alice.lanes[1, 0].received == b"in spite of them", [alice])
        more = horde.closed + 1000
        alice.wait(lambda: horde.closed > more, [bob])  # they go on against a link that is up
        bob.send(0, b", still")
        bob.wait(lambda: alice.lanes[1, 0].received == b"in spite of them, still", [alice])
        after = {role: (rss_kib(pid), descriptor_count(pid)) for role, pid in watched.items()}
        print(f"connected in {took_s:.3f} s; {horde.dialled} dialled, {horde.closed} ended; {before} -> {after}")
    assert alice.message(LinkFailed) is None
    assert took_s < CONNECT_CEILING_S
    for role, (rss, descriptors) in after.items():
        assert rss - before[role][0] < GROWTH_MAX_KIB, role
        # A stream has a socket and an epoll set. Whoever has to make room is closed one turn later.
        room = UNIDENTIFIED_MAX if role == "gateway" else 2 * (ACCEPTED_MAX + ACCEPT_BATCH) + LINK_DESCRIPTORS
        assert descriptors - before[role][1] <= room, role
    refused = alice.message(Refused)
    assert refused is not None
    assert refused.unknown > 0
    assert refused.garbage > 0


def test_a_gateway_without_descriptors_neither_spins_nor_dies(stack: ExitStack) -> None:
    listeners = [stack.enter_context(make_listener()) for _ in range(2)]
    parties = make_parties(listeners)
    alice = Opener(parties[0], listeners[0])
    stack.callback(alice.close)
    alice.wait(lambda: alice.pids)
    gateway = alice.pids["gateway"]
    dialler = stack.enter_context(socket.create_connection(listeners[0].getsockname()))
    dialler.sendall(b"GET / HTTP/1.1")
    alice.wait(lambda: alice.message(Refused))  # it has begun its work
    limits = resource.prlimit(gateway, resource.RLIMIT_NOFILE)
    # None left: with nobody waiting it has nothing to give back.
    resource.prlimit(gateway, resource.RLIMIT_NOFILE, (descriptor_count(gateway), limits[1]))
    for _ in range(20):
        stack.enter_context(socket.create_connection(listeners[0].getsockname()))
    before = cpu_s(gateway)
    until = time.monotonic() + 0.5
    alice.wait(lambda: time.monotonic() > until)
    assert cpu_s(gateway) - before < 0.25
    # Four: silent callers make room for each other, and the honest peer gets through.
    resource.prlimit(gateway, resource.RLIMIT_NOFILE, (descriptor_count(gateway) + 4, limits[1]))
    with Horde(listeners[0].getsockname(), 50, ("silent", "slow preamble", "half probe")):
        bob = Opener(parties[1], listeners[1])
        stack.callback(bob.close)
        alice.wait(lambda: alice.is_up and bob.is_up, [bob])
    assert alice.pids["gateway"] == gateway
    os.kill(gateway, 0)
    alice.wait(lambda: (alice.message(Refused) or Refused(0, 0, 0)).crowded)
