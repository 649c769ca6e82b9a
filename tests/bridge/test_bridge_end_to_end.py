"""Substreams between the openers of two real parties: over their links, through rings, also when a process dies."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from partywire import NodeConfig, Party, PartyConfig, Ring64
from partywire.engine.errors import PartyWireError
from partywire.engine.yamux.errors import SubstreamReset, SubstreamSessionOver
from partywire.workers.errors import PeerLost
from tests.support.reserved_ports import reserved_ports

if TYPE_CHECKING:
    from pathlib import Path

    from partywire.engine.substreams.streams import SubstreamReader, SubstreamWriter

TIMEOUT_S = 60.0

ECHO = "/test/echo/1"

HANDLERS = """
async def shout(connection, reader, writer):
    line = await reader.readline()
    if not line.strip():
        raise ValueError("nothing to shout")
    writer.write(line.upper())
"""


async def echo(_: object, reader: SubstreamReader, writer: SubstreamWriter) -> None:
    while data := await reader.read(50_000):
        writer.write(data)
        await writer.drain()


async def ask(party: Party, peer: str, data: bytes) -> bytes:
    """Have bytes echoed by the opener of a peer."""
    reader, writer = await party.node.open(peer, ECHO)

    async def send() -> None:
        writer.write(data)
        await writer.drain()
        writer.write_eof()

    _, echoed = await asyncio.gather(send(), reader.read())
    return echoed


async def talk(parties: list[Party]) -> None:
    """A round of a session, which has its own connections."""
    sessions = await asyncio.gather(*(party.make_sessions(1, timeout=TIMEOUT_S) for party in parties))
    values = await asyncio.gather(
        *(session.gather(Ring64(index), timeout=TIMEOUT_S) for index, [session] in enumerate(sessions))
    )
    assert values == [[Ring64(0), Ring64(1)]] * 2


def test_openers_talk_over_their_link_and_again_when_its_process_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "handlers_of_link.py").write_text(HANDLERS)
    monkeypatch.chdir(tmp_path)  # where an I/O process looks for modules

    async def everybody(ports: list[int]) -> None:
        parties = dict(zip(("alice", "bob"), (("127.0.0.1", port) for port in ports), strict=True))
        handlers = {"/test/shout/1": "handlers_of_link:shout"}
        nodes = {
            "alice": NodeConfig(identity="alice.key"),
            "bob": NodeConfig(identity="bob.key", protocols=handlers),
        }
        alice, bob = both = [Party(PartyConfig(name=name, parties=parties, node=nodes[name])) for name in parties]
        bob.protocol(ECHO)(echo)
        async with AsyncExitStack() as stack:
            await asyncio.gather(*(stack.enter_async_context(party) for party in both))
            data = random.Random(3).randbytes(700_000)  # more than a ring and the windows hold
            assert await ask(alice, "bob", data) == data
            reader, writer = await alice.node.open("bob", "/test/shout/1")
            writer.write(b"hello\n")
            assert await reader.readline() == b"HELLO\n"
            reader, writer = await alice.node.open("bob", "/test/shout/1")
            writer.write(b"\n")
            with pytest.raises(SubstreamReset):
                await reader.readline()
            reader, writer = await alice.node.open("bob", ECHO)
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
            sessions = await asyncio.gather(*(party.make_sessions(1, timeout=TIMEOUT_S) for party in both))
            os.kill(alice.pids["link 1"], signal.SIGKILL)
            with pytest.raises(SubstreamSessionOver, match="bob"):
                await reader.read()
            for [session] in sessions:
                with pytest.raises(PeerLost):
                    await session.gather(Ring64(0), timeout=TIMEOUT_S)
            deadline = time.monotonic() + TIMEOUT_S
            while True:
                try:
                    assert await ask(alice, "bob", b"again") == b"again"
                    break
                except PartyWireError:  # the link is being made anew
                    assert time.monotonic() < deadline
                    await asyncio.sleep(0.02)
            await talk(both)

    with reserved_ports(2) as ports:
        asyncio.run(asyncio.wait_for(everybody(ports), TIMEOUT_S))
    said = capfd.readouterr().err
    assert "partywire: bob: the I/O process of the link to alice: the handler of /test/shout/1 failed for peer" in said
    assert "ValueError: nothing to shout" in said


def test_a_handler_that_is_not_there_ends_the_start_with_a_sentence(tmp_path: Path) -> None:
    async def open_party(ports: list[int]) -> None:
        parties = dict(zip(("alice", "bob"), (("127.0.0.1", port) for port in ports), strict=True))
        node = NodeConfig(identity=tmp_path / "key", protocols={ECHO: "no_such_module:echo"})
        party = Party(PartyConfig(name="alice", parties=parties, node=node))
        with pytest.raises(PartyWireError, match=r"no_such_module:echo, cannot be loaded"):
            await party.open()

    with reserved_ports(2) as ports:
        asyncio.run(asyncio.wait_for(open_party(ports), TIMEOUT_S))
