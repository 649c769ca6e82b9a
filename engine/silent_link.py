"""The life of a link that has no control connection: nobody says hello, shows that it lives, or says goodbye.

Between the keeper of such a link and its peer; in the place of `link.Link`, whose words it uses.

    ATTACHING -> UP -> CLOSING -> CLOSED
    UP -> CLOSED (the peer ended all of its streams);   anywhere before CLOSED -> LOST(cause)

The one invariant: end of file on every stream is the only orderly end, so all that the peer sent has been received when
the link is CLOSED. A stream that ends leaves the others a moment to do so as well; one that breaks ends the link.

A peer whose host dies is found by the kernel alone, by its keepalive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .link import Link, LinkState
from .link_events import LinkClosed

if TYPE_CHECKING:
    from .link_events import LinkTimeouts


class SilentLink(Link):
    """The state of one such link. Driven like a Link; what only a control connection brings never comes."""

    def __init__(
        self, our_name: str, peer: str, now: float, timeouts: LinkTimeouts, *, connections: int, epoch: int
    ) -> None:
        super().__init__(our_name, peer, now, timeouts)
        self._state = LinkState.ATTACHING
        self._connections = connections
        self._epoch = epoch

    @property
    def _expects_signs_of_life(self) -> bool:
        return False

    def goodbye_said(self, now: float) -> None:
        """Our half of every stream ends behind everything that we sent."""
        self._goodbye_deadline = None
        super().goodbye_said(now)

    def stream_ended(self, now: float, stream: int) -> None:
        """End of file on a stream, behind everything that the peer sent on it."""
        if self.is_dead or stream in self._ended:
            return
        if self._state is LinkState.ATTACHING:
            self.lost(f"{self._peer} closed connection {stream} before the link was up")
            return
        self._ended.add(stream)
        if not self._goodbye_sent and self._goodbye_deadline is None:
            self._goodbye_deadline = now + self._timeouts.goodbye_grace_s
        self._close_when_over()

    def _close_when_over(self) -> None:
        if len(self._ended) == self._connections:
            self._state = LinkState.CLOSED
            self._cause = "" if self._goodbye_sent else f"{self._peer} closed its connections"
            self._events.append(LinkClosed(True, self._cause))

    def check_invariants(self) -> None:
        """What must hold after every public call."""
        assert self._connections >= 1
        assert self._ended <= self._attached <= set(range(self._connections))
        assert bool(self.missing) <= (self._state is LinkState.ATTACHING or self.is_dead)
        assert (self._state is LinkState.CLOSING) <= self._goodbye_sent
        assert not self._goodbye_received
        assert not self._pings
