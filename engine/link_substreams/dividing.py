"""Makes of a control connection, right behind its greeting, one that carries substreams.

Between the keeper of a link and the modules beside this one, which only a link with substreams imports.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .connection import LinkConnection, limits_of_link
from .control_substream import GRACE_S, ControlSubstream

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from ..link import Link
    from ..substreams.divided import OnSubstream
    from ..transport import Stream
    from ..yamux.substream import Substream


def divide(
    loop: asyncio.AbstractEventLoop,
    stream: Stream,
    link: Link,
    *,
    peer: str,
    is_dialler: bool,
    heartbeat_timeout_s: float,
    close_timeout_s: float,
    clock: Callable[[], float],
    on_substream: OnSubstream,
) -> tuple[LinkConnection, ControlSubstream]:
    """The divided connection, to be started, and the stream that the control codec has instead of `stream`.

    Args:
        loop: that of the link.
        stream: is the connection's from now on.
        link: hears of every sign of life, and knows why it is lost.
        peer: its name.
        is_dialler: whether we dialled it.
        heartbeat_timeout_s: of the link.
        close_timeout_s: of the link; half of it is the most that a goodbye waits for other substreams.
        clock: seconds that never go back, finer than milliseconds.
        on_substream: gets whatever else the peer opens.
    """
    connection = LinkConnection(
        loop,
        stream,
        is_client=is_dialler,
        on_substream=on_substream,
        peer=peer,
        limits=limits_of_link(heartbeat_timeout_s),
        clock=clock,
    )
    control = ControlSubstream(
        loop,
        connection,
        is_client=is_dialler,
        cause=lambda: link.cause,
        grace_s=min(GRACE_S, close_timeout_s / 2),
    )

    def offered(substream: Substream) -> ControlSubstream | None:
        return control if control.offer(substream) else None

    connection.on_offered = offered
    connection.on_received = lambda: link.heard(loop.time())
    return connection, control
