"""What the opener, the supervisor and the process of the party's node tell each other on control sockets.

Part of `commands`, which encodes and checks them; apart because a party without a node sends none of them. Here nothing
of a node is known but what the supervisor and the gateway need: what its settings mean, its program reads out of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .message import ControlMessage


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """What processes of a party are told of its node, decided once by the configuration."""

    settings: str = field(repr=False)
    """The table [node], as JSON."""
    path: str
    """The file that it stands in; its paths are relative to it. Empty: to the folder where the party was opened."""
    network_byte: int
    """The first byte of peers that dial us."""
    has_echo: bool = False
    """Whether anybody may ask for a liveness echo."""
    module: str = "partywire.workers.node.node_process"
    """The program, a module name."""


class RunNode(ControlMessage):
    """supervisor -> node process, the first message: be the party's node.

    Descriptors: the opener's doorbell (eventfd, page), then the socket on which the gateway hands connections over, as
    Accepted; of these nothing was read.
    """

    party: str
    """Our name, for messages."""
    options: NodeOptions
    advertised: list[str]
    """Multiaddresses at which the gateway takes peers in."""
    epoch: int
    """Counts the processes that were started, from 1: the records of its lane carry it."""
    ring_size: int
    close_timeout_s: float


class NodeLane(ControlMessage):
    """node process -> supervisor -> opener, verbatim: the node stands (again), and this is your lane to it. Of one that
    came before nothing is of use any more.

    Descriptors: the node's bell of this lane (eventfd, page), then the segments opener -> node and node -> opener, both
    byte streams of SUBSTREAMS records. The receiver owns all of them.
    """

    epoch: int
    peer_id: str
    addresses: list[str]
    """Where it listens itself, with real ports."""


class NodeFailed(ControlMessage):
    """node process -> supervisor: I cannot start, and why; the end follows.

    supervisor -> opener: there will be no node, and there never was."""

    message: str


class NodeLost(ControlMessage):
    """supervisor -> opener: the node's process died, so the rings of its lane, if it stood, will say no more. Another
    lane follows, if it `is_replaced`."""

    cause: str
    is_replaced: bool
