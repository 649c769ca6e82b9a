"""What happens to a party's links, told to the application: for its log, and for policies of its own.

Between the supervisor's news (`LinkNews`, which the opener reads whenever it serves its control socket) and a callback
of the user. The one invariant: whatever the callback does, however long it takes and whatever it raises, no session
waits for it, no error of the party comes from it, and an event that is told counts those left out before it.

- Events are told one after another, in the order of each link, in a thread of their own.
- Whatever was ACCEPTED or CONNECTED is CLOSED later, once, also when a process of ours dies or the party ends.
- At most PENDING_MAX events wait for the callback; of those beyond it the count stands in the next one that is told.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from partywire.engine.commands import LinkEventKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from partywire.engine.commands import LinkNews

__all__ = ["LinkEvent", "LinkEventKind", "LinkEvents"]

PENDING_MAX: Final = 1024
"""Events that wait for a slow callback, some hundred bytes each. A link that stands makes none; one that cannot be made
makes about one a second."""

LAST_WORDS_S: Final = 2.0
"""How long the end of a party waits for the callback to take what is left."""

log = logging.getLogger("partywire")


@dataclass(frozen=True, slots=True)
class LinkEvent:
    """Something that happened to the link to `peer`, or on the way to it. What is said of a peer is as true as its
    link is secure: over plaintext, whoever answers can claim a name."""

    kind: LinkEventKind
    peer: str
    address: str
    """The peer's address; as it was configured when no connection was made; empty when it is not known."""
    cause: str
    """Why, in words; empty for ACCEPTED, CONNECTED, and a CLOSED after both goodbyes."""
    dropped: int = 0
    """Events before this one that were not told, because too many waited."""


class LinkEvents:
    """Tells one callback. Driven by the party: `put`, at the end `close`. `put` never waits."""

    def __init__(self, whose: str, names: tuple[str, ...], callback: Callable[[LinkEvent], object]) -> None:
        """`whose` party it is, for the log; `names` of all parties, by index."""
        self._whose = whose
        self._names = names
        self._callback = callback
        self._changed = threading.Condition()
        # Under the condition's lock: what waits, what was left out since, whether nothing more comes.
        self._pending: deque[LinkEvent] = deque()
        self._dropped = 0
        self._is_closed = False
        # Of the party's thread: peers with a connection -> its address.
        self._connected: dict[int, str] = {}
        # A daemon: a callback that hangs must not keep the program from ending.
        self._thread = threading.Thread(target=self._run, name=f"partywire-events-{whose}", daemon=True)
        self._thread.start()

    def put(self, news: LinkNews) -> None:
        """Have it told soon. News that no version of ours sends are not passed on."""
        try:
            kind = LinkEventKind(news.kind)
        except ValueError:
            return
        if kind is LinkEventKind.CLOSED:
            self._connected.pop(news.peer, None)
        elif kind in (LinkEventKind.ACCEPTED, LinkEventKind.CONNECTED):
            self._connected[news.peer] = news.address
        self._add(LinkEvent(kind, self._names[news.peer], news.address, news.cause, news.dropped))

    def _add(self, event: LinkEvent) -> None:
        with self._changed:
            if len(self._pending) >= PENDING_MAX:
                self._dropped += 1 + event.dropped
                return
            if self._dropped:
                event = replace(event, dropped=event.dropped + self._dropped)
                self._dropped = 0
            self._pending.append(event)
            self._changed.notify()

    @property
    def pending(self) -> int:
        """Events that wait for the callback."""
        return len(self._pending)

    def close(self, timeout_s: float = LAST_WORDS_S) -> None:
        """The party ended: tell what is left, as far as the callback takes it in time. Called by the callback itself,
        or again, it waits for nothing."""
        for peer, address in self._connected.items():
            self._add(LinkEvent(LinkEventKind.CLOSED, self._names[peer], address, f"{self._whose} ended"))
        self._connected.clear()
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        if threading.current_thread() is self._thread:
            return
        deadline = time.monotonic() + timeout_s
        self._thread.join(timeout_s)
        with self._changed:
            untold = len(self._pending) + self._dropped
            self._pending.clear()
            self._dropped = 0
        if untold or (self._thread.is_alive() and time.monotonic() >= deadline):
            log.warning("%s: the on_event callback was too slow; %d events were not told", self._whose, untold)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._pending and not self._is_closed:
                    self._changed.wait()
                if not self._pending:
                    return
                event = self._pending.popleft()
            try:
                self._callback(event)
            except BaseException:  # SystemExit too, which would end the thread without a word
                log.exception("%s: the on_event callback failed on %s of %s", self._whose, event.kind.value, event.peer)
