"""The processes of the measurement: one party each, and the stranger; each obeys its parent's pipe.

Between the parent, which says what to play, and a Party under asyncio and uvloop, since messages need a loop. Between
two plays a loop stands still, and with it the load.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import uvloop

from partywire import Party, PartyConfig, PeerNode
from partywire.engine.peers.options import PeerOptions
from partywire.perf.processes import usage_of
from partywire.perf.workloads import RingRounds
from partywire.workers.node.config import NodeConfig

from .load import OPENER_ECHO, PROTOCOLS, Done, echo, load_openers, load_process

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable
    from multiprocessing.connection import Connection

    from partywire import Session

PARTIES = ("alice", "bob", "charlie")
SENDER, TAKER = PARTIES[0], PARTIES[1]
NETWORK_BYTE = 0x26
SIZE = 64
CONNECT_S = 60.0
ROLES = ("opener", "link", "gateway", "supervisor", "node")


@dataclass(frozen=True, slots=True)
class Play:
    """Rounds of so many sessions, or none for so many seconds, with or without load from the sender."""

    sessions: int
    rounds: int
    has_load: bool
    seconds: float = 0.0


class Played(NamedTuple):
    """How long it took, CPU seconds of each role, and what the load came to."""

    seconds: float
    cpu_s: dict[str, float]
    done: Done


class PartyPlayer:
    """One party with its sessions, by their number."""

    def __init__(self, party: Party, sizes: tuple[int, ...]) -> None:
        self._party = party
        self._sizes = sizes
        self._sessions: dict[int, list[Session]] = {}
        self._draining: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """With everything that later plays need, which cost nothing until then."""
        if self._party.config.node is not None:
            self._party.protocol(OPENER_ECHO)(echo)
        await self._party.open()
        for size in self._sizes:
            self._sessions[size] = await self._party.make_sessions(size)
        if self._party.config.node is not None:
            self._draining = asyncio.create_task(self._drain())

    async def _drain(self) -> None:
        async for _ in self._party.node.messages:
            pass

    async def play(self, play: Play) -> Played:
        """One play, between two barriers."""
        party = self._party
        await party.barrier()
        before, start = self._cpu_s(), time.perf_counter()
        is_over = asyncio.Event()
        load = None
        if play.has_load and party.name == SENDER:
            load = asyncio.create_task(load_openers(party, TAKER, is_over))
        if play.sessions:
            work = RingRounds(play.sessions, SIZE, len(party.names))
            sessions = self._sessions[play.sessions]
            await asyncio.gather(
                *(
                    work.play(session, session.party_index, number, play.rounds, None)
                    for number, session in enumerate(sessions)
                )
            )
        else:
            await asyncio.sleep(play.seconds)
        seconds = time.perf_counter() - start
        after = self._cpu_s()
        is_over.set()
        done = Done() if load is None else await load
        await party.barrier()
        return Played(seconds, {role: after[role] - before[role] for role in ROLES}, done)

    def _cpu_s(self) -> dict[str, float]:
        found = dict.fromkeys(ROLES, 0.0)
        pids = {role.partition(" ")[0]: set[int]() for role in ROLES}
        for role, pid in {"opener": os.getpid(), **self._party.pids}.items():
            pids.setdefault(role.partition(" ")[0], set()).add(pid)
        for role in ROLES:
            found[role] = usage_of(pids[role]).cpu_s
        return found

    async def close(self) -> None:
        """After all plays."""
        if self._draining is not None:
            self._draining.cancel()
        await self._party.close()


def run_party(
    index: int,
    listener: socket.socket,
    ports: list[int],
    folder: str,
    sizes: tuple[int, ...],
    pipe: Connection,
) -> None:
    """One party until its parent says None. `folder`: of its identity; empty for a party without a control plane."""
    name = PARTIES[index]
    node = None
    if folder:
        options = PeerOptions(network_byte=NETWORK_BYTE)
        key = Path(folder) / f"{name}.key"
        node = NodeConfig(identity=key, connections=options, protocols=PROTOCOLS, strangers=True)
    addresses = {other: ("127.0.0.1", port) for other, port in zip(PARTIES, ports, strict=False)}
    config = PartyConfig(name=name, parties=addresses, node=node, connect_s=CONNECT_S)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        player = PartyPlayer(party := Party(config, listener), sizes)
        runner.run(player.open())
        try:
            pipe.send(str(party.node.peer_id) if node is not None else "")
            while (play := pipe.recv()) is not None:
                pipe.send(runner.run(player.play(play)))
        finally:
            runner.run(player.close())


def run_stranger(peer_id: str, port: int, pipe: Connection) -> None:
    """A node that is no party: loads the node of one, from a True to the next False, until its parent says None."""

    async def run() -> None:
        options = PeerOptions(network_byte=NETWORK_BYTE)
        async with PeerNode(NodeConfig(connections=options)) as node:
            node.add_peer(peer_id, f"/ip4/127.0.0.1/tcp/{port}")
            connection = await node.connect(peer_id)
            pipe.send(str(node.peer_id))
            while await word():
                is_over = asyncio.Event()
                before = usage_of([os.getpid()]).cpu_s
                load = asyncio.create_task(load_process(connection, is_over))
                pipe.send(True)
                await word()
                cpu_s = usage_of([os.getpid()]).cpu_s - before
                is_over.set()
                pipe.send((cpu_s, await load))

    def word() -> Awaitable[Any]:
        return asyncio.get_running_loop().run_in_executor(None, pipe.recv)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
