"""How long a lost link is away: from the cut of its connections to the first round on new sessions.

Two parties on this host, linked through a relay that ends all connections at once, as a middlebox that is started again
does. Each party waits for a message of the other; it is told of the loss, waits for the link, makes a session and plays
one round on it. Times are those of the party that takes longer. The dialler's pause before it dials again, 25 to 50 ms
for a link that stood well, is part of them. Each sample is of new parties.
What would make it lie: other load.
"""

from __future__ import annotations

import argparse
import multiprocessing
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from partywire.perf.contenders.partywire_security import noise_of, tls_of
from partywire.perf.report import Figure, print_figures, warn_if_busy

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from partywire import PartyConfig

PARTIES: Final = ("alice", "bob")
"""Bob dials."""

MODES: Final = ("plaintext", "tls", "noise aes-256-gcm")
TIMEOUT_S: Final = 30.0


class Relay:
    """Passes connections on to `target_port` until it cuts them all. Its port is open from the beginning."""

    def __init__(self, target_port: int) -> None:
        self._target: Final = ("127.0.0.1", target_port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = []
        self.port: Final[int] = self._listener.getsockname()[1]
        self._start(self._accept)

    def _start(self, target: object, *ends: socket.socket) -> None:
        threading.Thread(target=target, args=ends, daemon=True).start()  # type: ignore[arg-type]

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
            except OSError:
                return  # closed
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
            self._ends += [near, far]
            self._start(self._pass_on, near, far)
            self._start(self._pass_on, far, near)

    def _pass_on(self, reads: socket.socket, writes: socket.socket) -> None:
        try:
            while data := reads.recv(1 << 16):
                writes.sendall(data)
        except OSError:
            pass  # cut
        finally:
            shut(writes, socket.SHUT_WR)

    def cut(self) -> None:
        """End every connection of this moment; later ones are passed on."""
        ends, self._ends = self._ends, []
        for end in ends:
            shut(end)

    def close(self) -> None:
        shut(self._listener)
        self._listener.close()
        self.cut()


def shut(end: socket.socket, how: int = socket.SHUT_RDWR) -> None:
    """A thread in a call on it returns."""
    try:
        end.shutdown(how)
    except OSError:
        pass  # it is shut already


def run_party(config: PartyConfig, mode: str, listener: socket.socket, results: Connection) -> None:
    """Send None once linked, then when the loss was told and when a round was played again (CLOCK_MONOTONIC, ns)."""
    from partywire import BlockingParty, PeerLost

    peer = PARTIES[1 - PARTIES.index(config.name)]
    with TemporaryDirectory() as folder:
        if mode != "plaintext":
            keys = Path(folder)
            security = tls_of(config, keys) if mode == "tls" else noise_of(config, keys, mode.removeprefix("noise "))
            config = replace(config, security=security)
        with BlockingParty(config, listener=listener) as party:
            (session,) = party.make_sessions(1)
            party.barrier()
            results.send(None)
            try:
                session.recv(peer, timeout=TIMEOUT_S)
            except PeerLost:
                told_ns = time.monotonic_ns()
            party.wait_for_links(TIMEOUT_S)
            (session,) = party.make_sessions(1, timeout=TIMEOUT_S)
            session.send(peer, b"here")
            session.recv(peer, timeout=TIMEOUT_S)
            results.send((told_ns, time.monotonic_ns()))
            party.barrier(timeout=TIMEOUT_S)


def cut_once(mode: str) -> tuple[float, float]:
    """Milliseconds from the cut until both parties were told, and until both had played a round again."""
    from partywire import PartyConfig

    context = multiprocessing.get_context("spawn")
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in PARTIES]
    relay = Relay(listeners[0].getsockname()[1])
    ports = (relay.port, listeners[1].getsockname()[1])
    addresses = {name: ("127.0.0.1", port) for name, port in zip(PARTIES, ports, strict=True)}
    pipes = [context.Pipe(duplex=False) for _ in PARTIES]
    processes = [
        context.Process(target=run_party, args=(PartyConfig(name=name, parties=addresses), mode, listener, pipe[1]))
        for name, listener, pipe in zip(PARTIES, listeners, pipes, strict=True)
    ]
    try:
        for process in processes:
            process.start()
        for receiver, _ in pipes:
            receive(receiver)
        start_ns = time.monotonic_ns()
        relay.cut()
        told_ns, again_ns = zip(*(receive(receiver) for receiver, _ in pipes), strict=True)
        for process in processes:
            process.join(TIMEOUT_S)
    finally:
        for process in processes:
            process.kill()
            process.join()
        for listener in listeners:
            listener.close()
        relay.close()
    return (max(told_ns) - start_ns) / 1e6, (max(again_ns) - start_ns) / 1e6


def receive(receiver: Connection) -> tuple[int, int]:
    """Raises RuntimeError when a party says nothing in time; why is on standard error."""
    if not receiver.poll(2 * TIMEOUT_S):
        raise RuntimeError(f"a party said nothing for {2 * TIMEOUT_S:g} s")
    answer: tuple[int, int] = receiver.recv()
    return answer


def measure(repeats: int, modes: tuple[str, ...]) -> list[Figure]:
    samples: dict[str, list[tuple[float, float]]] = {mode: [] for mode in modes}
    for _ in range(repeats):
        for mode in modes:
            samples[mode].append(cut_once(mode))
    figures = []
    for mode, times in samples.items():
        told, again = zip(*times, strict=True)
        figures += [
            Figure(f"{mode}: cut until both parties know", "ms", told, None, lower_is_better=True),
            Figure(f"{mode}: cut until a round is played again", "ms", again, None, lower_is_better=True),
        ]
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m partywire.perf.reconnect", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--repeats", type=int, default=5, help="cuts in each mode (5)")
    parser.add_argument("--json", action="store_true", help="JSON lines instead of a table")
    parser.add_argument("--smoke", action="store_true", help="tiny: does it run at all?")
    options = parser.parse_args()
    warn_if_busy()
    repeats, modes = (1, MODES[:1]) if options.smoke else (options.repeats, MODES)
    print_figures(measure(repeats, modes), json=options.json)


if __name__ == "__main__":
    main()
