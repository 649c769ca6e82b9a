"""Which protocol begins with which first byte, where several share one port.

Between a configuration, which chooses the network byte of its node, and the gateway, which tells connections apart by
it. The one invariant: what `taken_by` calls free is the beginning of no other protocol that the party's port knows.
Without I/O.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .iris_handshake import may_be_iris
from .preamble import MAGIC
from .topology import dials

if TYPE_CHECKING:
    from .topology import PartySpec

TLS_HANDSHAKE: Final = b"\x16"
"""The type of the record that every connection of TLS begins with (RFC 8446, 5.1)."""


def taken_by(byte: int, party: PartySpec) -> str:
    """Whose connections begin with this byte at the party's port, in words; empty if it is free for a node's."""
    if byte == MAGIC[0]:
        return "the links of parties begin with it"
    if byte == TLS_HANDSHAKE[0]:
        return "TLS begins with it"
    if may_be_iris(bytes((byte,))):
        for peer in party.peers:
            if peer.iris is not None and not peer.iris.tls and dials(peer.name, party.name):
                return f"the iris protocol, by which {peer.name} dials us, begins with it"
    return ""
