"""What a bridge may hold, and how long it waits. For both of its ends.

The opener may be deep in a computation for minutes and is then no less alive, so nothing here ends a bridge because its
other end is silent: no keepalive, no deadline for an answer but the one for offers, after which a peer is refused.
"""

from __future__ import annotations

import math
from typing import Final

from ..yamux.limits import YamuxLimits

BRIDGE_LIMITS: Final = YamuxLimits(
    window_size_max=256 * 1024,
    growth_max=0,
    send_size_max=64 * 1024,
    answer_timeout_s=math.inf,
    half_closed_timeout_s=math.inf,
    keepalive_s=math.inf,
    ping_timeout_s=math.inf,
)
"""Of the connection between the two processes: a window is 256 KiB for good, and is what is held of one direction of a
substream on its way to whoever does not take it."""

WRITE_TIMEOUT_S: Final = math.inf
"""For the other process to take anything from its ring."""

SPLICE_SIZE: Final = 64 * 1024
"""What is taken from one substream at a time to be written to the other."""

OFFER_TIMEOUT_S: Final = 60.0
"""For the opener to take a substream of a peer; behind it the peer's substream is reset."""

OFFERS_MAX: Final = 128
"""Substreams of peers that wait for the opener; a further one is reset at once."""

OFFERS_SHARE_MAX: Final = 64
"""Of these, those of one peer where a bridge leads to many, so that one of them keeps no other out."""

SUBSTREAMS_SHARE_MAX: Final = 128
"""Likewise of all substreams of peers that are with the opener, waiting or taken."""

EVENTS_MAX: Final = 1024
"""Events that wait for an opener that does not listen; then it is told how many it missed, and what stands."""
