"""The service's line to the worker that answers HTTP, whichever process that is at the moment.

Between the service and a worker that handlers may kill at any time. The one invariant: what a worker sent before its
end is taken before the next worker's snapshot is made, whether or not something for it was still to be sent: a
submission that a client has been told 202 for is among it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .channel import Channel, ChannelClosed

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from .blocking_party import BlockingParty


class WorkerChannel(Channel):
    """A Channel of which only `poll` says that the other end has gone; what is sent to that end is dropped."""

    def _flush(self) -> None:
        try:
            super()._flush()
        except ChannelClosed:
            self._outgoing.clear()


class WorkerLine:
    """Driven by the party's worker, which watches the channel, while a job runs, too."""

    def __init__(self, party: BlockingParty, take: Callable[[object], None]) -> None:
        """`take` gets each message; it only notes it."""
        self._party = party
        self._take = take
        self._channel: WorkerChannel | None = None  # while there is a worker

    def replace(self, sock: socket.socket) -> None:
        """There is another worker, at the other end of `sock`, which belongs to the line from here on."""
        self._hear()
        self.close()
        self._channel = channel = WorkerChannel(sock)
        self._party.worker.watch(channel.fileno(), self._hear)

    def tell(self, message: object) -> None:
        """Send a message. Never waits; without a worker it is dropped, because the next one gets a snapshot."""
        if self._channel is not None:
            self._channel.send(message)

    def _hear(self) -> None:
        channel = self._channel
        try:
            while channel is not None and (messages := channel.poll()):
                for message in messages:
                    self._take(message)
        except ChannelClosed:
            self.close()  # another worker comes, with a channel of its own

    def close(self) -> None:
        """Leave the channel. May be called again."""
        channel, self._channel = self._channel, None
        if channel is not None:
            self._party.worker.unwatch(channel.fileno())
            channel.close()
