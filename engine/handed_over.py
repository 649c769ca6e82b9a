"""Connections that the gateway hands to the process that serves them, taken from the socket that they come on."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

from .commands import Accepted
from .control_socket import DescriptorsLost, close_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .control_socket import ControlSocket

ACCEPT_BATCH: Final = 16
"""Connections taken in one turn of the loop, so that a crowd of them delays no message for long."""


def handed_over(gateway: ControlSocket) -> Iterator[tuple[Accepted, socket.socket]]:
    """What is there now, at most ACCEPT_BATCH. Each socket is the caller's from there on.

    Raises:
        ControlClosed: the gateway's end is gone for good.
        CommandError: it sent what is no message; the socket is closed.
    """
    for _ in range(ACCEPT_BATCH):
        try:
            received = gateway.try_receive()
        except DescriptorsLost:
            continue  # we have no room for one more; whoever it was dials again
        if received is None:
            return
        message, fds = received
        if isinstance(message, Accepted) and len(fds) == 1:
            yield message, socket.socket(fileno=fds[0])
        else:
            close_all(fds)
