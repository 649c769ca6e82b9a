"""What the opener is told of links that are not up, of what happens to links, and of strangers at our address.

Between the supervisor, who hears all of it, and the opener, who may be computing and read nothing for minutes. The one
invariant: nothing of this takes the room that the opener's other messages need; what it is too slow for is counted, or
said again with the next word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .commands import LinkNews, LinkProgress, Refused
from .message import replaced

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from .commands import Message


class Tidings:
    """Of one party. Driven by its supervisor."""

    def __init__(self, tell: Callable[[Message], bool], dialling_us: Container[int]) -> None:
        """`tell` gives the opener a message now, or is False if it does not read. `dialling_us`: the peers that come by
        our address."""
        self._tell = tell
        self._dialling_us = dialling_us
        self._progress: dict[int, str] = {}  # peers whose link is not up -> why, as last said
        self._news_dropped = 0  # news that the opener did not read, since the last one that it could
        self._refused = ""  # what strangers did at our address, in words
        self._refused_total = Refused(0, 0, 0)  # the same as last told, of all gateways
        self._refused_before = Refused(0, 0, 0)  # by gateways that have ended

    def progress(self, peer: int, cause: str) -> None:
        """The link to a peer is not up yet, and why."""
        self._progress[peer] = cause
        self._tell_progress(peer)

    def settled(self, peer: int) -> None:
        """The link to a peer is up, or will never be."""
        self._progress.pop(peer, None)

    def news(self, news: LinkNews) -> None:
        """Something happened to a link, or on the way to it; an opener that is behind gets a count."""
        if self._tell(replaced(news, dropped=self._news_dropped)):
            self._news_dropped = 0
        else:
            self._news_dropped += 1

    def refused(self, message: Refused) -> Refused:
        """A gateway closed connections. Returns the totals of all gateways."""
        total = self._refused_total = self._refused_before.plus(message)
        self._tell(total)  # for its log; totals, so that one may be left out
        kinds = (
            (total.unknown, "of parties that are not in our configuration, or not for us"),
            (total.garbage, "that do not speak PartyWire"),
            (total.silent, "that sent nothing"),
            (total.crowded, "too many at once"),
        )
        self._refused = ", ".join(f"{count} {what}" for count, what in kinds if count)
        for peer in self._progress:
            if peer in self._dialling_us:
                self._tell_progress(peer)
        return total

    def gateway_ended(self) -> None:
        """Another one counts from zero."""
        self._refused_before = self._refused_total

    def _tell_progress(self, peer: int) -> None:
        cause = self._progress[peer]
        if self._refused and peer in self._dialling_us:
            cause = f"{cause}; refused connections at our address: {self._refused}"
        self._tell(LinkProgress(peer, cause))
