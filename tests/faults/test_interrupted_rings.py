"""A worker that was interrupted (Ctrl-C) in the middle of a ring: the link comes back by itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from partywire.workers.errors import PeerAborted, PeerLost
from tests.faults.rig import DEADLINE_S, Parties, errors, play, stop, until

if TYPE_CHECKING:
    from partywire.workers.peer_link import PeerLink

pytestmark = pytest.mark.timeout(120)


def interrupt_receiving(link: PeerLink) -> None:
    """Leave a pass over the ring of a connection in its middle."""
    [lane] = link.lanes.values()
    lane.is_urgent = True  # as tests/workers/test_interrupted_pass.py finds it behind an exception


def interrupt_control(link: PeerLink) -> None:
    assert link.control is not None
    link.control._is_receiving = link.control.is_urgent = True


def test_the_link_of_an_interrupted_worker_is_made_anew_whatever_it_was_doing() -> None:
    async def scenario() -> None:
        async with Parties(3) as parties:
            alice, bob, charlie = parties.parties
            ours, theirs = alice.worker.links[1], bob.worker.links[0]
            for epoch, interrupt in enumerate((interrupt_receiving, interrupt_control), 2):
                talks = await parties.talk(again=True)
                interrupt(ours)
                failed = await errors(talks)
                assert all(isinstance(error, (PeerLost, PeerAborted)) for error in failed), failed
                await until(lambda: (ours.epoch, theirs.epoch) == (epoch, epoch))  # noqa: B023 - awaited in its turn
                assert ours.is_up
            assert {link.epoch for link in charlie.worker.links.values()} == {1}
            await stop(await parties.talk(again=True))

    play(scenario())


def test_what_is_asked_of_an_epoch_that_is_over_is_not_done() -> None:
    async def scenario() -> None:
        async with Parties(2) as parties:
            alice, bob = parties.parties
            link = alice.worker.links[1]
            talks = await parties.talk()
            link.epoch += 1  # one that is still to come
            alice.worker.link_life.ask_for_link(link, "too early")
            link.epoch -= 1
            await parties.go_on(talks, 20)
            assert (link.epoch, bob.worker.links[0].epoch) == (1, 1)
            alice.worker.link_life.ask_for_link(link, "in vain")
            alice.worker.link_life.ask_for_link(link, "asked for twice")
            await errors(talks)
            await until(lambda: link.epoch == bob.worker.links[0].epoch == 2)
            talks = await parties.talk(again=True)
            await parties.go_on(talks, 20)
            assert link.epoch == 2
            await stop(talks)

    play(scenario())


def test_a_party_that_closes_asks_for_nothing() -> None:
    async def scenario() -> None:
        async with Parties(2) as parties:
            alice = parties.parties[0]
            link = alice.worker.links[1]
            closing = asyncio.ensure_future(alice.close())
            await asyncio.sleep(0)
            alice.worker.link_life.ask_for_link(link, "too late")
            await asyncio.wait_for(closing, DEADLINE_S)
            await until(lambda: parties.parties[1].worker.links[0].is_closed)
            assert not parties.parties[1].worker.links[0].cause

    play(scenario())
