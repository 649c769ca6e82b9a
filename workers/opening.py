"""What a party hears while it opens: why links are not up yet, and which will never be.

Between the supervisor's reports, the peers' last words, and the error that a party raises when it cannot open. The one
invariant: the error names every peer without a link, each with the best cause that is known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from partywire.engine.errors import HandshakeRejected, RejectCode

from .errors import ConnectFailed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from partywire.engine.commands import LinkFailed

    from .peer_link import PeerLink

TIMEOUT: Final = "TIMEOUT"
"""The code of a LinkFailed that says no more than that time was up; what makes a link impossible has another."""


class Opening:
    """Driven by the party."""

    def __init__(self, name: str, connect_s: float) -> None:
        self._name = name
        self._connect_s = connect_s
        # Peer index -> why its link is not up (yet), as last heard; also after it was lost.
        self.progress: dict[int, str] = {}
        self.failed: dict[int, LinkFailed] = {}
        # Peers that told us, while we were opening, that they could not open.
        self.gave_up: dict[str, str] = {}

    def raise_if_hopeless(self, links: Iterable[PeerLink]) -> None:
        """Raises ConnectFailed as soon as some link will not come up, however long we wait."""
        links = tuple(links)
        if self.failed:
            raise self.error(links)
        for link in links:
            if link.name in self.gave_up or link.is_closed:
                raise self.error(links, is_late=False)

    def why_lost(self, link: PeerLink) -> str:
        """The cause of a loss, and what became of the attempts since."""
        since = self.progress.get(link.index)
        return f"{link.cause}; it did not come back: {since}" if since and since != link.cause else link.cause

    def error(self, links: Iterable[PeerLink], is_late: bool = True) -> ConnectFailed:
        """The party cannot open; `is_late` if that is because time is up."""
        causes = []
        rejected: HandshakeRejected | None = None
        for link in links:
            failed = self.failed.get(link.index)
            if failed is not None:
                causes.append((link.name, failed.message))
                if failed.code in RejectCode.__members__ and rejected is None:
                    rejected = HandshakeRejected(link.name, RejectCode[failed.code], failed.message, by_us=False)
            elif link.name in self.gave_up:
                causes.append((link.name, f"it gave up ({self.gave_up[link.name]})"))
            elif link.connection_count and not link.is_up:
                causes.append((link.name, link.cause or "it closed while the others still connect"))
            elif not link.is_up:
                causes.append((link.name, self.progress.get(link.index, "not connected yet")))
        is_late = is_late and all(failed.code == TIMEOUT for failed in self.failed.values())
        error = ConnectFailed(self._name, tuple(causes), self._connect_s if is_late else None)
        error.__cause__ = rejected
        return error
