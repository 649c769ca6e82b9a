"""What the HTTP front can do: requests a second, and how long one takes.

A service of two parties on this host, and clients in this process that speak bare sockets, each with one connection
that is kept: a request is sent when the answer before it has come. So the figures are those of the front, the ring and
the worker that answers (GET /health, a route that does nothing), and of this process, which shares the machine's cores
with them. Latency is from before the request's `send` to after its answer's last byte.
What would make it lie: a machine with few cores; then the clients are measured with it.
"""

from __future__ import annotations

import argparse
import re
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from partywire.perf.report import Figure, print_figures

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUEST = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
START_TIMEOUT_S = 60.0
ANSWER_TIMEOUT_S = 10.0
WARM_UP_S = 0.2


class ServiceFailed(Exception):
    """Raised when the service does not start or does not answer; the text says so."""


@contextmanager
def service() -> Iterator[int]:
    """A running service; the port of its first party."""
    command = [sys.executable, "-m", "partywire", "serve", "--local", "2", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield port_of(process)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(START_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()


def port_of(process: subprocess.Popen[str]) -> int:
    """Read what the service says until the first party serves."""
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.match(r"alice serves http://127\.0\.0\.1:(\d+) ", line):
            return int(found[1])
    raise ServiceFailed("the service did not start; see what it wrote")


def play(port: int, clients: int, seconds: float) -> list[float]:
    """Latencies in microseconds of all requests that `clients` connections made meanwhile."""
    socks = [socket.create_connection(("127.0.0.1", port), ANSWER_TIMEOUT_S) for _ in range(clients)]
    try:
        return ask(socks, seconds)
    finally:
        for sock in socks:
            sock.close()


def ask(socks: list[socket.socket], seconds: float) -> list[float]:
    poller = select.epoll()
    by_fd = {sock.fileno(): sock for sock in socks}
    sent: dict[int, float] = {}
    latencies: list[float] = []
    clock = time.perf_counter
    try:
        for fd, sock in by_fd.items():
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            poller.register(fd, select.EPOLLIN)
            sent[fd] = clock()
            sock.send(REQUEST)
        end = clock() + seconds
        while clock() < end:
            events = poller.poll(ANSWER_TIMEOUT_S)
            if not events:
                raise ServiceFailed(f"no answer came within {ANSWER_TIMEOUT_S:g} s")
            for fd, _ in events:
                sock = by_fd[fd]
                answer = sock.recv(65536)
                if not answer.startswith(b"HTTP/1.1 200 ") or not answer.endswith(b"}"):
                    raise ServiceFailed(f"an answer begins with {answer[:40]!r}")
                now = clock()
                latencies.append((now - sent[fd]) * 1e6)
                sent[fd] = now
                sock.send(REQUEST)
    finally:
        poller.close()
    return latencies


def measure(seconds: float, clients: int, repeats: int) -> list[Figure]:
    """Requests a second of one client and of several, and the latency of one."""
    rates: dict[int, list[float]] = {1: [], clients: []}
    middle, late = [], []
    with service() as port:
        for count in rates:
            play(port, count, WARM_UP_S)
        for _ in range(repeats):
            for count, found in rates.items():
                latencies = sorted(play(port, count, seconds))
                found.append(len(latencies) / seconds)
                if count == 1:
                    middle.append(latencies[len(latencies) // 2])
                    late.append(latencies[len(latencies) * 99 // 100])
    return [
        Figure("http: requests of one client", "/s", tuple(rates[1]), None, False),
        Figure(f"http: requests of {clients} clients", "/s", tuple(rates[clients]), None, False),
        Figure("http: latency p50 of one client", "us", tuple(middle), None, True),
        Figure("http: latency p99 of one client", "us", tuple(late), None, True),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m partywire.perf.http", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repeats", type=int, default=3, help="plays of each number of clients (3)")
    parser.add_argument("--seconds", type=float, default=3, help="how long one play takes (3)")
    parser.add_argument("--clients", type=int, default=16, help="connections at once, beside one alone (16)")
    parser.add_argument("--json", action="store_true", help="JSON lines instead of a table")
    parser.add_argument("--smoke", action="store_true", help="tiny: does it run at all?")
    options = parser.parse_args()
    seconds, repeats = (0.1, 1) if options.smoke else (options.seconds, options.repeats)
    print_figures(measure(seconds, options.clients, repeats), json=options.json)


if __name__ == "__main__":
    main()
