"""The probe: one question and one answer that say whether a link would be accepted, and make none.

Between `partywire check` and the gateway of a party, behind a preamble of class PROBE (docs/wire.md, Probe):

    prober                                  acceptor's gateway
    PROBE(HELLO body)     ------->          checks it as it would a HELLO
    done                  <-------          PROBED(clock, HELLO body), or REJECT

The one invariant: the answer is what a HELLO with the same fields would get from the same party, and nothing of either
side's links changes by it: the question never leaves the gateway.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from .errors import LinkProtocolError
from .handshake import Conversation, HandshakeState, Role
from .handshake_messages import Hello, MessageType

_CLOCK = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What either side learnt of the other."""

    peer: Hello
    clock_ms: int
    """Unix time in ms at the acceptor when it answered."""


class Probe(Conversation):
    """Either end of a probe. Driven by the other end's bytes; times out by its owner."""

    def __init__(self, role: Role, hello: Hello, clock_ms: int = 0) -> None:
        """`hello` is ours and names the peer we expect; `clock_ms` is what an acceptor answers with."""
        initiator = role is Role.INITIATOR
        super().__init__(
            "probe", hello.peer, HandshakeState.AWAITING_PROBED if initiator else HandshakeState.AWAITING_PROBE
        )
        self._our_hello = hello
        self._clock_ms = clock_ms
        self._learnt: ProbeResult | None = None  # set by the other end's message
        if initiator:
            self._send(MessageType.PROBE, hello.encode())

    @property
    def result(self) -> ProbeResult | None:
        """What was learnt, once the probe is done."""
        return self._learnt if self._state is HandshakeState.DONE else None

    def _check_message_untrusted(self, type_: MessageType, body: bytes) -> None:
        if type_ is MessageType.PROBE:
            theirs, _ = self._agree_untrusted(self._our_hello, body)
            self._learnt = ProbeResult(theirs, self._clock_ms)
            self._send(MessageType.PROBED, _CLOCK.pack(self._clock_ms) + self._our_hello.encode())
            return
        if len(body) < _CLOCK.size:
            raise LinkProtocolError(self._peer, "PROBED is cut short, bytes", len(body), f">= {_CLOCK.size}")
        (clock_ms,) = _CLOCK.unpack_from(body)
        theirs, _ = self._agree_untrusted(self._our_hello, body[_CLOCK.size :])
        self._learnt = ProbeResult(theirs, clock_ms)
