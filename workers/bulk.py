"""The bulk connections that sessions need: asked for, and waited for, in the process of an opener.

Between `make_sessions` and `reset`, which have agreed on ids of that class, and the I/O processes of all links. The one
invariant: whoever goes on behind `open_bulk` has a bulk lane for each of the ids on every link, of the epoch in which
it began.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from partywire.engine.bulk_commands import OpenBulk
from partywire.engine.topology import connection_of_session

from .errors import NoBulkConnection, PeerClosed, PeerLost, UnsupportedByPeer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from .peer_link import PeerLink
    from .worker import Worker


def refuse_bulk(worker: Worker) -> None:
    """Sessions span all parties, so with a peer of iris-mpc's protocol there are none of the bulk class.

    Raises:
        UnsupportedByPeer: there is such a peer.
    """
    for link in worker.links.values():
        if link.iris is not None:
            raise UnsupportedByPeer(link.name, "a session of the bulk class", "make normal sessions")


async def open_bulk(
    worker: Worker, ids: Collection[int], deadline: float, look: Callable[[], object] = lambda: None
) -> None:
    """Return when every link has the bulk lanes for sessions with these ids. None is made twice.

    `look` is called whenever something may have changed, and raises what ends the waiting.

    Raises:
        NoBulkConnection: one cannot be made, or not before the deadline.
        PeerLost, PeerClosed: a link was lost or closed meanwhile.
    """
    links = list(worker.links.values())
    epochs = {link.index: link.epoch for link in links}
    wanted = {link.index: connections_of(link, ids) for link in links}
    for link in links:
        if missing := sorted(wanted[link.index] - link.lanes.keys()):
            link.bulk_failure = ""
            worker.commands.ask(OpenBulk(link.index, link.epoch, missing))

    def is_open() -> bool:
        look()
        return all(is_open_with(link) for link in links)

    def is_open_with(link: PeerLink) -> bool:
        epoch = epochs[link.index]
        if link.cause or link.epoch != epoch:
            raise PeerLost(link.name, None, epoch, link.cause or "the link was made anew")
        if wanted[link.index] <= link.lanes.keys():
            return True
        if link.is_closed:
            raise PeerClosed(link.name, None, epoch)
        if link.bulk_failure:
            raise NoBulkConnection(link.name, link.bulk_failure)
        return False

    if not await worker.until(is_open, deadline):
        late = next(link.name for link in links if not wanted[link.index] <= link.lanes.keys())
        raise NoBulkConnection(late, "it was not there in time; see `timeout=` and timeouts.connect_s")


def connections_of(link: PeerLink, ids: Collection[int]) -> set[int]:
    """The bulk connections of a link that carry sessions with these ids."""
    return {connection_of_session(session_id, link.connection_count, is_bulk=True) for session_id in ids}
