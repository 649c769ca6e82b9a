"""Who dialled us and has not shown yet who it is: how many at a time, and how often, of each host. Without I/O.

Between the acceptor and an antechamber. The one invariant: at most `places` strangers are with us, at most `share` of
them of one host, and of one host at most `rate` come in for each second. So who dials from one host, or from one /64 of
IPv6, keeps out itself and nobody else. When there is no room, the oldest of the host that has most goes.

This host is an exception: an onion service, a proxy, and everything in memory come from here, whoever it is, so it has
all places, at any rate.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from ..allowance import Allowance
from ..antechamber import THIS_HOST, Antechamber, origin_of_host

if TYPE_CHECKING:
    from collections.abc import Hashable

    from ..multiaddr import Multiaddr

    Guest = TypeVar("Guest", bound=Hashable)
else:
    Guest = TypeVar("Guest")

ORIGINS_MAX: Final = 4096
"""Hosts whose rate is known. Of more, the one that came last longest ago is forgotten, and begins anew."""


def origin_of_address(address: Multiaddr) -> str:
    """The host that something came from, or the network of it that counts as one."""
    host = address.value_of("ip4") or address.value_of("ip6")
    return origin_of_host(str(host)) if host is not None else THIS_HOST


class Strangers(Generic[Guest]):
    """A guest is whatever its owner knows it by. Driven by its owner; `now` never goes back."""

    def __init__(self, places: int, share: int, rate: int) -> None:
        self._antechamber: Antechamber[Guest] = Antechamber(places, min(share, places))
        self._rate = rate
        self._allowances: OrderedDict[str, Allowance] = OrderedDict()  # who came last is at the end

    def __len__(self) -> int:
        return len(self._antechamber)

    def may_enter(self, address: Multiaddr, now: float) -> bool:
        """Whether somebody from there may come in now; then it counts."""
        origin = origin_of_address(address)
        if origin == THIS_HOST:
            return True
        allowance = self._allowances.pop(origin, None) or Allowance(self._rate)
        self._allowances[origin] = allowance
        if len(self._allowances) > ORIGINS_MAX:
            self._allowances.popitem(last=False)
        return allowance.take(now)

    def enter(self, guest: Guest, address: Multiaddr) -> Guest | None:
        """Let a guest in. Returns who had to leave for it, and is in here no more; never the one that came."""
        return self._antechamber.enter(guest, origin_of_address(address))

    def leave(self, guest: Guest) -> None:
        """It showed who it is, or is gone. Nothing happens to one that is not in here."""
        self._antechamber.leave(guest)
