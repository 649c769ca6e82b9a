"""The messages of one peer that wait to be received, and the receives that wait for a message.

Between the channel's arrivals and the pool's `recv` and `arecv`. The one invariant: of one id there are messages
waiting, or receives, never both; messages of an id come out in the order in which they were put in, each once. What a
receive was given and then did not take (it was cancelled in that very turn) is put back in front.

No I/O and no clock; the futures are only ever resolved.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

MESSAGE_OVERHEAD: Final = 256
"""What one waiting message costs beside its bytes: the entry, its id, a deque of one and a place in the table."""


class Entry(NamedTuple):
    """A message: its value, or why there is none, and what it is counted as."""

    value: Any
    size: int
    error: Exception | None = None


class Arrival(asyncio.Future[Any]):
    """A receive that waits. Once it was given a message, `entry` is that, and the result its value or error."""

    entry: Entry | None = None


class Unread:
    """What several inboxes hold together."""

    def __init__(self) -> None:
        # Bytes, with the overhead of each message.
        self.size = 0


class Inbox:
    """Driven by what arrives (put), by receives (take, wait, put_back) and by the end of the channel's life."""

    def __init__(self, total: Unread) -> None:
        self._total = total
        self._unread: dict[Hashable, deque[Entry]] = {}
        self._waiting: dict[Hashable, deque[Arrival]] = {}
        # Bytes of all that is unread, with the overhead of each.
        self.size = 0

    def put(self, msg_id: Hashable, entry: Entry) -> bool:
        """A message arrived. True: somebody was waiting for it."""
        if msg_id in self._waiting and self._give(msg_id, entry):
            return True
        line = self._unread.get(msg_id)
        if line is None:
            line = self._unread[msg_id] = deque()
        line.append(entry)
        self._count(entry.size + MESSAGE_OVERHEAD)
        return False

    def put_back(self, msg_id: Hashable, entry: Entry) -> None:
        """Whoever was given this did not take it: the next receive of the id gets it."""
        if msg_id in self._waiting and self._give(msg_id, entry):
            return
        self._unread.setdefault(msg_id, deque()).appendleft(entry)
        self._count(entry.size + MESSAGE_OVERHEAD)

    def _give(self, msg_id: Hashable, entry: Entry) -> bool:
        waiting = self._waiting[msg_id]
        given = False
        while waiting and not given:
            arrival = waiting.popleft()
            if arrival.done():
                continue  # cancelled, or out of time
            arrival.entry = entry
            if entry.error is None:
                arrival.set_result(entry.value)
            else:
                arrival.set_exception(entry.error)
            given = True
        if not waiting:
            del self._waiting[msg_id]
        return given

    def take(self, msg_id: Hashable) -> Entry | None:
        """The oldest unread message with this id."""
        line = self._unread.get(msg_id)
        if line is None:
            return None
        entry = line.popleft()
        if not line:
            del self._unread[msg_id]
        self._count(-entry.size - MESSAGE_OVERHEAD)
        return entry

    def wait(self, msg_id: Hashable, arrival: Arrival) -> None:
        """Stand in line for the next message with this id; there is none now."""
        waiting = self._waiting.get(msg_id)
        if waiting is None:
            waiting = self._waiting[msg_id] = deque()
        waiting.append(arrival)

    def leave(self, msg_id: Hashable, arrival: Arrival) -> None:
        """Stand in line no longer."""
        waiting = self._waiting.get(msg_id)
        if waiting is None:
            return
        try:
            waiting.remove(arrival)
        except ValueError:
            return  # it was given something
        if not waiting:
            del self._waiting[msg_id]

    @property
    def unread(self) -> dict[Hashable, Any]:
        """The oldest unread value of each id, for whoever wants to look."""
        return {msg_id: line[0].value for msg_id, line in self._unread.items()}

    def fail_waiting(self, error: Callable[[Hashable], Exception]) -> None:
        """Nothing comes for those who wait; what is unread stays."""
        waiting, self._waiting = self._waiting, {}
        for msg_id, line in waiting.items():
            for arrival in line:
                if not arrival.done():
                    arrival.set_exception(error(msg_id))

    def clear(self) -> None:
        """Forget everything that is unread."""
        self._unread.clear()
        self._count(-self.size)

    def _count(self, size: int) -> None:
        self.size += size
        self._total.size += size


class Places:
    """Which automatic id the next message of one direction has: its place among all messages, explicit ids counted.

    A receive that ends without a message gives its place back, and the next one that asks for the same takes it again;
    so asking twice for one message is counted once, as the sender has sent it once.
    """

    def __init__(self) -> None:
        self.next = 0
        self._automatic: list[int] = []
        self._explicit: dict[Hashable, int] = {}

    def begin(self) -> int:
        """The place of a receive without an id."""
        if self._automatic:
            return heapq.heappop(self._automatic)
        self.next += 1
        return self.next - 1

    def begin_explicit(self, msg_id: Hashable) -> None:
        """A receive with an id takes a place too."""
        if self._explicit:
            count = self._explicit.pop(msg_id, 0)
            if count:
                if count > 1:
                    self._explicit[msg_id] = count - 1
                return
        self.next += 1

    def give_back(self, place: int) -> None:
        """The receive of `begin` ended without its message."""
        heapq.heappush(self._automatic, place)

    def give_back_explicit(self, msg_id: Hashable) -> None:
        """The receive of `begin_explicit` ended without its message."""
        self._explicit[msg_id] = self._explicit.get(msg_id, 0) + 1
