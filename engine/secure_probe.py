"""The acceptor's end of a probe of a secured link: the question is heard only from who proves to be the peer.

Between the gateway, which drives it as it drives a `Probe`, and the channel and the probe within. The one invariant:
not a byte of the probe's answer leaves unsealed, and who has not proven to be the peer gets none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .channel.channel import encode_refusal
from .errors import HandshakeRejected, LinkProtocolError, RejectCode
from .handshake import HandshakeState

if TYPE_CHECKING:
    from .channel.channel import Channel
    from .probe import Probe

_OPEN_SIZE: Final = 4096
_ANSWER_SIZE_MAX: Final = 64 * 1024
"""More than a PROBED or a REJECT can have: it is sealed at once."""


class SecureProbe:
    """A probe behind a channel. Driven by the prober's bytes; times out by its owner."""

    def __init__(self, channel: Channel, probe: Probe) -> None:
        self._channel = channel
        self._probe = probe
        self._has_failed = False  # whether the channel did

    @property
    def state(self) -> HandshakeState:
        """Where it stands."""
        return HandshakeState.FAILED if self._has_failed else self._probe.state

    def receive_data(self, data: bytes) -> None:
        """Take the next slice of the stream.

        Raises:
            HandshakeRejected: one side refuses the other.
            LinkProtocolError: the prober's bytes are no handshake, no records, or no probe.
        """
        channel = self._channel
        try:
            if channel.result is None:
                channel.receive_data(data)
            else:
                channel.feed(data)
            if channel.result is not None:
                self._open()
        except (HandshakeRejected, LinkProtocolError):
            self._has_failed = self._has_failed or not self._is_over
            raise

    def _open(self) -> None:
        room = memoryview(bytearray(_OPEN_SIZE))
        while not self._is_over and (count := self._channel.open_into(room)):
            self._probe.receive_data(room[:count])

    @property
    def _is_over(self) -> bool:
        return self._probe.state in (HandshakeState.DONE, HandshakeState.FAILED)

    def data_to_send(self) -> bytes:
        """Bytes for the prober since the last call."""
        said = self._channel.data_to_send()
        if self._channel.result is not None and (answer := self._probe.data_to_send()):
            said += bytes(self._channel.seal([answer], _ANSWER_SIZE_MAX)[0]) + self._channel.seal_end()
        return said


class RefusedProbe:
    """The answer to a probe that is made in another mode than that of the link. Driven as a `Probe`."""

    def __init__(self, detail: str) -> None:
        self._refusal = encode_refusal(RejectCode.SECURITY, detail)
        self.state = HandshakeState.AWAITING_PROBE

    def receive_data(self, data: bytes) -> None:
        """Whatever the question is, the answer is no."""
        self.state = HandshakeState.FAILED

    def data_to_send(self) -> bytes:
        """The refusal, once."""
        if self.state is not HandshakeState.FAILED:
            return b""
        refusal, self._refusal = self._refusal, b""
        return refusal
