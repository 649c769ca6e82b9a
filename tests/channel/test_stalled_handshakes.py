"""A handshake that stops, or comes in drops, at any place and in either direction: both ends give up in time."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import pytest

from partywire.engine import greeting, limits
from partywire.engine.errors import HandshakeRejected
from partywire.engine.exchange import receive_some, send_all
from partywire.engine.greeting import GreetingFailed, greet
from partywire.engine.guard import Guard
from partywire.engine.handshake import Handshake, Role
from partywire.engine.handshake_messages import Hello
from partywire.engine.memory import memory_pair
from partywire.engine.preamble import PREAMBLE_SIZE, ConnectionClass, Preamble, SecurityMode
from partywire.engine.topology import routing_tag
from tests.support.certificates import issue, noise_links, tls_link

if TYPE_CHECKING:
    from partywire.engine.channel.link_security import LinkSecurity
    from partywire.engine.transport import Stream

DEADLINE_S: Final = 0.15
CEILING_S: Final = 10.0
"""For two handshakes, the channel's and that inside it, and two farewells, on a machine with other things to do."""

Ends = tuple["LinkSecurity", "LinkSecurity"]


@pytest.fixture(scope="module")
def ends_by_kind(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ends]:
    """Alice, and bob, who dials."""
    folder = tmp_path_factory.mktemp("keys")
    ca = issue("ca", is_ca=True).write(folder, "ca")
    alice, bob = (tls_link(issue(name, ca).write(folder, name), ca=ca) for name in ("alice", "bob"))
    return {"tls": (alice, bob), "noise": noise_links(folder, SecurityMode.NOISE_XX_AES)}


def hello(name: str, peer: str) -> Hello:
    return Hello(name, peer, name.encode().ljust(32), party_set=("alice", "bob"))


async def dial(below: Stream, security: LinkSecurity, preamble: bytes) -> None:
    stream, opening = await Guard(asyncio.get_running_loop(), "bob", "alice", security).admit_dialled(below, preamble)
    await greet(stream, Handshake(Role.INITIATOR, hello("bob", "alice"), preamble), "alice", opening)


async def accept(below: Stream, security: LinkSecurity, preamble: bytes) -> None:
    stream = await Guard(asyncio.get_running_loop(), "alice", "bob", security).admit_accepted(below, preamble)
    await greet(stream, Handshake(Role.RESPONDER, hello("alice", "bob"), preamble), "bob")


class Relay:
    """Passes on the first bytes of one direction; of the rest nothing, or a byte now and then."""

    def __init__(self, size: int, drops: bool) -> None:
        self.left = size
        self.passed = 0
        self._drops = drops

    async def run(self, source: Stream, sink: Stream) -> None:
        while data := await receive_some(source):
            size = min(len(data), self.left)
            self.left -= size
            self.passed += size
            await send_all(sink, data[:size])
            for byte in data[size:] if self._drops else b"":
                await asyncio.sleep(DEADLINE_S / 5)
                await send_all(sink, bytes((byte,)))


async def run(ends: Ends, from_bob: Relay, from_alice: Relay) -> list[BaseException | None]:
    loop = asyncio.get_running_loop()
    (bob, bobs), (alices, alice) = memory_pair(loop, 1 << 16), memory_pair(loop, 1 << 16)
    preamble = Preamble(ConnectionClass.CONTROL, 0, routing_tag("alice", "bob"), ends[0].security_mode).encode()
    relays = [loop.create_task(from_bob.run(bobs, alices)), loop.create_task(from_alice.run(alices, bobs))]
    accepting = loop.create_task(_accept_behind(alice, ends[0], preamble))
    results = await asyncio.gather(dial(bob, ends[1], preamble), accepting, return_exceptions=True)
    for task in relays:
        task.cancel()
    await asyncio.gather(*relays, return_exceptions=True)
    for stream in (bob, bobs, alices, alice):
        stream.close()
    return list(results)


async def _accept_behind(below: Stream, security: LinkSecurity, preamble: bytes) -> None:
    received = b""
    while len(received) < len(preamble):  # the gateway's part
        room = memoryview(bytearray(len(preamble) - len(received)))
        ready = asyncio.Event()
        below.on_readable(ready.set)
        await ready.wait()
        below.on_readable(None)
        received += room[: below.try_recv_into(room) or 0]
    await accept(below, security, received)


FOREVER: Final = 1 << 30
PLACES: Final = 9
"""Where it stalls, from behind the first byte of the channel's handshake to within the last message inside it."""

MISSING_MIN: Final = 20
"""Bytes that are held back at least: signatures of TLS differ by a few, and so many drops outlast a deadline."""


@pytest.mark.parametrize("stalls", ["dialler", "acceptor"])
@pytest.mark.parametrize("kind", ["tls", "noise"])
@pytest.mark.parametrize("drops", [False, True], ids=["silence", "drops"])
def test_both_ends_of_a_handshake_that_stalls_give_up_in_time(
    ends_by_kind: dict[str, Ends], kind: str, stalls: str, drops: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = ends_by_kind[kind]

    async def stall(place: int) -> list[BaseException | None]:
        stalling, other = Relay(place, drops), Relay(FOREVER, False)
        return await run(ends, *((stalling, other) if stalls == "dialler" else (other, stalling)))

    async def scenario() -> None:
        whole = Relay(FOREVER, False), Relay(FOREVER, False)
        assert await run(ends, *whole) == [None, None]  # so that what ends the others is the stall
        monkeypatch.setattr(limits, "HANDSHAKE_TIMEOUT_S", DEADLINE_S)
        monkeypatch.setattr(greeting, "FAREWELL_TIMEOUT_S", DEADLINE_S)
        first, size = (PREAMBLE_SIZE + 1, whole[0].passed) if stalls == "dialler" else (1, whole[1].passed)
        last = size - MISSING_MIN
        places = [first + (last - first) * step // (PLACES - 1) for step in range(PLACES)]
        for results in await asyncio.gather(*(stall(place) for place in places)):
            failed = [result for result in results if result is not None]
            assert failed
            assert all(isinstance(result, GreetingFailed | HandshakeRejected) for result in failed), failed

    started = time.monotonic()
    asyncio.run(asyncio.wait_for(scenario(), CEILING_S))
    assert time.monotonic() - started < CEILING_S
