"""Links that are lost and made anew: what the keepers of both ends do, and never do, meanwhile."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from partywire.engine.commands import Accepted, Lanes, LinkEnded, LinkEventKind, LinkFailed, LinkNews, LinkProgress
from partywire.engine.errors import HandshakeRejected, RejectCode
from partywire.engine.handshake import Handshake, Role
from partywire.engine.handshake_messages import Hello
from partywire.engine.preamble import ConnectionClass, Preamble
from partywire.engine.redial import GOODBYE_PAUSE_S, PAUSE_MAX_S, PAUSE_MIN_S, STEADY_S, Redial
from partywire.engine.restarts import RESTARTS_MAX, WINDOW_S, Restarts
from partywire.engine.topology import PartySpec, routing_tag
from tests.process.test_networks import Names
from tests.support.keepers import Side, run

if TYPE_CHECKING:
    from tests.support.keepers import Rig

ALICE_OF_BOB = Preamble(ConnectionClass.CONTROL, 0, routing_tag("alice", "bob")).encode()


def lose(side: Side, cause: str = "flapping") -> None:
    multiplexer = side.keeper._standing
    assert multiplexer is not None
    multiplexer.lose(cause)


def life(side: Side) -> list[int | str]:
    """What a side told of its link: the epochs that came up, and "over" for the end of each."""
    told: list[int | str] = []
    for message in side.told:
        if isinstance(message, Lanes):
            told.append(message.epoch)
        elif isinstance(message, LinkEnded):
            told.append("over")
    return told


def test_a_link_that_flaps_has_one_life_at_a_time_at_both_ends() -> None:
    async def scenario(rig: Rig) -> None:
        rig.alice.takes_lanes = rig.bob.takes_lanes = True
        keeping = await rig.up()
        for epoch, side in enumerate([rig.alice, rig.bob, rig.bob, rig.alice], 1):
            await rig.wait(lambda epoch=epoch: rig.alice.keeper._is_up and life(rig.bob)[-1] == epoch)  # type: ignore[misc]
            lose(side)
            await rig.wait(lambda epoch=epoch: life(rig.alice)[-1] == life(rig.bob)[-1] == epoch + 1)  # type: ignore[misc]
        assert life(rig.alice) == life(rig.bob) == [1, "over", 2, "over", 3, "over", 4, "over", 5]
        kinds = [news.kind for news in rig.bob.heard(LinkNews)]
        assert kinds == [LinkEventKind.CONNECTED.value, LinkEventKind.CLOSED.value] * 4 + kinds[:1]
        for side in (rig.alice, rig.bob):
            side.keeper.begin_close()
        for task in keeping:
            task.cancel()  # nobody finishes their lanes
        await asyncio.wait(keeping)

    run(scenario)


def test_epochs_that_no_worker_takes_are_bounded() -> None:
    async def scenario(rig: Rig) -> None:
        rig.alice.takes_lanes = True
        keeping = await rig.up()
        for epoch in (1, 2):
            await rig.wait(lambda epoch=epoch: life(rig.alice)[-1] == life(rig.bob)[-1] == epoch)  # type: ignore[misc]
            lose(rig.alice)
        await rig.wait(lambda: life(rig.bob)[-1] == "over")
        await asyncio.sleep(0.2)  # longer than the pause before a dial
        assert life(rig.bob) == [1, "over", 2, "over"]
        assert len(rig.bob.keeper._untaken) == 2
        attempt = rig.bob.keeper._untaken[0]
        lanes = rig.bob.heard(Lanes)[0]
        control = attempt.control_lane
        assert control is not None
        fds = [*rig.bob.keeper._doorbell.fds, *attempt.lanes[0].fds, *control.fds]
        rig.bob.take(lanes, [os.dup(fd) for fd in fds])
        await rig.wait(lambda: life(rig.bob)[-1] == 3)
        for task in keeping:
            task.cancel()
        await asyncio.wait(keeping)

    run(scenario)


def test_a_peer_is_looked_up_anew_and_found_at_another_address() -> None:
    async def scenario(rig: Rig) -> None:
        names = Names(somewhere=["127.0.0.1"])
        alice = replace(rig.parties[1].parties[0], host="somewhere")
        rig.bob._command = type(rig.bob._command)(
            PartySpec("bob", 1, (alice, rig.parties[1].parties[1])), [0], 1, rig.options
        )
        rig.bob.names = names
        keeping = await rig.up()
        names.table["somewhere"] = ["127.0.0.9"]
        await rig.move("127.0.0.9")
        lose(rig.bob)
        await rig.wait(lambda: life(rig.alice)[-1] == life(rig.bob)[-1] == 2)
        assert [news.address.split(":")[0] for news in rig.bob.heard(LinkNews) if news.kind == "connected"] == [
            "127.0.0.1",
            "127.0.0.9",
        ]
        for task in keeping:
            task.cancel()
        await asyncio.wait(keeping)

    run(scenario)


@pytest.mark.parametrize("closing", ["alice", "bob"])
def test_a_keeper_closes_at_once_while_its_peer_is_away(closing: str) -> None:
    async def scenario(rig: Rig) -> None:
        keeping = dict(zip(("alice", "bob"), await rig.up(), strict=True))
        side = rig.alice if closing == "alice" else rig.bob
        await rig.move("127.0.0.9")  # where nobody looks
        keeping.pop("bob" if closing == "alice" else "alice").cancel()
        await rig.wait(lambda: life(side) == [1, "over"] and isinstance(side.told[-1], LinkProgress))
        began = time.monotonic()
        side.keeper.begin_close()
        await keeping[closing]
        assert time.monotonic() - began < rig.options.close_timeout_s  # it waits for nobody's goodbye
        assert not side.heard(LinkFailed)

    run(scenario)


def test_a_keeper_that_is_cancelled_while_it_ends_leaves_nothing_either() -> None:
    async def scenario(rig: Rig) -> None:
        has_ended = asyncio.Event()

        async def reluctant() -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await has_ended.wait()

        keeping = rig.alice.start()
        await asyncio.sleep(0)
        task = rig.alice.keeper._spawn(reluctant())
        await asyncio.sleep(0)
        rig.alice.keeper.begin_close()
        await rig.wait(lambda: task.cancelling())
        keeping.cancel()
        await asyncio.wait([keeping])
        assert keeping.cancelled()
        has_ended.set()
        await task

    run(scenario)


def test_a_refusal_after_the_first_link_is_no_end() -> None:
    """Alice is started again with other parameters, and then with the right ones."""

    async def scenario(rig: Rig) -> None:
        [first, keeping] = await rig.up()
        for digest, is_right in ((b"x" * 32, False), (rig.options.parameter_digest, True)):
            first.cancel()
            await asyncio.wait([first])
            rig.alice.close()
            rig.alice = Side(rig.loop, rig.parties[0], replace(rig.options, parameter_digest=digest))
            first = rig.alice.start()
            if not is_right:
                await rig.wait(lambda: "PARAMETERS" in str(rig.bob.heard(LinkProgress)[-1:]))
        await rig.wait(lambda: rig.bob.heard(Lanes)[-1].epoch == 2)
        assert not rig.bob.heard(LinkFailed)
        for task in (first, keeping):
            task.cancel()
        await asyncio.wait([first, keeping])

    run(scenario)


def test_who_says_to_be_a_peer_that_is_silent_is_to_come_again_and_one_that_is_not_is_refused() -> None:
    """Twice somebody says to be bob; the first time bob has stopped answering."""

    async def scenario(rig: Rig) -> None:
        keeping = await rig.up()
        multiplexer = rig.bob.keeper._standing
        assert multiplexer is not None
        multiplexer._control.stream.on_readable(None)
        while (code := await refusal(rig)) is RejectCode.DUPLICATE_IDENTITY:
            pass  # alice may still read what bob said before
        assert code is RejectCode.BUSY
        multiplexer._control.stream.on_readable(multiplexer._control.receive)
        while (code := await refusal(rig)) is RejectCode.BUSY:
            pass  # bob's sign of life may be late on a machine that is busy
        assert code is RejectCode.DUPLICATE_IDENTITY
        assert life(rig.alice) == life(rig.bob) == [1]
        for task in keeping:
            task.cancel()
        await asyncio.wait(keeping)

    run(scenario, heartbeat_interval_s=9.0, heartbeat_timeout_s=19.0)


async def refusal(rig: Rig) -> RejectCode:
    core = Handshake(Role.INITIATOR, Hello("bob", "alice", os.urandom(32), party_set=("alice", "bob")), ALICE_OF_BOB)
    ours, theirs = socket.socketpair()
    with ours:
        ours.setblocking(False)
        with theirs:
            rig.alice.gateway.send(Accepted(ALICE_OF_BOB, ""), [theirs.fileno()])
        await rig.loop.sock_sendall(ours, core.data_to_send())
        answer = await rig.loop.sock_recv(ours, 4096)
        with pytest.raises(HandshakeRejected) as rejected:
            core.receive_data(answer)
        return rejected.value.code


# How long, how often.


def test_links_that_do_not_stand_are_made_anew_at_ever_longer_intervals() -> None:
    now = [0.0]
    redial = Redial(lambda: now[0])
    pauses = []
    for _ in range(9):
        redial.link_is_up()
        pauses.append(redial.next_pause_s(clean=False))
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (PAUSE_MIN_S, PAUSE_MAX_S)
    redial.link_is_up()
    now[0] += STEADY_S
    assert redial.next_pause_s(clean=False) == PAUSE_MIN_S
    redial.link_is_up()
    now[0] += STEADY_S
    assert redial.next_pause_s(clean=True) == GOODBYE_PAUSE_S


def test_a_process_is_started_again_so_often_within_the_window() -> None:
    restarts = Restarts()
    assert all(restarts.may_start("link 1", float(second)) for second in range(RESTARTS_MAX))
    assert not restarts.may_start("link 1", RESTARTS_MAX)
    assert restarts.may_start("link 2", RESTARTS_MAX)
    assert not restarts.may_start("link 1", WINDOW_S - 0.5)
    assert restarts.may_start("link 1", WINDOW_S)
    assert not restarts.may_start("link 1", WINDOW_S + 0.5)
