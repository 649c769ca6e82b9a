"""What a node may be told about its connections: limits, deadlines, and how they are secured."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ..noise import CIPHERS, NoiseProtocol
from ..yamux.limits import YamuxLimits
from .address_rules import AddressRules
from .wire import LivenessPermits, check_network_byte

if TYPE_CHECKING:
    from .peer_id import PeerId

NOISE_PATTERNS: Final = ("XX", "IX")

_INBOUND: Final = ("inbound_upgrades_max", "inbound_share_max", "inbound_rate_max")


@dataclass(frozen=True, slots=True)
class PeerOptions:
    """Sizes in bytes, times in seconds. `network_byte`, `noise_pattern` and `noise_cipher` are those of all peers of a
    network: peers with others do not find together.

    Raises:
        ValueError: one of them cannot be.
    """

    network_byte: int = 0
    """The first byte of every connection."""
    noise_pattern: str = "XX"
    """XX hides who dials from everybody who only listens in; IX, which the seed has, shows it."""
    noise_cipher: str = "ChaChaPoly"

    dials_max: int = 32
    """Peers that are dialled at a time; more wait."""
    dial_attempts: int = 3
    """Tries of all addresses of a peer before `connect` gives up."""
    never_dial: tuple[str, ...] = ()
    """Networks (10.0.0.0/8) and addresses (/ip4/10.0.0.1/tcp/22) that are not dialled, whoever claims them. A name is
    dialled wherever it leads."""
    dial_timeout_s: float = 10.0
    """For one address to be connected to. Give onion services more."""
    dial_stagger_s: float = 0.25
    """After this time the next address is tried beside those that have not answered yet."""
    back_off_min_s: float = 0.5
    back_off_max_s: float = 30.0
    """Between attempts: doubled each time, and a random part of it taken off."""

    inbound_upgrades_max: int = 100
    """Connections that dialled us and are no peers yet. For a further one, the oldest of the host that has most of them
    is closed."""
    inbound_share_max: int = 25
    """Of these, those from one host other than this one, or from one /64 of IPv6; for a further one its oldest goes."""
    inbound_rate_max: int = 20
    """Connections from one such host within a second; further ones are closed at once."""
    connections_max: int = 256
    """Peers that are connected at a time; further ones that dial us are refused."""
    first_byte_timeout_s: float = 6.0
    handshake_timeout_s: float = 10.0
    """For Noise, from its first byte on."""
    identity_timeout_s: float = 10.0
    """For the identity exchange."""

    online_min: int = 1
    """Connections with which the node counts as online; with fewer it is degraded, without any offline."""

    liveness_permits: int = 0
    """Liveness echoes at a time; 0: none."""
    liveness_networks: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    """From where one may ask for an echo: rules as in `never_dial`."""
    liveness_timeout_s: float = 60.0
    """For a whole echo."""
    self_check_interval_s: float = math.inf
    """Between checks whether we are reached at the addresses that we claim; infinity: none but those asked for."""

    negotiations_max: int = 32
    """Substreams of one peer whose protocol is being negotiated; further ones wait their turn."""
    negotiation_timeout_s: float = 10.0
    """For the peer to say what a substream is for, or whether it serves what we ask for; and for such a turn."""
    substreams: YamuxLimits = field(default_factory=YamuxLimits)
    """What the substreams of a connection may hold; by its `keepalive_s` and `ping_timeout_s` a dead peer is found."""
    close_timeout_s: float = 2.0
    """For substreams to end when a connection is closed."""

    idle_timeout_s: float = 1200.0
    """A connection without a substream for so long is closed ..."""
    idle_keep: int = 50
    """... if more than so many stand; the one that was idle longest is the first."""
    reap_interval_s: float = 60.0

    violation_ban_s: float = 7200.0
    """How long a peer is banned that broke a protocol behind its proven identity."""
    duplicate_ping_s: float = 3.0
    """For a connection that stands to answer before another one to the same peer takes its place."""

    allowed: frozenset[PeerId] | None = None
    """Who may dial us; None: anybody who is not banned."""
    is_local: bool = False
    """Whether peers may claim addresses that mean something on this host alone: memory and unix sockets."""

    def __post_init__(self) -> None:
        check_network_byte(self.network_byte)
        if self.noise_pattern not in NOISE_PATTERNS or self.noise_cipher not in CIPHERS:
            raise ValueError(
                f"{self.noise_pattern} with {self.noise_cipher}: the pattern is one of {', '.join(NOISE_PATTERNS)}, "
                f"the cipher one of {', '.join(CIPHERS)}"
            )
        AddressRules(self.never_dial)
        LivenessPermits(self.liveness_permits, self.liveness_networks)
        for name in ("online_min", "dials_max", "dial_attempts", *_INBOUND, "connections_max", "negotiations_max"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, at least 1 is needed")
        for name in self.__slots__:
            if name.endswith("_s") and not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}, it must be above 0")

    @property
    def noise(self) -> NoiseProtocol:
        """What is spoken."""
        return NoiseProtocol(self.noise_pattern, self.noise_cipher, "BLAKE2s")
