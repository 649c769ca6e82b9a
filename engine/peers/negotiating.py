"""Drives a negotiation over the reader and writer of a substream.

Between who opens or serves a substream and the cores in `negotiation`. The one invariant: nothing behind the
negotiation is taken off the substream, and when it fails the substream is over, the peer told as far as it asked.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..negotiation import Answerer, NegotiationFailed, Proposer
from ..substreams.errors import SubstreamTimeout
from ..yamux.errors import SubstreamReset, SubstreamSessionOver
from .errors import NegotiationTimedOut

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..substreams.streams import SubstreamReader, SubstreamWriter


async def propose(
    reader: SubstreamReader,
    writer: SubstreamWriter,
    protocols: Sequence[str],
    is_known: Callable[[str], bool],
    timeout_s: float,
) -> str:
    """Find a protocol for a substream that we opened; nothing is waited for if one of them is known to be served.

    Raises:
        ValueError: `protocols` are none, more than 5, or too long.
        NegotiationFailed: the peer serves none of them.
        NegotiationTimedOut: it did not say.
        LinkProtocolError: it answered with what is no answer.
        SubstreamReset, SubstreamSessionOver: it gave the substream up, or is gone.
    """
    core: Proposer | None = None
    try:
        core = Proposer(protocols, is_known, writer.peer)
        if not await _drive(core, reader, writer, timeout_s):
            raise NegotiationFailed(writer.peer, tuple(protocols), by_us=False)
    except SubstreamTimeout:
        writer.reset("the negotiation timed out")
        raise NegotiationTimedOut(writer.peer, tuple(protocols), timeout_s) from None
    except NegotiationFailed:
        _leave(core, writer)
        raise
    except BaseException:
        writer.reset("the negotiation failed")
        raise
    assert core.agreed is not None
    return core.agreed


async def answer(
    reader: SubstreamReader, writer: SubstreamWriter, serves: Callable[[str], bool], timeout_s: float
) -> str:
    """Find out what a substream is for that the peer opened, and tell it that it is welcome.

    Raises:
        NegotiationFailed: for nothing that we serve.
        NegotiationTimedOut: the peer did not say.
        LinkProtocolError: it sent what is no proposal.
        SubstreamReset, SubstreamSessionOver: it gave the substream up, or is gone.
    """
    core = Answerer(serves, writer.peer)
    try:
        if not await _drive(core, reader, writer, timeout_s):
            raise NegotiationFailed(writer.peer, (), by_us=True)
        writer.accept()  # an optimistic peer gets no answer
    except SubstreamTimeout:
        writer.reset("the negotiation timed out")
        raise NegotiationTimedOut(writer.peer, (), timeout_s) from None
    except NegotiationFailed:
        _leave(core, writer)
        raise
    except BaseException:
        writer.reset("the negotiation failed")
        raise
    assert core.agreed is not None
    return core.agreed


async def _drive(
    core: Proposer | Answerer, reader: SubstreamReader, writer: SubstreamWriter, timeout_s: float
) -> bool:
    """Until they agree, which is True, or the peer ends the substream. Raises SubstreamTimeout: neither in time."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + timeout_s
    try:
        while True:
            if output := core.take_output():
                writer.write(output)
            if not (missing := core.missing):
                return True
            reader.timeout_s = deadline - clock()
            data = await reader.read(missing)
            if not data:
                return False
            core.receive_untrusted(data)
    finally:
        reader.timeout_s = None


def _leave(core: Proposer | Answerer | None, writer: SubstreamWriter) -> None:
    """Say the last word, if there is one; who was optimistic hears of a reset."""
    try:
        if core is not None and (output := core.take_output()):
            writer.write(output)
            writer.close()
            return
    except (SubstreamReset, SubstreamSessionOver):
        pass  # the peer does not listen any more
    writer.reset("no protocol was agreed on")
