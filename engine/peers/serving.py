"""Runs the handler of a protocol on one substream, to whatever end.

Between who serves a peer's substreams (`connection`, and the opener of a party) and a handler of the user's. The one
invariant: behind a handler its substream is ended or reset, and no error of a handler ends anything else.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from ..errors import LinkProtocolError
from ..substreams.errors import SubstreamTimeout
from ..yamux.errors import SubstreamClosed, SubstreamReset, SubstreamSessionOver

if TYPE_CHECKING:
    from ..substreams.streams import SubstreamReader, SubstreamWriter
    from .contract import PeerConnection, ProtocolHandler

_LOG: Final = logging.getLogger("partywire.peers")


async def run_handler(
    handler: ProtocolHandler,
    connection: PeerConnection,
    reader: SubstreamReader,
    writer: SubstreamWriter,
    protocol: str,
    drain_timeout_s: float,
) -> bool:
    """Run it, then end the substream: in order when it returned, for which the peer must go on taking what was written
    (`drain_timeout_s` for each wait), else by a reset.

    Returns:
        False when it failed, which was logged; that the peer left early is no failure.

    Raises:
        LinkProtocolError: it found that this peer breaks the protocol.
    """
    peer = writer.peer
    try:
        await handler(connection, reader, writer)
        writer.timeout_s = drain_timeout_s
        await writer.drain()
        writer.close()
    except (SubstreamReset, SubstreamClosed, SubstreamSessionOver, asyncio.IncompleteReadError) as error:
        # Ended by the peer, or as good as: the handler had no reason to expect it.
        _LOG.debug("substream %s of peer %s ended early: %s", protocol, peer, error)
        writer.reset("it ended early")
    except SubstreamTimeout as error:
        _LOG.debug("substream %s of peer %s: %s", protocol, peer, error)
        writer.reset("the peer took nothing more")
    except Exception as error:
        if isinstance(error, LinkProtocolError) and error.peer in ("", peer, str(connection.peer_id)):
            writer.reset("the protocol was broken")
            raise
        _LOG.exception("the handler of %s failed for peer %s", protocol, peer)
        writer.reset("the handler failed")
        return False
    except BaseException:
        writer.reset("the handler was cancelled")
        raise
    return True
