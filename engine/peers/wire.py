"""The first byte of a connection between peers, and the echo behind one of its values. Without I/O.

Between who dials and who accepts, before anything is secured. The byte names the network: peers of another one are
turned away before they learn or cost anything. LIVENESS asks for an echo of lines instead, by which an operator sees
that an address is reachable from outside.

    network byte | Noise handshake ...            0xA7 | line \\n ... each comes back

Source: Tari Comms, wire mode; the echo is bounded in lines as well here, and by permits that cannot run negative.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..errors import FrameTooLarge, LinkProtocolError
from .address_rules import AddressRules

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..multiaddr import Multiaddr

LIVENESS: Final = 0xA7

LINE_SIZE_MAX: Final = 50
"""Bytes of a line, without its end."""

LINES_MAX: Final = 100
"""Lines that are echoed on one connection."""


class LivenessEcho:
    """One connection's echo. Give it what arrives, send back what it returns, and close when `is_over`."""

    def __init__(self, peer: str = "") -> None:
        self._peer = peer
        self._rest = b""
        self._lines = 0

    @property
    def is_over(self) -> bool:
        """Whether it echoed all that it does."""
        return self._lines == LINES_MAX

    def receive_untrusted(self, data: bytes) -> bytes:
        """Take the next bytes, and return the lines that they complete; nothing beyond the last line that it does.

        Raises:
            LinkProtocolError: a line is too long.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        lines = lines[: LINES_MAX - self._lines]
        self._lines += len(lines)
        for line in (*lines, self._rest):
            if len(line) > LINE_SIZE_MAX:
                raise FrameTooLarge(self._peer, "a line to be echoed", len(line), LINE_SIZE_MAX)
        return b"".join(line + b"\n" for line in lines)


class LivenessPermits:
    """Who gets an echo: addresses of `networks`, `permits` of them at a time."""

    def __init__(self, permits: int, networks: Sequence[str]) -> None:
        """
        Raises:
            ValueError: `permits` is below 0, or a network is none (as in 127.0.0.0/8).
        """
        if permits < 0:
            raise ValueError(f"{permits} permits for liveness echoes")
        self._free = permits
        self._allowed = AddressRules(networks)

    def take(self, address: Multiaddr) -> bool:
        """Whether who dialled from there gets an echo; `give_back` ends it."""
        if self._free == 0 or not self._allowed.covers(address):
            return False
        self._free -= 1
        return True

    def give_back(self) -> None:
        """An echo that was permitted is over."""
        self._free += 1


def check_network_byte(byte: int) -> None:
    """See that a byte can name a network.

    Raises:
        ValueError: it cannot.
    """
    if not 0 <= byte <= 255 or byte == LIVENESS:
        raise ValueError(f"a network byte is 0 to 255 and not {LIVENESS:#04x}, which asks for an echo; this is {byte}")


def check_first_byte_untrusted(byte: int, network_byte: int, peer: str = "") -> bool:
    """Whether the first byte asks for an echo; otherwise it names our network.

    Raises:
        LinkProtocolError: it is of another network.
    """
    if byte not in (LIVENESS, network_byte):
        raise LinkProtocolError(peer, "network byte", f"{byte:#04x}", f"{network_byte:#04x}")
    return byte == LIVENESS
