"""What a Pool needs of whatever carries its messages: links to peers by name, each a channel of whole messages.

Between the Pool (matching, ids, acknowledgements) and three ways to carry: `PairLinks` (pairs.py: a plain script, an
engine of its own), `SessionLinks` (session_links.py: over a session of a party) and `MemoryLinks` (memory_links.py:
several pools in one process). The one invariant: per life of a channel, what was sent arrives whole, in order, exactly
once, or both ends are told that the life is over.

Guarantees asked of an implementation: everything here is called in one thread; callbacks (`Receiver`) come from the
event loop given to `start`, never from inside a call of the pool, and before `start` never at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence
    from pathlib import Path

    from partywire.engine.frames import Buffer

    from ..errors import SessionError
    from .errors import PoolFailed


class Receiver(Protocol):
    """The pool's end of a channel: what the channel calls. No call of it raises."""

    def channel_opened(self) -> None:
        """A life of the channel has begun: sends go out, and messages may come from now on."""

    def message_arrived(self, data: bytes | bytearray) -> None:
        """One whole message; the buffer is the receiver's from now on.

        May call `pause_reading`; what the channel has already read it may still deliver, so each message it holds back
        is a message it counts against its own bounds.
        """

    def channel_ended(self, error: SessionError) -> None:
        """The life is over: PeerLost or PeerClosed. Comes after the last message that arrived, once a life."""

    def channel_refused(self, cause: str) -> None:
        """No life has begun, and none will by waiting: an attempt has ended because who answered at the peer's address
        and we do not accept each other's certificates. Comes again after each such attempt; attempts go on."""

    def links_failed(self, error: PoolFailed) -> None:
        """What carries the messages of this pool has ended: nothing is ever sent or comes again. Comes once, after the
        last message that arrived, and then nothing else does."""


class PeerChannel(Protocol):
    """Everything between us and one peer. Lives one after another: each begins with `channel_opened` at both ends and
    nothing of a former one is left in it; a new one begins only when `renew` was called at this end.
    """

    @property
    def name(self) -> str:
        """What we call the peer."""

    @property
    def is_open(self) -> bool:
        """Whether a life has begun and not ended."""

    @property
    def why_not_open(self) -> str:
        """Why no life has begun yet, in words for the user: the last reason why a dial failed, a refused certificate,
        or that the peer has not come."""

    def attach(self, receiver: Receiver) -> None:
        """Where arrivals go. Called once, at once after `add_peer`."""

    def check_size(self, nbytes: int) -> None:
        """Whether a message of this size can be sent at all.

        Raises:
            MessageTooLarge: it is above what both ends allow.
        """

    def try_send(self, parts: Sequence[Buffer], nbytes: int, is_raw: bool = False) -> bool:
        """Send one message, the parts one behind the other, if that needs no waiting.

        False: nothing was sent, there is no room for it now, an earlier `send` has not returned, or the message is so
        large that it has to be sent in pieces. True: the parts are copied, and go out at the end of this turn of the
        loop together with everything else that was sent in it.

        Args:
            nbytes: the sizes of all parts together.
            is_raw: the receiver wants `bytes`. Otherwise it gets a `bytearray` if that saves a copy, so that arrays in
                it are writable without one; small messages may be either.

        Raises:
            SessionError: the life is over, or none has begun.
            MessageTooLarge: nothing was sent, the channel goes on.
        """

    async def send(self, parts: Sequence[Buffer], nbytes: int, is_raw: bool = False) -> None:
        """The same, waiting for room. Returns when the caller may change its buffers.

        The pool makes one call at a time for a channel, and no `try_send` meanwhile. Cancelled before a byte went
        out, nothing is sent; cancelled half way, the life ends with PeerLost at both ends.
        """

    def pause_reading(self) -> None:
        """Deliver no more until `resume_reading`: the peer's sends fill the buffers between and then wait. The end of
        the life is still told, behind what arrived before it, once reading goes on; a lost one at once."""

    def resume_reading(self) -> None:
        """Deliver again."""

    def renew(self) -> None:
        """After the end of a life: let the next one begin, with the same peer or a restarted one, as soon as its end
        is there and has been renewed too. Nothing of the old life is delivered from now on."""

    def end(self, reason: str) -> None:
        """Give this life up at once: the peer gets PeerLost with the reason, we get `channel_ended` in a later turn.
        Nothing happens when none is open."""


class PoolLinks(Protocol):
    """All links of one pool."""

    def listen(self, addr: str, port: int) -> int:
        """Bind and listen, in or outside an event loop. Returns the port; 0 asks the kernel for one.

        Raises:
            AddressUnavailable: at once.
        """

    def add_peer(self, name: str, addr: str | None, port: int | None, cert: Path | None) -> PeerChannel:
        """A peer, before or after traffic with others, in or outside an event loop. Dialling starts as soon as it can.
        Never waits. A name is given once; where peers are known by name alone, `addr` and `port` are None.

        Raises:
            UnknownPeer, ValueError, CredentialError: a name, an address or a file that can never work.
        """

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on `loop`, which runs or is about to, drives the links. Called once, before the first await on
        anything of a channel; peers may be added before and after."""

    async def close(self, timeout: float) -> None:
        """Say goodbye on all links, after everything that was sent, and end what was started: processes, descriptors,
        callbacks. Peers get PeerClosed. After `timeout` seconds the rest is ended without a goodbye. May be called
        again; never raises on account of a peer."""

    def kill(self) -> None:
        """End everything now, without a goodbye, in or outside an event loop; peers get PeerLost. May be called
        again, and after `close`."""
