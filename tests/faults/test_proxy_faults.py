"""Two parties over a network that delays, trickles, cuts, corrupts and swallows: whole messages, or a typed error."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from partywire.engine.preamble import ConnectionClass
from partywire.workers.errors import PeerAborted, PeerLost
from partywire.workers.keygen import new_keys, write_files
from tests.faults.proxy import NO_FAULT, Fault, FaultProxy
from tests.faults.rig import Parties, errors, play, stop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(120)

HEADER_SIZE = 9  # of a frame that carries bytes: session, descriptor, length
SIZE = 1000


class Pair:
    """Alice and bob, who dials her through a proxy."""

    def __init__(self, **settings: Any) -> None:
        self.proxy: FaultProxy
        self.parties = Parties(2, self._through, **settings)

    def _through(self, alice: tuple[str, int]) -> dict[tuple[str, str], tuple[str, int]]:
        self.proxy = FaultProxy(alice)
        return {("bob", "alice"): self.proxy.address}


@contextmanager
def pair(**settings: Any) -> Iterator[Pair]:
    made = Pair(**settings)
    with made.proxy:
        yield made


def check_lost(found: list[BaseException]) -> None:
    """Both ends say whom they lost, in which session, and why."""
    for error, peer in zip(found, ("bob", "alice"), strict=True):
        assert isinstance(error, PeerLost), error
        assert error.peer == peer
        assert error.session is not None
        assert error.cause


@pytest.mark.parametrize(
    "fault",
    [
        Fault(cut_at=HEADER_SIZE // 2, only=ConnectionClass.NORMAL),
        Fault(close_at=SIZE // 2, only=ConnectionClass.NORMAL),
        Fault(swallows=True),
    ],
    ids=["cut in a header", "half closed in a frame", "swallowed"],
)
def test_a_broken_link_is_told_at_both_ends(fault: Fault) -> None:
    heartbeat_s = 0.6

    async def scenario(made: Pair) -> None:
        async with made.parties as parties:
            talks = await parties.talk(SIZE)
            began = time.monotonic()
            made.proxy.there = fault
            if fault.swallows:
                made.proxy.back = fault
            check_lost(await errors(talks))
            if fault.swallows:
                assert min(talk.ended_at for talk in talks) - began > heartbeat_s / 2
            made.proxy.set_both(NO_FAULT)
            await stop(await parties.talk(SIZE, again=True))

    with pair(heartbeat_s=heartbeat_s) as made:
        play(scenario(made))


def test_a_link_that_is_slow_and_in_pieces_carries_everything() -> None:
    async def scenario(made: Pair) -> None:
        made.proxy.there = Fault(slice_size=1)  # the handshakes too
        async with made.parties as parties:
            talks = await parties.talk(20)
            made.proxy.set_both(Fault(delay_s=0.03))
            await parties.go_on(talks)
            made.proxy.set_both(NO_FAULT)
            await parties.go_on(talks, 100)
            await stop(talks)

    with pair() as made:
        play(scenario(made))


@pytest.mark.parametrize("kind", ["noise", "tls"])
def test_a_secured_link_delivers_no_byte_that_was_changed_on_the_way(kind: str, tmp_path: Path) -> None:
    files, tables = new_keys(["alice", "bob"], kind, 1, prefix=f"{tmp_path}/")
    write_files(tmp_path, files)

    async def scenario(made: Pair) -> None:
        async with made.parties as parties:
            talks = await parties.talk(SIZE)
            made.proxy.there = Fault(corrupt_at=3 * SIZE, only=ConnectionClass.NORMAL)
            for error in await errors(talks):  # what arrives is compared with what was sent
                assert isinstance(error, (PeerLost, PeerAborted)), error
            made.proxy.there = NO_FAULT
            await stop(await parties.talk(SIZE, again=True))

    with pair(security=tables) as made:
        play(scenario(made))


def test_plaintext_detects_a_corrupt_head_of_a_frame_and_no_corrupt_payload() -> None:
    """Without a channel there is no integrity beyond that of TCP (docs/security.md); what can be seen is told."""

    async def scenario(made: Pair) -> None:
        async with made.parties as parties:
            ours, theirs = await parties.sessions()
            made.proxy.there = Fault(corrupt_at=HEADER_SIZE + 10, only=ConnectionClass.NORMAL)
            await theirs.send("alice", bytes(SIZE))
            assert await ours.recv("bob", timeout=20) == bytes(10) + b"\xff" + bytes(SIZE - 11)
            made.proxy.there = Fault(corrupt_at=HEADER_SIZE - 1, only=ConnectionClass.NORMAL)
            await theirs.send("alice", bytes(SIZE))
            with pytest.raises(PeerLost, match="announced a BYTES frame of"):
                await ours.recv("bob", timeout=20)
            with pytest.raises((PeerLost, PeerAborted)):
                await theirs.recv("alice", timeout=20)

    with pair(message_mib=1) as made:
        play(scenario(made))
