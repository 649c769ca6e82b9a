"""How much a peer may make us hold, and how long we wait for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class YamuxLimits:
    """Bounds of one session. Sizes in bytes, times in seconds.

    Memory of a session, at most: `substreams_max` times 256 KiB, plus `growth_max`, of what was received and not read;
    for each substream `send_size_max` of what was written and not sent; and `replies_max` of answers.
    """

    substreams_max: int = 512
    """Substreams that the peer may have open, or read by nobody, at a time; a further one is reset."""
    unaccepted_max: int = 256
    """Of these, those that were not accepted yet."""
    unanswered_max: int = 256
    """Substreams of ours that the peer has not answered; opening a further one is refused."""
    window_size_max: int = 16 * 1024 * 1024
    """Windows of fast substreams grow from 256 KiB up to this."""
    growth_max: int = 64 * 1024 * 1024
    """What all windows of the session may have grown by, together."""
    send_size_max: int = 256 * 1024
    """What a substream takes of its writer before the peer took any."""
    replies_max: int = 16 * 1024
    """Answers (pongs, resets) that wait to be sent; with more the session asks not to be given anything."""
    answer_timeout_s: float = 75.0
    """For the peer's answer to a substream of ours."""
    half_closed_timeout_s: float = 300.0
    """For the peer's end of a substream, behind ours."""
    keepalive_s: float = 30.0
    """Between pings; each also measures the round trip."""
    ping_timeout_s: float = 10.0
    """For the answer to a ping. Without one the session is over."""
