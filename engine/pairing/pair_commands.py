"""What the opener of a pool and its pair engine tell each other on control sockets.

Part of `commands`, which encodes and checks them. The engine says nothing on the socket on which these arrive; what it
has to say of a peer (`Lanes`, `LinkProgress`) goes to the worker of that peer, on the socket that came with AddPair.
"""

from __future__ import annotations

from ..channel.link_security import LinkSecurity  # noqa: TC001 - the types of fields are read at run time
from ..message import ControlMessage


class StartPairs(ControlMessage):
    """opener -> engine, the first message.

    `security` is of all links: plaintext, or TLS with our certificate and the issuers that vouch for all others. Times
    are in seconds, sizes in bytes, as in LinkOptions.
    """

    security: LinkSecurity
    ring_size: int
    message_size_max: int


class ListenPairs(ControlMessage):
    """opener -> engine, at most once: peers may dial us at `port` from now on. Descriptors: listening sockets."""

    port: int


class AddPair(ControlMessage):
    """opener -> engine: make the link to this peer and keep it. Descriptors: [control socket of its worker, eventfd and
    page of the worker's doorbell].

    `host` is empty if the peer is only waited for. `certificate` is the path of what it must show, or empty.
    """

    name: str
    host: str
    port: int
    certificate: str
