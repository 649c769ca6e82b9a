"""What a party says of itself to a peer, for a link and for a probe alike.

Between the configuration, as the supervisor passed it on, and the handshake. The one invariant: both askers get the
same HELLO but for nonce and epoch, so a probe is refused for exactly what a HELLO would be refused for.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .handshake_messages import CAN_SUBSTREAMS, NONCE_SIZE, Hello

if TYPE_CHECKING:
    from .link_options import LinkOptions
    from .topology import PartySpec


def hello_of(party: PartySpec, peer: str, workers: int, options: LinkOptions, epoch: int = 1) -> Hello:
    """Our HELLO for the peer of that name, with a fresh nonce; `epoch` is the least that we accept."""
    return Hello(
        name=party.name,
        peer=peer,
        nonce=os.urandom(NONCE_SIZE),
        epoch=epoch,
        party_set=party.names,
        workers=workers,
        heartbeat_interval_ms=max(1, int(options.heartbeat_interval_s * 1000)),
        message_size_max=options.message_size_max,
        parameter_digest=options.parameter_digest,
        abilities=CAN_SUBSTREAMS if options.substreams else 0,
    )
