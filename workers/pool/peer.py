"""One peer of a pool: its inbox, its outbox, and what happens when its channel opens and ends.

Between the pool's calls and the peer's channel. The one invariant: in one life of the channel each message is given to
one receive; after its end what had arrived can still be received, and everything else raises the same error until
`reconnect` has begun the next life with nothing of this one.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from partywire.engine.errors import LinkProtocolError

from ..objects.errors import ObjectDecodeError
from ..objects.limits import DEFAULT_LIMITS
from ..objects.packing import unpack_object
from ..objects.registry import DEFAULT
from .errors import PeerRefused, PoolClosed, PoolFailed, PoolInboxFull, ReceiveTimeout, SendTimeout, show_id
from .inbox import Arrival, Entry, Inbox, Places, Unread
from .late import Late
from .outbox import Outbox
from .sending import Sending
from .stat import PeerTraffic
from .wire import ACKNOWLEDGEMENT, BYTES, RAW, decode_head_untrusted

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from ..errors import ConnectFailed, SessionError
    from ..objects.limits import ObjectLimits
    from ..objects.registry import ObjectRegistry
    from .links import PeerChannel

log = logging.getLogger("partywire.pool")

CANCEL_GRACE_S: Final = 1.0
"""How long a cancelled send whose buffers are being read right now waits for that, before it gives up the channel."""


class Shared:
    """What the peers of one pool have together."""

    def __init__(
        self, late_s: float | None, inbox_size_max: int, outbox_size_max: int, registry: ObjectRegistry = DEFAULT
    ) -> None:
        # How long a call waits for a peer that was never met.
        self.late_s = late_s
        self.inbox_size_max = inbox_size_max
        self.outbox_size_max = outbox_size_max
        self.registry = registry
        self.limits: ObjectLimits = DEFAULT_LIMITS
        # Set by the pool's first call inside a loop.
        self.loop: asyncio.AbstractEventLoop | None = None
        # Whether the pool was shut down, or is being.
        self.is_closed = False
        # Why the pool can do nothing any more.
        self.failure: PoolFailed | None = None
        # Peers that are not read because too much is unread.
        self.paused: list[Peer] = []
        # Peers of which something arrived in this turn of the loop.
        self.arrived: list[Peer] = []
        self.peers: dict[str, Peer] = {}
        # What all inboxes hold that nobody has received.
        self.unread = Unread()

    def acknowledge(self) -> None:
        """At the end of a turn: what has arrived is acknowledged, where nothing that was sent said so already."""
        arrived, self.arrived = self.arrived, []
        for peer in arrived:
            peer.outbox.acknowledge()

    def resume(self) -> None:
        """Something was received: read again whom there is room for."""
        if self.unread.size <= self.inbox_size_max:
            paused, self.paused = self.paused, []
            for peer in paused:
                peer.channel.resume_reading()


class Peer:
    """Driven by the pool (send, receive, reconnect) and by the channel (the calls of Receiver)."""

    def __init__(self, name: str, client: Any, channel: PeerChannel, shared: Shared) -> None:
        self.name: Final = name
        # What `serialize` and `deserialize` of registered classes get as destination and origin.
        self.client = client
        self.channel = channel
        self._shared = shared
        self.inbox = Inbox(shared.unread)
        self.outbox = Outbox(name, channel, self._send_failed)
        self.places = Places()
        self.prefix = ""
        # Why the last life of the channel is over.
        self.failure: SessionError | PoolFailed | None = None
        self.was_opened = False
        # The id of the message whose value the next message is.
        self._raw_id: Hashable = None
        self._is_raw_next = False
        # Whether this life is being ended because the peer broke the protocol; what still comes is ignored.
        self._is_broken = False
        # Whoever waits for a first life, with a message or for one.
        self._late = Late(channel, self._has_not_come)
        self._opened_waits: list[asyncio.Future[None]] = []
        # Sends that failed and that nobody has looked at.
        self._unseen: list[Sending] = []
        self.messages_received = 0
        self.bytes_received = 0
        channel.attach(self)

    def traffic(self) -> PeerTraffic:
        """What has passed."""
        outbox = self.outbox
        return PeerTraffic(
            outbox.messages_sent, outbox.bytes_sent, self.messages_received, self.bytes_received, self.inbox.size
        )

    # What the channel tells.

    def channel_opened(self) -> None:
        """A life has begun."""
        self.was_opened = True
        self._is_broken = False
        self._late.clear()
        self.outbox.opened()
        waits, self._opened_waits = self._opened_waits, []
        for wait in waits:
            if not wait.done():
                wait.set_result(None)

    def message_arrived(self, data: bytes | bytearray) -> None:
        """One message, or the value of the one before. What breaks the protocol ends the life."""
        size = len(data)
        if self._is_broken:
            return
        if self._is_raw_next:
            self._is_raw_next = False
            self.bytes_received += size
            self._put(self._raw_id, Entry(data if type(data) is bytes else bytes(data), size))
            return
        try:
            kind, msg_id, arrived, begin = decode_head_untrusted(data, self._shared.limits, self.name)
            self.outbox.take_acknowledgement_untrusted(arrived)
        except LinkProtocolError as error:
            log.warning("%s", error)
            self._is_broken = True
            self.channel.end(str(error))
            return
        if kind == ACKNOWLEDGEMENT:
            return
        self.bytes_received += size
        if kind == RAW:
            self._is_raw_next = True
            self._raw_id = msg_id
            return
        if kind == BYTES:
            self._put(msg_id, Entry(data[begin:] if type(data) is bytes else bytes(memoryview(data)[begin:]), size))
            return
        shared = self._shared
        try:
            value = unpack_object(memoryview(data)[begin:], shared.registry, shared.limits, origin=self.client)
            entry = Entry(value, size)
        except ObjectDecodeError as error:
            error.peer = self.name
            entry = Entry(None, size, error)
        self._put(msg_id, entry)

    def _put(self, msg_id: Hashable, entry: Entry) -> None:
        shared = self._shared
        outbox = self.outbox
        outbox.arrived += 1
        self.messages_received += 1
        if not self.inbox.put(msg_id, entry) and shared.unread.size > shared.inbox_size_max:
            self._pause()
        # Behind `put`, so that whoever was waiting runs first, and what it sends acknowledges.
        arrived = shared.arrived
        if not arrived:
            assert shared.loop is not None
            shared.loop.call_soon(shared.acknowledge)
            arrived.append(self)
        elif arrived[-1] is not self:
            arrived.append(self)

    def _pause(self) -> None:
        shared = self._shared
        if self not in shared.paused:
            shared.paused.append(self)
            self.channel.pause_reading()
        for peer in shared.paused:
            peer.inbox.fail_waiting(peer._inbox_full)

    def _inbox_full(self, msg_id: Hashable) -> Exception:
        return PoolInboxFull(self.name, show_id(msg_id), self._shared.unread.size, self._shared.inbox_size_max)

    def channel_ended(self, error: SessionError) -> None:
        """The life is over: everybody who waits is told, what is unread stays."""
        self._fail(error)

    def links_failed(self, error: PoolFailed) -> None:
        """So is the pool."""
        self._shared.failure = error
        self._fail(error)
        self._late.clear()

    def channel_refused(self, cause: str) -> None:
        """Waiting does not help: whoever waits for a first life is told, the next call waits for the next attempt."""
        if self.was_opened or self.failure is not None:
            return
        self._late.refused(cause)
        for wait in self._opened_waits:
            if not wait.done():
                wait.set_exception(PeerRefused(self.name, cause))

    def _fail(self, error: SessionError | PoolFailed) -> None:
        self.failure = error
        self._is_raw_next = False
        self.inbox.fail_waiting(lambda _: error.again())
        self.outbox.fail(error.again)
        for wait in self._opened_waits:
            if not wait.done():
                wait.set_exception(error.again())
        self._opened_waits.clear()

    # Sending.

    def send(self, sending: Sending) -> None:
        """Give a message to the outbox. It ends with the peer's acknowledgement, or an error.

        Raises:
            PeerLost, PeerClosed: the life is over.
            PoolClosed: so is the pool.
            OutboxFull, TypeError, ValueError, MessageTooLarge: nothing was sent.
        """
        self.check()
        self.outbox.put(sending)
        if not self.was_opened and not sending.done():
            self._late.wait(sending, self._shared.late_s)

    def check(self) -> None:
        """Raises what a call towards this peer raises before it does anything."""
        if self._unseen:
            self._raise_unseen()
        if self.failure is not None:
            raise self.failure.again()

    async def wait_sent(self, sending: Sending, timeout: float | None) -> None:
        """Wait until the peer has it. Cancelled before it went out, it never goes."""
        timer = None
        if timeout is not None:
            timer = asyncio.get_running_loop().call_later(timeout, self.send_timed_out, sending, timeout)
        try:
            await sending
        except BaseException:
            if sending.is_lent:
                await self._take_buffers_back(sending)
            elif not sending.has_begun:
                self.outbox.discard(sending)
            raise
        finally:
            if timer is not None:
                timer.cancel()
            if self._late:
                self._late.leave(sending)

    def send_timed_out(self, sending: Sending, seconds: float) -> None:
        error = SendTimeout(self.name, seconds, sending.has_begun) if self.was_opened else self._late.not_met(seconds)
        self.outbox.discard(sending)
        self.outbox.end(sending, error)

    async def _take_buffers_back(self, sending: Sending) -> None:
        """The caller gets its buffers back, which are being read: soon, or the channel is given up."""
        returned = asyncio.get_running_loop().create_future()
        sending.on_returned = partial(_resolve, returned)
        try:
            await asyncio.wait_for(returned, CANCEL_GRACE_S)
        except BaseException as error:
            self.channel.end("a send was given up half way")
            if not isinstance(error, TimeoutError):
                raise

    def _send_failed(self, sending: Sending) -> None:
        if not sending.is_seen:
            self._unseen.append(sending)

    def _raise_unseen(self) -> None:
        unseen = self.take_unseen()
        if unseen:
            raise unseen[0]

    def take_unseen(self) -> list[BaseException]:
        """The errors that nobody has looked at; they count as seen from now on."""
        unseen, self._unseen = self._unseen, []
        errors = []
        for sending in unseen:
            if not sending.is_seen:
                error = sending.exception()
                if error is not None:
                    errors.append(error)
        return errors

    # Receiving.

    def begin_receive(self, msg_id: Hashable | None) -> tuple[Hashable, int | None]:
        """The id to look for, and the place it has if it follows from that."""
        if msg_id is None:
            place = self.places.begin()
            return (f"{self.prefix}{place}" if self.prefix else place), place
        key = f"{self.prefix}{msg_id}" if self.prefix else msg_id
        hash(key)
        self.places.begin_explicit(key)
        return key, None

    def give_back(self, key: Hashable, place: int | None) -> None:
        """A receive ended without its message."""
        if place is None:
            self.places.give_back_explicit(key)
        else:
            self.places.give_back(place)

    def take(self, key: Hashable) -> Entry | None:
        """What has arrived with this id, oldest first."""
        entry = self.inbox.take(key)
        if entry is not None and self._shared.paused:
            self._shared.resume()
        return entry

    def put_back(self, key: Hashable, place: int | None, entry: Entry) -> None:
        """What a receive was given and could not keep."""
        self.give_back(key, place)
        self.inbox.put_back(key, entry)

    def wait(self, key: Hashable, place: int | None, loop: asyncio.AbstractEventLoop) -> Arrival:
        """A future of the next message with this id.

        Raises:
            PeerLost, PeerClosed, PoolInboxFull: it will not come.
            Exception: an earlier `asend` to this peer failed with it.
        """
        try:
            self.check()
            if self in self._shared.paused:
                raise self._inbox_full(key)
        except BaseException:
            self.give_back(key, place)
            raise
        arrival = Arrival(loop=loop)
        self.inbox.wait(key, arrival)
        if not self.was_opened:
            self._late.wait(arrival, self._shared.late_s)
        return arrival

    def end_wait(self, arrival: Arrival, key: Hashable, place: int | None, error: BaseException | None) -> None:
        """A receive ended with this error: whatever it was given goes to the next one."""
        self._late.leave(arrival)
        entry = arrival.entry
        if entry is None:
            self.inbox.leave(key, arrival)
            self.give_back(key, place)
        elif error is not entry.error:
            self.put_back(key, place, entry)
        if arrival.done() and not arrival.cancelled():
            arrival.exception()  # the caller has it, or another of the same call

    def undo(self, got: Entry | Arrival, key: Hashable, place: int | None, error: BaseException) -> None:
        """One of several receives ended with this error: what this one was given goes to the next."""
        if isinstance(got, Arrival):
            self.end_wait(got, key, place, error)
        elif error is not got.error:
            self.put_back(key, place, got)

    async def receive(self, msg_id: Hashable | None, timeout: float | None) -> Any:
        """The next message with this id. See Pool.recv."""
        key, place = self.begin_receive(msg_id)
        entry = self.take(key)
        if entry is not None:
            if entry.error is not None:
                raise entry.error
            return entry.value
        loop = asyncio.get_running_loop()
        arrival = self.wait(key, place, loop)
        timer = None
        try:
            if timeout is not None:
                timer = loop.call_later(timeout, self.receive_timed_out, arrival, key, timeout)
            value = await arrival
        except BaseException as error:
            self.end_wait(arrival, key, place, error)
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if self._late:
            self._late.leave(arrival)
        return value

    def receive_timed_out(self, arrival: Arrival, key: Hashable, seconds: float) -> None:
        """The time of a receive is up."""
        if not arrival.done():
            why = "" if self.was_opened else self.channel.why_not_open
            arrival.set_exception(ReceiveTimeout(self.name, show_id(key), float(seconds), why))

    # A peer that has not come yet.

    def _has_not_come(self, future: asyncio.Future[Any], error: ConnectFailed) -> None:
        if not future.done():
            future.set_exception(error)
            if isinstance(future, Sending):
                self.outbox.discard(future)
                self._send_failed(future)

    async def wait_opened(self, timeout: float | None) -> None:
        """Wait until a life has begun.

        Raises:
            ConnectFailed: none has within the timeout.
            PeerLost, PeerClosed: the last one is over.
        """
        if self.failure is not None:
            raise self.failure.again()
        if self.channel.is_open:
            return
        wait: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._opened_waits.append(wait)
        try:
            await asyncio.wait_for(wait, timeout)
        except TimeoutError:
            raise self._late.not_met(timeout or 0) from None
        finally:
            if wait in self._opened_waits:
                self._opened_waits.remove(wait)

    async def reconnect(self, timeout: float | None) -> None:
        """Begin the next life, after the end of one. See Pool.reconnect."""
        if isinstance(self.failure, PoolFailed):
            raise self.failure.again()
        if self.failure is None:
            await self.wait_opened(timeout)
            return
        self.take_unseen()
        self.inbox.clear()
        self.outbox.begin_again()
        self.places = Places()
        if self in self._shared.paused:
            self._shared.paused.remove(self)
            self.channel.resume_reading()
        self._shared.resume()
        self.failure = None
        self.was_opened = False
        self.channel.renew()
        await self.wait_opened(timeout)

    # The end of the pool.

    def stop_receiving(self) -> None:
        """The pool is being shut down: no receive waits any more."""
        self.inbox.fail_waiting(_closed)

    def close(self) -> None:
        """The pool is shut down: nobody waits any more."""
        self.stop_receiving()
        self.outbox.fail(PoolClosed)
        self._late.clear()
        for wait in self._opened_waits:
            if not wait.done():
                wait.set_exception(PoolClosed())


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _closed(_: Hashable) -> Exception:
    return PoolClosed()


if TYPE_CHECKING:
    from .links import Receiver

    _is_receiver: Callable[[Peer], Receiver] = lambda peer: peer  # noqa: E731
