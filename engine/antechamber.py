"""Who has connected and not shown yet who it is: a bounded number, with a bounded share for each origin.

Between whatever accepts connections (the gateway; an I/O process, for what the gateway passed on) and strangers. The
one invariant: at most `guests_max` are in it and at most `share_max` of them of one origin, so that a crowd from one
address takes from its own share and not from that of others.

When there is no room, the oldest guest of the origin that has most goes: an honest peer shows itself within a round
trip, so it is neither old nor many. Who comes from more addresses than there are places, and faster than an honest peer
needs for a round trip, still keeps it out; that is for a firewall to prevent.

No I/O and no clock.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

    Guest = TypeVar("Guest", bound=Hashable)
else:
    Guest = TypeVar("Guest")

THIS_HOST: Final = ""
"""The origin of everything that comes from this host, also by a unix socket. Its share is all places: the parties of a
local run are at one address, and so is whoever comes through a proxy or a tunnel that ends here."""

_IPV6_NETWORK_BITS: Final = 64
"""Of an IPv6 address, what names an origin: whoever has one address of such a network has all of them."""


def origin_of(address_text: str) -> str:
    """The origin of what came from "host:port" with a literal host; any other text is that of a unix socket."""
    return origin_of_host(address_text.rpartition(":")[0].strip("[]"))


def origin_of_host(host: str) -> str:
    """As `origin_of`, of a literal host alone."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return THIS_HOST
    if address.is_loopback:
        return THIS_HOST
    if isinstance(address, ipaddress.IPv6Address):
        if (mapped := address.ipv4_mapped) is not None:
            return origin_of_host(str(mapped))
        return f"{int(address) >> (128 - _IPV6_NETWORK_BITS):x}/{_IPV6_NETWORK_BITS}"
    return host


class Antechamber(Generic[Guest]):
    """The guests, oldest first. A guest is whatever its owner knows it by."""

    def __init__(self, guests_max: int, share_max: int) -> None:
        if not 1 <= share_max <= guests_max:
            raise ValueError(f"a share of {share_max} among {guests_max} places is none")
        self._guests_max = guests_max
        self._share_max = share_max
        self._guests: OrderedDict[Guest, str] = OrderedDict()  # with their origins
        self._shares: dict[str, OrderedDict[Guest, None]] = {}  # the same by origin; none is empty

    def __len__(self) -> int:
        return len(self._guests)

    @property
    def oldest(self) -> Guest | None:
        """Who came first."""
        return next(iter(self._guests), None)

    def enter(self, guest: Guest, origin: str) -> Guest | None:
        """Let a guest in. Returns who had to leave for it, and is in here no more; never the one that came."""
        share = self._shares.get(origin)
        leaving = None
        if share is not None and origin != THIS_HOST and len(share) >= self._share_max:
            leaving = next(iter(share))
            self.leave(leaving)
        elif len(self._guests) >= self._guests_max:
            leaving = self.make_room()
        self._guests[guest] = origin
        self._shares.setdefault(origin, OrderedDict())[guest] = None
        return leaving

    def make_room(self) -> Guest | None:
        """Have somebody leave: the oldest of the origin that has most. None when nobody is there."""
        if not self._guests:
            return None
        most = max(self._shares, key=lambda origin: len(self._shares[origin]))
        leaving = next(iter(self._shares[most]))
        self.leave(leaving)
        return leaving

    def leave(self, guest: Guest) -> None:
        """It showed who it is, or is gone. Nothing happens to one that is not in here."""
        origin = self._guests.pop(guest, None)
        if origin is None:
            return
        share = self._shares[origin]
        del share[guest]
        if not share:
            del self._shares[origin]

    def check_invariants(self) -> None:
        """What must hold after every public call."""
        assert len(self._guests) <= self._guests_max
        assert sum(map(len, self._shares.values())) == len(self._guests)
        for origin, share in self._shares.items():
            assert share
            assert origin == THIS_HOST or len(share) <= self._share_max
            assert all(self._guests[guest] == origin for guest in share)
