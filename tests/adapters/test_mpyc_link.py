"""What MPyC sees of a peer, over real sessions in one process."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from partywire import Party
from partywire.engine.errors import LinkProtocolError, PartyWireError
from partywire.workers.adapters import mpyc_link
from partywire.workers.adapters.mpyc_link import EARLY_OVERHEAD, LABEL, SMALL_SIZE_MAX, MpycLink
from partywire.workers.adapters.mpyc_transport import MpycTransport
from partywire.workers.config import PartyConfig
from partywire.workers.errors import InboxOverflow, PeerAborted, PeerLost
from partywire.workers.hot import IS_COMPILED
from partywire.workers.scheduler import Scheduler
from tests.workers.harness import NAMES, Table

if TYPE_CHECKING:
    from collections.abc import Iterator

PARTIES = {name: ("127.0.0.1", 7001 + index) for index, name in enumerate(NAMES[:2])}
ALICE, BOB = 0, 1


class Pair:
    """Two transports over the two workers of a table. `failed` has the pids that were told that they cannot go on."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring_size: int = 1 << 20, inbox_mib: int = 1) -> None:
        self.table = Table(2, ring_size=ring_size)
        (self.sessions,) = self.table.sessions(0)
        self.failed: list[int] = []
        self.is_ending = False  # whether a failure ends the program
        self.transports = [self._transport(loop, pid, inbox_mib) for pid in (ALICE, BOB)]
        self.table.schedulers = [Scheduler(worker) for worker in self.table.workers]
        for pid, transport in enumerate(self.transports):
            transport.attach(self.table.workers[pid], self.sessions[pid], self.table.schedulers[pid])
            transport.begin()

    def _transport(self, loop: asyncio.AbstractEventLoop, pid: int, inbox_mib: int) -> MpycTransport:
        config = PartyConfig(name=NAMES[pid], parties=PARTIES, inbox_mib=inbox_mib)
        return MpycTransport(
            config,
            loop,
            is_shutting_down=lambda: False,
            on_closed=lambda _: None,
            on_failure=lambda: self._has_failed(pid),
        )

    def _has_failed(self, pid: int) -> bool:
        self.failed.append(pid)
        return self.is_ending

    def link(self, pid: int) -> MpycLink:
        """The link of a party to the other one."""
        return self.transports[pid].links[1 - pid]

    def ok(self, pid: int, label: int) -> bytes:
        """A payload that has to be there."""
        payload = self.link(pid).receive(label)
        assert isinstance(payload, bytes)
        return payload

    def close(self) -> None:
        for worker in self.table.workers:
            worker.agents.clear()
        self.table.close()


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def pair(loop: asyncio.AbstractEventLoop) -> Iterator[Pair]:
    pair = Pair(loop)
    yield pair
    pair.close()


@pytest.mark.parametrize("size", [0, 1, SMALL_SIZE_MAX, SMALL_SIZE_MAX + 1, 300_000])
def test_a_payload_of_any_size_is_there_by_its_label(pair: Pair, size: int) -> None:
    payload = bytes(range(256)) * (size // 256 + 1)
    pair.link(ALICE).send(-(2**63), payload[:size])
    pair.link(ALICE).send(2**63 - 1, b"behind")
    pair.table.settle()
    assert pair.ok(BOB, 2**63 - 1) == b"behind"
    assert pair.ok(BOB, -(2**63)) == payload[:size]
    assert pair.link(ALICE).nbytes_sent == 12 + size + 12 + 6


def test_payloads_are_handed_out_in_the_order_in_which_they_are_asked_for(pair: Pair) -> None:
    expected = {label: pair.link(BOB).receive(label) for label in (3, 1)}
    for label in (1, 2, 3):
        pair.link(ALICE).send(label, b"%d" % label)
    pair.table.settle()
    for label, future in expected.items():
        assert isinstance(future, asyncio.Future)
        assert future.result() == b"%d" % label
    assert pair.ok(BOB, 2) == b"2"
    assert pair.transports[BOB].early_size == 0


def test_both_may_send_more_than_the_rings_hold_before_either_receives(loop: asyncio.AbstractEventLoop) -> None:
    pair = Pair(loop, ring_size=1 << 16, inbox_mib=64)
    try:
        for label in range(40):
            for pid in (ALICE, BOB):
                pair.link(pid).send(label, bytes([pid]) * 100_000)
        pair.table.settle()
        for label in range(40):
            for pid in (ALICE, BOB):
                assert pair.ok(pid, label) == bytes([1 - pid]) * 100_000
    finally:
        pair.close()


def test_send_waits_when_too_much_has_not_gone_out(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mpyc_link, "BACKLOG_SIZE_MAX", 4_000_000)
    pair = Pair(loop, inbox_mib=16)
    turns = 0

    def step() -> int:
        nonlocal turns
        turns += 1
        return pair.table.turn()

    try:
        pair.table.workers[ALICE].step = step  # type: ignore[method-assign]
        payload = bytes(1_000_000 - LABEL.size)
        for label in range(5):  # the first is on its way, and the four behind it are just all that may wait
            pair.link(ALICE).send(label, payload)
        assert turns == 0
        pair.link(ALICE).send(5, b"")
        assert turns > 0
        pair.table.settle()
        assert [len(pair.ok(BOB, label)) for label in range(6)] == [len(payload)] * 5 + [0]
    finally:
        pair.close()


def test_more_than_the_inbox_ahead_of_the_program_is_an_error(pair: Pair) -> None:
    size = (1 << 20) // 10 - EARLY_OVERHEAD
    for label in range(10):
        pair.link(ALICE).send(label, bytes(size))
    pair.table.settle()
    assert pair.failed == []
    pair.link(ALICE).send(10, b"")
    pair.table.settle()
    failure = pair.transports[BOB].failure
    assert isinstance(failure, InboxOverflow)
    assert failure.peer == "alice"
    assert isinstance(pair.transports[ALICE].failure, PeerAborted)
    assert pair.failed == [BOB, ALICE]


@pytest.mark.parametrize(
    ("messages", "what"),
    [
        ((b"seven b",), "a message without a label"),
        ((LABEL.pack(1), [1]), "a payload that is no bytes"),
        ((LABEL.pack(1) + b"x", LABEL.pack(1) + b"y"), "two payloads with one label"),
    ],
)
def test_what_no_adapter_sends_ends_the_session_everywhere(pair: Pair, messages: tuple[object, ...], what: str) -> None:
    import numpy as np

    async def send() -> None:
        for message in messages:
            await pair.sessions[ALICE].send(BOB, message if isinstance(message, bytes) else np.array(message))

    pair.table.ok(send())
    assert isinstance(pair.transports[BOB].failure, LinkProtocolError)
    assert what in str(pair.transports[BOB].failure)
    told = pair.transports[ALICE].failure
    assert isinstance(told, PeerAborted)
    assert what in told.reason


def test_whoever_waits_for_a_lost_peer_is_told_and_what_came_before_is_there(pair: Pair) -> None:
    pair.link(ALICE).send(1, b"before")
    pair.table.settle()
    waiting = pair.link(BOB).receive(2)
    pair.table.cut(ALICE, BOB)
    pair.table.settle()
    assert sorted(pair.failed) == [ALICE, BOB]
    assert pair.ok(BOB, 1) == b"before"
    pair.transports[BOB].fail_expected()
    assert isinstance(waiting, asyncio.Future)
    assert isinstance(waiting.exception(), PeerLost)
    with pytest.raises(PeerLost, match="alice"):
        pair.link(BOB).receive(3)
    with pytest.raises(PartyWireError, match="alice"):
        pair.link(BOB).send(3, b"after")


def test_a_program_that_is_being_ended_is_not_told_once_more(pair: Pair) -> None:
    pair.is_ending = True
    pair.table.cut(ALICE, BOB)
    pair.link(BOB).send(1, b"before anybody has noticed")
    pair.table.settle()
    pair.link(BOB).send(2, b"after")
    never = pair.link(BOB).receive(3)
    assert isinstance(never, asyncio.Future)
    assert not never.done()
    assert isinstance(pair.transports[BOB].failure, PeerLost)


def test_what_is_sent_alone_goes_out_at_once_and_what_is_sent_together_in_one_piece() -> None:
    """Between parties whose links are in this process, in one loop."""

    async def link(stack: AsyncExitStack, pid: int, listeners: list[socket.socket]) -> MpycLink:
        parties = {f"party{peer}": listener.getsockname()[:2] for peer, listener in enumerate(listeners)}
        config = PartyConfig(name=f"party{pid}", parties=parties, io="in-process")
        party = await stack.enter_async_context(Party(config, listeners[pid]))
        (session,) = await party.make_sessions(1)
        transport = MpycTransport(
            config,
            asyncio.get_running_loop(),
            is_shutting_down=lambda: False,
            on_closed=lambda _: None,
            on_failure=lambda: False,
        )
        transport.attach(party.worker, session, Scheduler(party.worker))
        transport.begin()
        return transport.links[1 - pid]

    async def arrival(link: MpycLink, label: int) -> bytes:
        payload = link.receive(label)
        return payload if isinstance(payload, bytes) else await payload

    async def play() -> None:
        async with asyncio.timeout(20), AsyncExitStack() as stack:
            listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
            alice, bob = await asyncio.gather(*(link(stack, pid, listeners) for pid in (ALICE, BOB)))
            lane = alice._lane

            def waits_behind(label: int) -> bool:
                alice.send(label, b"%d" % label)
                return lane.is_dirty

            assert waits_behind(0) is not IS_COMPILED
            assert [waits_behind(label) for label in (1, 2)] == [True, True]
            for label, is_at_once in ((3, False), (4, True)):
                bob.send(label, b"an arrival")
                await arrival(alice, label)
                assert waits_behind(label) is not (is_at_once and IS_COMPILED)
            assert [await arrival(bob, label) for label in range(5)] == [b"%d" % label for label in range(5)]

    asyncio.run(play())
