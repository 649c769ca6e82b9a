"""Attacks on the connections of a link: by strangers, by who sits on the way, by a peer that is proven but hostile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from partywire.engine.greeting import FAREWELL_SIZE_MAX, dismiss
from partywire.engine.transport import Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from partywire.engine.transport import Buffer


class Flood(Stream):
    """The other end sends faster than we receive, for ever: there is always more."""

    peer_address = "flood:1"

    def __init__(self) -> None:
        self.received = 0
        self.is_closed = False

    def try_send(self, views: Sequence[Buffer]) -> int | None:
        return sum(map(len, views))

    def try_recv_into(self, view: memoryview) -> int | None:
        assert self.received < 100 << 20, "the event loop never had a turn"
        self.received += len(view)
        return len(view)

    def shutdown_write(self) -> None:
        pass

    def on_readable(self, callback: Callable[[], object] | None) -> None:
        pass

    def on_writable(self, callback: Callable[[], object] | None) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = True


def test_who_is_refused_and_floods_us_does_not_hold_up_the_event_loop() -> None:
    """Receiving what is always there never waits, so no deadline of the loop would end it."""
    stream = Flood()
    asyncio.run(dismiss(stream, b"no"))
    assert stream.is_closed
    assert stream.received <= FAREWELL_SIZE_MAX + 4096
