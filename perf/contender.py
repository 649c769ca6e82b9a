"""What a contender has to offer to be measured, and the list of those there are.

A contender is a module of `contenders/` with one function, `open_party`; everything else (starting processes, warm-up,
clocks, counters, reports) is the harness's and the same for all. Each party of a contender runs in a process of its
own, which may start more; all of them are counted.

A contender may lose nothing, reorder nothing within a session and direction, and buffer as it likes. It is written the
way a user of that library would write it: its own documentation's advice, no-delay sockets, and no trick that only a
benchmark plays.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import socket
    from contextlib import AbstractContextManager

    from .workloads import Workload


@dataclass(frozen=True, slots=True)
class Place:
    """Where one party of a contender stands."""

    party: int
    parties: int
    ports: tuple[int, ...]
    """Party i listens on 127.0.0.1:ports[i]."""
    dial_ports: tuple[int, ...]
    """Where to reach party i from here: its own port, or that of a link emulator before it."""
    listener: socket.socket
    """Bound and listening on our port; close it before binding the port in a library that insists on doing so itself
    (SO_REUSEADDR is set)."""


class OpenParty(Protocol):
    """One connected party, ready to play."""

    def play(self, units: int) -> list[list[int]]:
        """Play the workload on all its sessions at once, `units` times each; the same call at all parties.

        Returns the latencies in nanoseconds of each sampled session (the first SAMPLED_SESSIONS of them).
        """


class ContenderModule(Protocol):
    """The module's face."""

    def open_party(self, place: Place, work: Workload) -> AbstractContextManager[OpenParty]:
        """Connect to the other parties and make `work.sessions` channels. Leaving ends the party in good order: nobody
        else's last messages may be lost by it.
        """


class NotOffered(Exception):
    """Raised by `open_party` when a contender has no way to play this workload, or not on this machine. The text says
    why, and stands in its row instead of a figure."""


SAMPLED_SESSIONS = 4
"""Sessions whose latencies are recorded: enough for percentiles, few enough that reading the clock costs nothing."""

CONNECT_TIMEOUT_S = 30.0
"""A party that has not met the others by then gives up."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One row of every table."""

    name: str
    summary: str
    module: str
    """Within `partywire.perf.contenders`."""
    requires: tuple[str, ...] = ()
    """Importable modules without which the row is left out, with a line that says so."""
    is_ours: bool = False
    security: str = "none"
    """What protects its links: rows of different protection are compared with care."""

    def missing(self) -> list[str]:
        """Which of its requirements cannot be imported here."""
        return [name for name in self.requires if importlib.util.find_spec(name) is None]

    def load(self) -> ContenderModule:
        """Import its module."""
        module: ContenderModule = importlib.import_module(f"partywire.perf.contenders.{self.module}")
        return module


CONTENDERS: dict[str, Contender] = {
    contender.name: contender
    for contender in (
        Contender("partywire", "BatchRunner, one job a session, our own scheduler", "partywire_batch", is_ours=True),
        Contender("partywire-async", "Party in a uvloop loop, a task a session", "partywire_async", is_ours=True),
        Contender("partywire-in-process", "partywire, one process a party", "partywire_in_process", is_ours=True),
        Contender("partywire-one-io", "partywire, one I/O process a party", "partywire_one_io", is_ours=True),
        Contender("partywire-one-class", "partywire, no bulk sessions", "partywire_one_class", is_ours=True),
        Contender("partywire-sync", "BlockingParty, plain code, sessions in turn", "partywire_sync", is_ours=True),
        Contender("partywire-tls", "partywire over TLS 1.3", "partywire_tls", is_ours=True, security="tls"),
        Contender("partywire-aes", "over Noise, AES-256-GCM", "partywire_noise_aes", (), True, "noise-aes"),
        Contender("partywire-chacha", "over Noise, ChaCha20", "partywire_noise_chacha", (), True, "noise-chacha"),
        Contender("asyncio", "asyncio protocols, length-prefixed frames, a task a session", "asyncio_tasks"),
        Contender("streams", "asyncio streams, length-prefixed frames, a task a session", "asyncio_streams"),
        Contender("uvloop", "uvloop, length-prefixed frames, a task a session", "uvloop_tasks", ("uvloop",)),
        Contender("uvloop-joined", "the same, a turn's small frames in one write", "uvloop_joined", ("uvloop",)),
        Contender("pyzmq", "one PULL a party, a PUSH a peer, coroutines resumed directly", "pyzmq_sockets", ("zmq",)),
        Contender("pynng", "a PAIR a peer with deep queues, polled", "pynng_sockets", ("pynng",)),
        Contender("grpc", "grpc.aio, a bidirectional stream a session and pair", "grpc_stream", ("grpc",)),
        Contender("mpi", "mpi4py over TCP, isend and probed receives, tag = session", "mpi_tags", ("mpi4py",)),
        Contender("gloo", "torch.distributed with gloo over TCP, tag = session", "gloo_tags", ("torch",)),
    )
}  # fmt: skip
