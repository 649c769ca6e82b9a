"""Keepers of one link each, in this process and its event loop: what a link does that the process has to survive."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from typing import TYPE_CHECKING

import pytest

from partywire.engine.callers import ACCEPTED_MAX
from partywire.engine.commands import Accepted, Lanes, LinkEnded, LinkFailed, LinkProgress
from partywire.engine.handshake import Handshake, Role
from partywire.engine.handshake_messages import Hello
from partywire.engine.limits import HANDSHAKE_TIMEOUT_S
from partywire.engine.preamble import ConnectionClass, Preamble
from partywire.engine.topology import routing_tag
from tests.support.family import make_listener
from tests.support.keepers import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.keepers import Rig

ALICE_OF_BOB = Preamble(ConnectionClass.CONTROL, 0, routing_tag("alice", "bob")).encode()


@pytest.fixture
def dialler() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection that a gateway has accepted and read the preamble of."""
    with make_listener() as listener, socket.create_connection(listener.getsockname()) as ours:
        theirs, _ = listener.accept()
        with theirs:
            yield ours, theirs


def test_who_dials_a_link_that_is_over_does_not_begin_it_anew(dialler: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = dialler
    ours.setblocking(False)

    async def scenario(rig: Rig) -> None:
        keeping = rig.alice.start()
        await rig.wait(lambda: rig.alice.told)
        core = Handshake(
            Role.INITIATOR, Hello("bob", "alice", os.urandom(32), party_set=("alice", "bob")), ALICE_OF_BOB
        )
        ours.send(core.data_to_send())
        rig.alice.keeper.begin_close()
        # It is there before the keeper has ended, and accepted while it ends.
        rig.alice.gateway.send(Accepted(ALICE_OF_BOB, ""), [theirs.fileno()])
        theirs.close()
        await keeping
        try:
            answer = await rig.loop.sock_recv(ours, 1)
        except ConnectionResetError:
            answer = b""
        assert answer == b""

    run(scenario)


def test_a_greeting_that_waits_for_the_end_of_another_one_is_closed_with_the_link(
    dialler: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = dialler
    ours.setblocking(False)

    async def scenario(rig: Rig) -> None:
        keeping = [rig.alice.start(), rig.bob.start()]
        await rig.wait(lambda: rig.alice.heard(Lanes) and rig.bob.heard(Lanes))
        rig.alice.gateway.send(Accepted(ALICE_OF_BOB, ""), [theirs.fileno()])
        theirs.close()
        await rig.wait(lambda: len(rig.alice.keeper._tasks) > 1)
        for task in keeping:
            task.cancel()
        await asyncio.wait(keeping)
        assert await rig.loop.sock_recv(ours, 1) == b""

    run(scenario)


def test_a_link_that_comes_up_in_the_last_moment_is_up() -> None:
    connect_timeout_s = 0.3

    async def scenario(rig: Rig) -> None:
        keeping = [rig.alice.start(), rig.bob.start()]
        deadline = rig.loop.time() + connect_timeout_s
        # The loop is busy with the announcement when time is up; lanes that workers have must be told their end.
        rig.alice.on_lanes = lambda: time.sleep(max(0.0, deadline - time.monotonic()) + 0.05)
        await rig.wait(lambda: rig.alice.heard(Lanes) and rig.bob.heard(Lanes))
        await asyncio.sleep(0.01)
        assert not rig.alice.heard(LinkFailed)
        assert rig.alice.keeper.stat_values()
        keeping[1].cancel()  # as if bob's process had been killed
        await rig.wait(lambda: rig.alice.heard(LinkEnded))
        assert [ended.clean for ended in rig.alice.heard(LinkEnded)] == [False]
        rig.alice.keeper.begin_close()
        await keeping[0]

    run(scenario, connect_timeout_s)


def test_what_concerns_all_links_of_a_process_does_not_touch_one_that_is_down() -> None:
    async def scenario(rig: Rig) -> None:
        keeping = [rig.alice.start(), rig.bob.start()]
        await rig.wait(lambda: rig.alice.heard(Lanes) and rig.bob.heard(Lanes))
        keeping[1].cancel()
        await rig.wait(lambda: rig.alice.heard(LinkEnded))
        told = len(rig.alice.told)
        rig.alice.keeper.drop_worker(0)
        rig.alice.keeper.replace_worker(0)
        assert rig.alice.keeper.stat_values() == []
        rig.alice.keeper.begin_close()
        await keeping[0]
        assert all(isinstance(message, LinkProgress) for message in rig.alice.told[told:])

    run(scenario)


def test_strangers_that_know_the_routing_tag_keep_nobody_out() -> None:
    async def scenario(rig: Rig) -> None:
        keeping = [rig.alice.start()]
        strangers = []
        try:
            for number in range(2 * ACCEPTED_MAX):
                ours, theirs = socket.socketpair()
                strangers.append(ours)
                class_ = ConnectionClass.NORMAL if number % 3 else ConnectionClass.CONTROL
                preamble = Preamble(class_, 0, routing_tag("alice", "bob")).encode()
                rig.alice.gateway.send(Accepted(preamble, ""), [theirs.fileno()])
                theirs.close()
            await rig.wait(lambda: len(rig.alice.keeper._callers._unproven) > 0)
            began = rig.loop.time()
            keeping.append(rig.bob.start())
            await rig.wait(lambda: rig.alice.heard(Lanes) and rig.bob.heard(Lanes))
            assert rig.loop.time() - began < HANDSHAKE_TIMEOUT_S  # of one half handshake
            assert len(rig.alice.keeper._callers._unproven) <= ACCEPTED_MAX
        finally:
            for stranger in strangers:
                stranger.close()
            for task in keeping:
                task.cancel()
            await asyncio.wait(keeping)

    run(scenario)
