"""The supervisor's part in the party's node: starts its process, replaces it, and carries what it has to know.

Between the Supervisor, which owns every child and calls this for one of them, the opener, the gateway, and the I/O
processes, whose peers say who they are. The one invariant: the opener hears NodeFailed only of a node that never stood
and will not, and NodeLost between any two lanes.

The gateway's socket is made once, so what it hands over while the process is started again waits there. Claims of
linked peers, the latest of each, are kept for a process that comes later.

Imported only when a party has a node.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple

from .commands import CommandError, Here
from .control_socket import ControlSocket
from .node_commands import NodeFailed, NodeLane, NodeLost, RunNode
from .peers.wire import LIVENESS
from .restarts import STAYS_AWAY

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from .children import Child
    from .commands import LinkClaimed, Message, Start
    from .node_commands import NodeOptions
    from .supervisor_retries import Retries

NODE_ROLE: Final = "node"


class NodeSteps(NamedTuple):
    """What the supervisor does for this part of it."""

    start_child: Callable[[str, str], Child]
    """Starts a process and watches it: role, module."""
    send: Callable[[ControlSocket, Message, Sequence[int]], None]
    """Sends or holds a message; never waits."""
    may_restart: Callable[[str], bool]
    """Whether the process of a role that died is to be started again."""
    is_there: Callable[[str], None]
    """The process of a role says that it is; from the first time on it is asked, and killed when it is silent."""
    retries: Retries
    """Start a process in the place of one that died, later if the machine cannot now."""


class NodeFamily:
    """Driven by the supervisor, at its single thread."""

    def __init__(
        self, steps: NodeSteps, opener: ControlSocket, start: Start, options: NodeOptions, bell: Sequence[int]
    ) -> None:
        """`bell` is the opener's doorbell (eventfd, page), and stays the supervisor's."""
        self._steps = steps
        self._opener = opener
        self._start = start
        self._options = options
        self._bell = bell
        self._gateway_end, self._node_end = ControlSocket.pair()
        self._child: Child | None = None
        self._has_stood = False
        self._epoch = 0
        self._failure = ""  # why the present process cannot start, as it said
        self._claims: dict[int, LinkClaimed] = {}  # peer -> the latest

    @property
    def gateway_end(self) -> socket.socket:
        """The gateway's end of the socket; it stays ours."""
        return self._gateway_end

    @property
    def first_bytes(self) -> bytes:
        """Of connections at the party's port that are the node's."""
        echo = bytes((LIVENESS,)) if self._options.has_echo else b""
        return bytes((self._options.network_byte,)) + echo

    def start_process(self) -> None:
        """Start the process, for the first time or again.

        Raises:
            OSError: the machine cannot.
        """
        start = self._start
        self._failure = ""
        self._epoch += 1
        self._child = child = self._steps.start_child(NODE_ROLE, self._options.module)
        run = RunNode(
            start.party.name,
            self._options,
            list(start.options.advertised),
            self._epoch,
            start.options.control_ring_size,
            start.options.close_timeout_s,
        )
        self._steps.send(child.control, run, [*self._bell, self._node_end.fileno()])
        for claim in self._claims.values():
            self._steps.send(child.control, claim, ())

    def hear(self, message: Message, fds: Sequence[int]) -> None:
        """The process said something. The descriptors stay the caller's.

        Raises:
            CommandError: it is not a node's to say.
        """
        match message:
            case NodeLane():
                self._has_stood = True
                self._steps.send(self._opener, message, fds)
            case NodeFailed(why):
                self._failure = why
            case Here():
                self._steps.is_there(NODE_ROLE)
            case _:
                raise CommandError(f"{type(message).__name__} from the node")

    def learn(self, message: LinkClaimed) -> None:
        """The peer of a link said who it is."""
        self._claims[message.peer] = message
        if self._child is not None:
            self._steps.send(self._child.control, message, ())

    def on_end(self, cause: str, *, is_closing: bool) -> str:
        """The process has ended. Returns what there is to complain of."""
        self._child = None
        what = self._failure or cause
        if is_closing:
            return f"the node {what}" if what else ""
        if self._failure and not self._has_stood:
            self._steps.send(self._opener, NodeFailed(self._failure), ())
            return ""
        reason = f"the node's process {cause or 'ended unexpectedly'}"
        if self._failure:
            reason = f"the node could not start again: {self._failure}"
        is_replaced = self._steps.may_restart(NODE_ROLE)
        if is_replaced:
            if not self._steps.retries.start(NODE_ROLE, self.start_process, time.monotonic()):
                reason += "; the machine cannot start it again yet"
        else:
            reason += STAYS_AWAY
        is_hopeless = not (is_replaced or self._has_stood)
        self._steps.send(self._opener, NodeFailed(reason) if is_hopeless else NodeLost(reason, is_replaced), ())
        return ""

    def free(self) -> None:
        """Give the socket back. May be called again."""
        self._gateway_end.close()
        self._node_end.close()
