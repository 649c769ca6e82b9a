"""The rival: mpi4py on Open MPI over TCP, one rank a party, tag = session.

A session's message is an `Isend`; the party polls with `Improbe` for messages of any session and resumes the one that
each is for (coroutines.py), which keeps every wait inside MPI as MPI programs do. Large messages are received into a
buffer that the session keeps for the peer, as MPI programs do, too: what `recv` returned is good until the session
receives from this peer again. Open MPI polls busily; with more ranks than cores it yields between polls by itself.

`mpirun` starts the ranks, while the harness starts the parties. So party 0 has mpirun start one small stand-in for each
rank, which hands its party the environment that makes a process this rank, and stays until the party is done.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
from collections import deque
from typing import TYPE_CHECKING, cast

from partywire.perf.contender import CONNECT_TIMEOUT_S, NotOffered
from partywire.perf.coroutines import TurnMailbox, Turns
from partywire.perf.mailboxes import plays_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mpi4py import MPI

    from partywire.perf.contender import Place
    from partywire.perf.workloads import Workload

OPTIONS = {
    "OMPI_MCA_pml": "ob1",
    "OMPI_MCA_btl": "tcp,self",
    "OMPI_MCA_btl_tcp_if_include": "lo",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
}
"""TCP over loopback and nothing else: no shared memory between ranks of a host. Root is what containers run as."""
VARIABLES = ("OMPI_", "OPAL_", "PMIX_", "PRTE_")
"""What makes a process a rank, by how the names of its environment variables begin."""
KEPT_SIZE_MIN = 16 * 1024
"""From here on receive buffers are used again: touching fresh memory costs more than the message. Below, a fresh one is
cheaper than the choice."""
MESSAGES_AT_ONCE = 256
"""Received before the sessions run again, at most."""


def rank_of_stand_in() -> None:
    """What mpirun runs: hand over our environment to the party whose port is next to our rank, and wait for its end."""
    environment = {name: value for name, value in os.environ.items() if name.startswith(VARIABLES)}
    port = int(sys.argv[1 + int(environment["OMPI_COMM_WORLD_RANK"])])
    with socket.create_connection(("127.0.0.1", port), CONNECT_TIMEOUT_S) as party:
        party.sendall(json.dumps(environment).encode() + b"\n")
        party.settimeout(None)
        # Which waits for the end of the connection as well as we could, in less memory.
        os.dup2(party.fileno(), 0)
        os.execvp("cat", ["cat"])


def find_mpirun() -> str:
    """The mpirun beside this interpreter, or that of the system.

    Raises NotOffered if there is none.
    """
    beside = os.path.join(sysconfig.get_path("scripts"), "mpirun")
    found = beside if os.path.exists(beside) else shutil.which("mpirun")
    if found is None:
        raise NotOffered("mpi4py is here, but no mpirun: install openmpi")
    return found


class TagChannel(TurnMailbox):
    """One session: its number is the tag of its messages."""

    __slots__ = ("_byte", "_communicator", "_kept_buffers", "_sends", "_session")

    def __init__(
        self,
        session: int,
        parties: int,
        turns: Turns,
        communicator: MPI.Comm,
        byte: MPI.Datatype,
        sends: deque[MPI.Request],
    ) -> None:
        super().__init__(parties, turns)
        self._session = session
        self._communicator = communicator
        self._byte = byte
        self._sends = sends  # those of all sessions that are not complete
        self._kept_buffers: dict[int, bytearray] = {}  # by peer

    def receive_buffer(self, peer: int, size: int) -> bytearray:
        """Where to put the peer's next message."""
        if size < KEPT_SIZE_MIN or self._awaited_peer != peer:
            return bytearray(size)  # if it comes early, the one before may still be in use
        kept = self._kept_buffers.get(peer)
        if kept is None or len(kept) != size:
            kept = self._kept_buffers[peer] = bytearray(size)
        return kept

    async def send(self, peer: int, value: bytes) -> None:
        if type(value) is not bytes:
            value = bytes(value)  # something received, whose buffer may be used again before this has left
        request = self._communicator.Isend((value, self._byte), peer, self._session)
        if not request.Test():
            self._sends.append(request)  # which keeps the value, too


class TagParty:
    """One rank, with its sessions as coroutines."""

    def __init__(self, work: Workload) -> None:
        """In a process whose environment is that of a rank."""
        import mpi4py

        # A party that fails must not wait in MPI_Finalize for the others.
        mpi4py.rc.finalize = False
        from mpi4py import MPI

        self._mpi = MPI
        self._communicator = MPI.COMM_WORLD
        self._work = work
        self._turns = Turns()
        self._sends: deque[MPI.Request] = deque()
        self._channels = [
            TagChannel(session, self._communicator.size, self._turns, self._communicator, MPI.BYTE, self._sends)
            for session in range(work.sessions)
        ]

    def play(self, units: int) -> list[list[int]]:
        """As in `OpenParty`. Ends with a barrier: MPI sends only while it is called, and that may not be soon again."""
        plays, latencies = plays_of(self._work, self._communicator.rank, self._channels, units)
        turns, sends = self._turns, self._sends
        turns.start(plays)
        turns.run()
        while turns.unfinished_count:
            while sends and sends[0].Test():
                sends.popleft()
            self._receive()
            turns.run()
        self._mpi.Request.Waitall(list(sends))
        sends.clear()
        self._communicator.Barrier()
        return latencies

    def _receive(self) -> None:
        """Deliver what has come, without waiting."""
        channels, probe, byte, status = self._channels, self._communicator.Improbe, self._mpi.BYTE, self._mpi.Status()
        for _ in range(MESSAGES_AT_ONCE):
            message = probe(self._mpi.ANY_SOURCE, self._mpi.ANY_TAG, status)
            if message is None:
                return
            channel, sender = channels[status.tag], status.source
            # A bytearray is as good as bytes to every workload, and making it bytes would copy a large message.
            received = channel.receive_buffer(sender, status.count)
            message.Recv((received, byte))
            channel.deliver(sender, cast("bytes", received))

    def leave(self) -> None:
        """Returns when every rank has come here."""
        self._mpi.Finalize()


@contextlib.contextmanager
def open_party(place: Place, work: Workload) -> Iterator[TagParty]:
    mpirun = find_mpirun()
    if place.dial_ports != place.ports:
        raise NotOffered("MPI connects its ranks over ports of its own choice, past an emulated link")
    with contextlib.ExitStack() as stack:
        starter = None
        if place.party == 0:
            starter = stack.enter_context(start_ranks(mpirun, place.ports))
        place.listener.settimeout(CONNECT_TIMEOUT_S)
        stand_in, _ = place.listener.accept()
        with stand_in, stand_in.makefile("rb") as lines:
            os.environ.update(json.loads(lines.readline()))
            party = TagParty(work)
            yield party
            party.leave()
        if starter is not None:
            starter.wait(CONNECT_TIMEOUT_S)


@contextlib.contextmanager
def start_ranks(mpirun: str, ports: tuple[int, ...]) -> Iterator[subprocess.Popen[bytes]]:
    """mpirun with a stand-in for each rank; killed if it does not end by itself before the block does."""
    command = [mpirun, "-n", str(len(ports)), "--map-by", ":OVERSUBSCRIBE", "--bind-to", "none"]
    stand_in = [sys.executable, "-m", __name__, *map(str, ports)]
    process = subprocess.Popen([*command, *stand_in], env=os.environ | OPTIONS, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    rank_of_stand_in()
