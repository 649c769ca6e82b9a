"""`Pool`: messages with ids between parties that know each other pairwise, by the calls of tno.mpc.communication.

Between a user's asyncio program and its peers (peer.py, one for each). The one invariant: a message is received once,
by the receive that asks for its sender and its id, in order among those of one id, or both ends are told why not.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from .deadlines import send_seconds
from .errors import OutboxFull
from .peer_group import PeerGroup
from .receive_all import receive_all
from .sending import new_sending, pack

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from .peer import Peer
    from .sending import Sending


class Pool(PeerGroup):
    """All our peers, to whom objects are sent under message ids. For one asyncio loop.

    Finished by `shutdown`, or by leaving `async with`. A peer that has not started yet is waited for. A peer that is
    lost or has shut down ends every call towards it with PeerLost or PeerClosed, until `reconnect`.
    """

    # Sending.

    async def send(
        self,
        handler_name: str,
        message: Any,
        msg_id: Hashable | None = None,
        timeout: Any = None,
        max_retries: int | None = None,
    ) -> None:
        """Send an object to a peer. Returns when the peer's pool has it, received or not.

        Cancelled before it has gone out, it never does; cancelled later, it may arrive. When it returns the object may
        be changed, however it returns: a large array that is just being written then is waited for, and if that takes
        more than a second, the link is given up.

        Args:
            handler_name: the name of the peer.
            message: anything that docs/objects.md lists.
            msg_id: what the peer receives it by; None is the count of messages sent to that peer before.
            timeout: seconds, None for no limit beyond that for peers that were never met.
            max_retries: for a peer that was never met, as of the constructor.

        Raises:
            ConnectFailed: the peer has not come in time; says why. PeerRefused, one of these, comes soon: who
                answers at its address and we do not accept each other's certificates.
            PoolFailed: this pool itself is finished.
            PeerLost, PeerClosed: it is gone. Whether the message arrived is not known.
            SendTimeout: it has not taken the message in time.
            ObjectEncodeError, MessageTooLarge: nothing was sent.
            UnknownPeer: no such peer.
        """
        loop = self._loop()
        peer = self._peer(handler_name)
        seconds = send_seconds(timeout, max_retries)
        sending = new_sending(loop, peer.prefix, msg_id)
        pack(sending, message, self._shared.registry, peer.client)
        sending.is_seen = True
        peer.send(sending)
        if sending.has_begun and seconds is None:
            await sending  # Hot: it is in the channel already, so there is no deadline and nothing to take back
        else:
            await peer.wait_sent(sending, seconds)

    def asend(
        self,
        handler_name: str,
        message: Any,
        msg_id: Hashable | None = None,
        timeout: Any = None,
        max_retries: int | None = None,
    ) -> Sending:
        """Begin to send an object, in the order of the calls. The object may be changed when this returns.

        The future that it returns need not be looked at: an error of it is then raised by the next call towards that
        peer that would wait, or by `shutdown`. Raises like `send`, and OutboxFull when too much waits already.
        """
        loop = self._loop()
        peer = self._peer(handler_name)
        seconds = send_seconds(timeout, max_retries)
        sending = new_sending(loop, peer.prefix, msg_id)
        pack(sending, message, self._shared.registry, peer.client)
        self._give(peer, sending)
        self._limit(peer, sending, seconds)
        return sending

    def _give(self, peer: Peer, sending: Sending) -> None:
        limit = self._shared.outbox_size_max
        if peer.outbox.size and peer.outbox.size + sending.nbytes > limit:
            raise OutboxFull(peer.name, peer.outbox.size + sending.nbytes, limit)
        peer.send(sending)
        if not sending.has_begun:
            sending.keep_copies()

    def _limit(self, peer: Peer, sending: Sending, seconds: float | None) -> None:
        if seconds is not None:
            timer = sending.get_loop().call_later(seconds, peer.send_timed_out, sending, seconds)
            sending.add_done_callback(lambda _: timer.cancel())

    async def broadcast(
        self,
        message: Any,
        msg_id: Hashable | None = None,
        handler_names: Iterable[str] | None = None,
        timeout: Any = None,
        max_retries: int | None = None,
    ) -> None:
        """Send an object to all peers, or to those named; it is packed once, with a list as `destination`.

        Returns when all of them have it. Raises like `send`, the first error after all have ended.

        Raises:
            ValueError: the peers have different prefixes of message ids.
        """
        seconds = send_seconds(timeout, max_retries)
        sendings = self._broadcast(message, msg_id, handler_names, True)
        for peer, sending in sendings:
            self._limit(peer, sending, seconds)
        errors: list[BaseException] = []
        for peer, sending in sendings:
            try:
                if errors and isinstance(errors[0], asyncio.CancelledError):
                    sending.cancel()
                await peer.wait_sent(sending, None)
            except BaseException as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def async_broadcast(
        self,
        message: Any,
        msg_id: Hashable | None = None,
        handler_names: Iterable[str] | None = None,
        timeout: Any = None,
        max_retries: int | None = None,
    ) -> list[Sending]:
        """Begin to send an object to all peers, or to those named, as `asend` does to one."""
        seconds = send_seconds(timeout, max_retries)
        sendings = self._broadcast(message, msg_id, handler_names, False)
        for peer, sending in sendings:
            if not sending.has_begun:
                sending.keep_copies()
            self._limit(peer, sending, seconds)
        return [sending for _, sending in sendings]

    def _broadcast(
        self, message: Any, msg_id: Hashable | None, names: Iterable[str] | None, is_seen: bool
    ) -> list[tuple[Peer, Sending]]:
        loop = self._loop()
        peers = self._peers_named(names)
        if len({peer.prefix for peer in peers}) > 1:
            raise ValueError("the peers of a broadcast have different prefixes of message ids")
        for peer in peers:
            peer.check()
        sendings = [(peer, new_sending(loop, peer.prefix, msg_id)) for peer in peers]
        if not sendings:
            return []
        first = sendings[0][1]
        pack(first, message, self._shared.registry, [peer.client for peer in peers])
        for _, sending in sendings[1:]:
            sending.kind, sending.parts, sending.nbytes, sending.raw = first.kind, first.parts, first.nbytes, first.raw
        for peer, sending in sendings:
            sending.is_seen = is_seen
            try:
                peer.send(sending)
            except Exception as error:  # what is on its way to others already cannot be taken back
                peer.outbox.end(sending, error)
        return sendings

    # Receiving.

    async def recv(self, handler_name: str, msg_id: Hashable | None = None, timeout: float | None = None) -> Any:
        """Receive the oldest message of a peer with this id; wait for it if it is not there.

        Cancelling it, and a timeout, lose no message: the same call receives it later. Several may wait for one id, and
        get one message each in the order of the calls.

        Args:
            msg_id: None is the count of messages received from that peer before.
            timeout: seconds; 0 takes what is there; None for no limit beyond that for peers that were never met.

        Raises:
            ReceiveTimeout: a TimeoutError; nothing came in time.
            ConnectFailed, PoolFailed: as for `send`.
            PeerLost, PeerClosed: it is gone, and had not sent this.
            PoolInboxFull: too much that nobody receives stands before it.
            Exception: an earlier `asend` to this peer failed with it, and nobody has looked.
            ObjectDecodeError: the message has come and cannot be used; of a class whose `deserialize` raised, that is
                its cause.
            UnknownPeer: no such peer.
        """
        self._loop()
        return await self._peer(handler_name).receive(msg_id, timeout)

    def arecv(self, handler_name: str, msg_id: Hashable | None = None) -> Any:
        """The oldest message of a peer with this id if it is there, else a future of it. Raises like `recv`."""
        loop = self._loop()
        peer = self._peer(handler_name)
        key, place = peer.begin_receive(msg_id)
        entry = peer.take(key)
        if entry is not None:
            if entry.error is not None:
                raise entry.error
            return entry.value
        arrival = peer.wait(key, place, loop)

        def ended(_: asyncio.Future[Any]) -> None:
            if arrival.entry is None:
                peer.end_wait(arrival, key, place, None)

        arrival.add_done_callback(ended)
        return arrival

    async def recv_all(
        self, handler_names: Iterable[str] | None = None, msg_id: Hashable | None = None, timeout: float | None = None
    ) -> list[tuple[str, Any]]:
        """One message of each peer, or of those named: a list of (name, object) in that order.

        All or nothing: what had come before an error can be received again. Raises like `recv`.
        """
        loop = self._loop()
        return await receive_all(self._peers_named(handler_names), msg_id, timeout, loop)

    def arecv_all(
        self, handler_names: Iterable[str] | None = None, msg_id: Hashable | None = None
    ) -> tuple[tuple[str, Any], ...]:
        """`arecv` of each peer, or of those named: a tuple of (name, object or future)."""
        return tuple((peer.name, self.arecv(peer.name, msg_id)) for peer in self._peers_named(handler_names))
