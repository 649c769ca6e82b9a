"""Two yamux sessions and the pipes between them, on a clock that only tests move."""

from __future__ import annotations

from typing import TYPE_CHECKING

from partywire.engine.yamux.events import Event, Offered
from partywire.engine.yamux.frames import HEADER, HEADER_SIZE
from partywire.engine.yamux.session import YamuxSession

if TYPE_CHECKING:
    from partywire.engine.yamux.limits import YamuxLimits
    from partywire.engine.yamux.substream import Substream


class Clock:
    """Seconds that stand still until a test moves them."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Pair:
    """A client and a server. `flow` moves what they have to say until both are silent."""

    def __init__(self, limits: YamuxLimits | None = None) -> None:
        self.clock = Clock()
        self.client = YamuxSession(True, self.clock, "bob", limits)
        self.server = YamuxSession(False, self.clock, "alice", limits)

    def flow(self, round_trip: float = 0.0) -> tuple[list[Event], list[Event]]:
        """Returns the events of the client and of the server."""
        events: tuple[list[Event], list[Event]] = ([], [])
        ends = (self.client, self.server)
        while any(end.has_something_to_send and not end.cause for end in ends):
            for index, end in enumerate(ends):
                if data := output_of(end):
                    self.clock.now += round_trip / 2
                    events[1 - index].extend(ends[1 - index].receive_untrusted(data))
                events[index].extend(end.take_events())
        return events

    def substreams(self) -> tuple[Substream, Substream]:
        """A substream that the client opened, at both ends, accepted."""
        ours = self.client.open()
        _, events = self.flow()
        (offered,) = [event for event in events if isinstance(event, Offered)]
        offered.substream.accept()
        self.flow()
        return ours, offered.substream


def output_of(session: YamuxSession) -> bytes:
    """Everything that a session has to send now."""
    parts: list[bytes] = []
    while part := b"".join(session.take_output()):
        parts.append(part)
    return b"".join(parts)


def frames_of(data: bytes) -> list[tuple[int, int, int, int]]:
    """(type, flags, substream, length) of each frame in whole frames."""
    found = []
    while data:
        version, kind, flags, substream, length = HEADER.unpack_from(data)
        assert version == 0
        found.append((kind, flags, substream, length))
        data = data[HEADER_SIZE + (length if kind == 0 else 0) :]
    return found
