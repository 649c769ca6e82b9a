"""What a configuration says of a peer that speaks the protocol of iris-mpc's TCP stack (docs/iris-compat.md).

Between the configuration and whoever serves or uses such a link. The one invariant: both ends of a link have equal
options, because nothing on the wire compares them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

VERSION_READY: Final = "2025-11"
"""The stack in which both ends of each new connection say that they are ready."""

VERSION_VALIDATE: Final = "2026-07"
"""The stack in which both ends send and check a value on each new session instead."""

VERSIONS: Final = (VERSION_VALIDATE, VERSION_READY)

CONNECTIONS_MAX: Final = 96
"""Connections of such a link: as many as the largest deployment of that stack that is known."""


@dataclass(frozen=True, slots=True)
class IrisOptions:
    """How the link to one such peer is made. Raises ValueError for what is out of bounds."""

    connections: int = 1
    version: str = VERSION_VALIDATE
    tls: bool = False
    """Whether its connections are of TLS from the first byte on. Files and pins are those of the link's security."""
    listen: str = ""
    """Where this peer alone dials us, in TLS: nothing in the clear says who comes. Empty where we dial."""
    certificate_name: str = ""
    """The DNS name that its certificate has; empty: the peer's own name."""

    def __post_init__(self) -> None:
        if not 1 <= self.connections <= CONNECTIONS_MAX:
            raise ValueError(f"{self.connections} connections, between 1 and {CONNECTIONS_MAX} are allowed")
        if self.version not in VERSIONS:
            raise ValueError(f"version {self.version!r} is not known; known are {', '.join(VERSIONS)}")
        if (self.listen or self.certificate_name) and not self.tls:
            raise ValueError("a port of its own, and a name in its certificate, are for a peer that speaks TLS")

    @property
    def says_ready(self) -> bool:
        """Whether a handshake ends with both ends saying that they are ready."""
        return self.version == VERSION_READY

    @property
    def validates_sessions(self) -> bool:
        """Whether both ends of a new session send a value that the other one expects."""
        return self.version == VERSION_VALIDATE
