"""New sessions with peers whose links speak the protocol of iris-mpc's TCP stack: nothing is asked, little is checked.

Between `Party.make_sessions` and such peers. Openers cannot talk to each other there, so the ids are agreed on
beforehand: each party counts them from 0, and all must have made as many. The one invariant: a session that
`make_sessions` returns was seen to work in both directions with each such peer, if the version of its protocol has that
check.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from partywire.engine.errors import LinkProtocolError

from .errors import UnsupportedByPeer, describe_to_peers
from .values import PrfKey
from .waiting import shared_timeout

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .peer_link import PeerLink
    from .session import Session
    from .worker import Worker


def refuse_common_step(worker: Worker, kind: str) -> None:
    """A step that all parties enter, and that a party without a control connection would not hear of.

    Raises:
        UnsupportedByPeer: names the first such peer.
    """
    for link in worker.links.values():
        if link.iris is not None:
            raise UnsupportedByPeer(link.name, f"the common step {kind!r}", "meet by messages of a session")


def refuse_stride(worker: Worker, stride: int) -> None:
    """The ids of new sessions must be consecutive where nobody can be told how far apart they are.

    Raises:
        UnsupportedByPeer: a party of several workers sits at the table.
    """
    for link in worker.links.values():
        if link.iris is not None and stride != 1:
            advice = "set workers = 1 at every party"
            raise UnsupportedByPeer(link.name, f"making sessions whose ids are {stride} apart", advice)


def speak_iris(worker: Worker) -> bool:
    """Whether any of our links does."""
    return any(link.iris is not None for link in worker.links.values())


async def validate(
    worker: Worker, sessions: Sequence[Session], timeout: float | None, give_up: Callable[[str], object]
) -> None:
    """Send each session's place among the new ones to every peer of a version that expects it, and expect the same.

    When it raises, all of them are closed, and `give_up` was told why.

    Raises:
        LinkProtocolError: a peer sent something else; the link to it is given up.
        SessionTimeout, PeerLost: as for `recv`.
    """
    peers = [link for link in worker.links.values() if link.iris is not None and link.iris.validates_sessions]
    if not peers:
        return
    try:
        await _validate(worker, peers, sessions, shared_timeout(worker, timeout))
    except BaseException as error:
        for session in sessions:
            session.close()
        give_up(describe_to_peers(error))
        raise


async def _validate(
    worker: Worker, peers: Sequence[PeerLink], sessions: Sequence[Session], timeout: float | None
) -> None:
    for index, session in enumerate(sessions):
        for link in peers:
            await session.send(link.name, PrfKey(index.to_bytes(16, "little")), timeout=timeout)
    for index, session in enumerate(sessions):
        for link in peers:
            seen = await session.recv(link.name, timeout=timeout)
            if seen != PrfKey(index.to_bytes(16, "little")):
                what = "first message of a new session, which must be its place among them, is another"
                error = LinkProtocolError(link.name, what, type(seen).__name__)
                worker.link_life.lose_link(link, str(error))
                raise error
