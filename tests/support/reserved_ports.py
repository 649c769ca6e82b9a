"""Loopback ports that nobody else gets while a test writes them into configuration files."""

from __future__ import annotations

import socket
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def reserved_ports(count: int) -> Iterator[list[int]]:
    """Ports chosen by the kernel. Each stays bound by a socket that never listens: with SO_REUSEADDR at both, a
    gateway may still bind and listen there, while the kernel gives the port to no other test."""
    with ExitStack() as stack:
        ports = []
        for _ in range(count):
            holder = stack.enter_context(socket.socket())
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind(("127.0.0.1", 0))
            ports.append(holder.getsockname()[1])
        yield ports
