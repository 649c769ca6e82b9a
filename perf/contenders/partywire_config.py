"""What the three ways to use PartyWire share: the configuration of one measured party."""

from __future__ import annotations

from typing import TYPE_CHECKING

from partywire import PartyConfig
from partywire.perf.contender import CONNECT_TIMEOUT_S

if TYPE_CHECKING:
    from partywire.perf.contender import Place


def party_config(place: Place) -> PartyConfig:
    """One worker; everything else as it comes. Peers are dialled where the place says."""
    names = [f"party{index}" for index in range(place.parties)]
    ports = [port if index == place.party else place.dial_ports[index] for index, port in enumerate(place.ports)]
    return PartyConfig(
        name=names[place.party],
        parties={name: ("127.0.0.1", port) for name, port in zip(names, ports, strict=True)},
        listen=("127.0.0.1", place.ports[place.party]),
        connect_s=CONNECT_TIMEOUT_S,
    )
