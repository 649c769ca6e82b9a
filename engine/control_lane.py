"""The I/O process's end of a control lane: the ring pair between the opener and a link, and what does not fit it yet.

Between the multiplexer and the opener. The one invariant: messages for the opener reach it in the order of `put`, each
once; none is refused for want of room, so whoever puts looks at `pending_size`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from partywire.shm.ring import RingReader, RingWriter


class ControlLane:
    """What the multiplexer writes, in order, and the opener's ring, which the multiplexer reads itself."""

    def __init__(self, tx: RingReader, rx: RingWriter, epoch: int) -> None:
        self.tx = tx
        self.rx = rx
        self.is_finished = False  # the opener's FINISH came: this party closes
        self._epoch = epoch
        self._pending: list[tuple[int, bytes]] = []  # (kind, payload) that the ring had no room for
        self._pending_size = 0

    def put(self, kind: int, payload: bytes) -> None:
        """Hand one message to the opener, now or when it has made room."""
        self._pending.append((kind, payload))
        self._pending_size += len(payload)
        self.flush()

    def flush(self) -> None:
        """Write what is held. If something is left, a bell comes when there is room."""
        written = 0
        for kind, payload in self._pending:
            while not (done := self.rx.try_write([payload], len(payload), kind, 0, self._epoch)):
                if not self.rx.request_space():
                    break
            if not done:
                break
            written += 1
            self._pending_size -= len(payload)
        del self._pending[:written]
        self.rx.publish()

    @property
    def is_flushed(self) -> bool:
        """Whether nothing is held."""
        return not self._pending

    def give_up(self) -> None:
        """A ring cannot be used any more: nothing is left to say."""
        self.is_finished = True
        self._pending.clear()

    @property
    def pending_size(self) -> int:
        """Bytes of messages that the ring has no room for."""
        return self._pending_size

    def close(self) -> None:
        """Give both rings back."""
        self.tx.close()
        self.rx.close()
