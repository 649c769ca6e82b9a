"""What a party says in its common steps, also to peers whose links were lost and made anew meanwhile.

Between the party, its book of rounds, and the control lanes of its links. The one invariant: nothing is said in a round
before every peer whose link is up has told where it stands in this epoch of it, so the number of the round is that of
all parties; and what a peer in the same life may have missed is said to it again, once.

An agreement on sessions is not said again after it was reached: the sessions of the epoch in which it was reached are
lost with that, so a peer that has not heard of it yet must not make any.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from partywire.engine.control import Abort, encode_control
from partywire.engine.rendezvous import RendezvousBook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from partywire.engine.control import Resume

    from .peer_link import PeerLink

LIFE_SIZE = 8
"""Random bytes that name this process; they are compared with those of one other process at a time."""


class Rounds:
    """The words of one party. Driven by its common steps, its links and its peers."""

    def __init__(self, our_name: str, peers: Iterable[str], links: Callable[[], Iterable[PeerLink]]) -> None:
        """`links` to all peers; not called before one of them is up."""
        self.book = RendezvousBook(our_name, peers, os.urandom(LIFE_SIZE).hex())
        self._links = links
        # What we said in our last two rounds. No peer can be further behind, because each later round needs all.
        self._said: dict[int, bytes] = {}
        # Peers that have not told where they stand in this epoch of their links.
        self._unresumed: set[str] = set()
        # Peers that were open before us.
        self.running: set[str] = set()

    @property
    def silent(self) -> tuple[str, ...]:
        """Peers whose links are up and that have not told where they stand. No round can be entered before."""
        return tuple(link.name for link in self._links() if link.is_up and link.name in self._unresumed)

    def say(self, round_: int, body: bytes) -> None:
        """Say our word in a round to everybody."""
        self._said = {said: text for said, text in self._said.items() if said >= round_ - 1} | {round_: body}
        self.tell_all(body)

    def tell_all(self, body: bytes) -> None:
        """Send a control message to every peer whose link is up."""
        for link in self._links():
            if link.control is not None:
                link.control.send(body)

    def link_up(self, link: PeerLink, agreed: int | None) -> None:
        """A new epoch of a link begins. `agreed` is the last round in which sessions were agreed on, if any: it is
        given up at every party."""
        self._unresumed.add(link.name)
        if agreed is None:
            self._resume(link)
            return
        reason = f"the link to {link.name} was lost after the sessions were agreed on"
        abort = encode_control(Abort(agreed, reason))
        if agreed in self._said:
            self._said[agreed] = abort
        self._resume(link)
        for other in self._links():
            if other is not link and other.control is not None and other.iris is None:
                other.control.send(abort)

    def _resume(self, link: PeerLink) -> None:
        if link.control is not None:
            link.control.send(encode_control(self.book.resume(link.name, sorted(self._said))))

    def take_untrusted(self, link: PeerLink, message: Resume) -> None:
        """A peer tells where it stands.

        Raises:
            LinkProtocolError: nowhere near us.
        """
        resumption = self.book.resumed(link.name, message)
        self._unresumed.discard(link.name)
        if message.round or message.said:
            self.running.add(link.name)
        else:
            self.running.discard(link.name)
        for round_, body in self._said.items():
            # One in another life lacks only what is open.
            if link.control is not None and (resumption.is_same_life or self.book.is_open(round_)):
                link.control.send(body)
        if resumption.has_skipped:
            for other in self._links():
                if other.control is not None and other.iris is None:
                    self._resume(other)
