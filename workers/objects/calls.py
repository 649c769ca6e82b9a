"""`send_object` and `recv_object`, the calls of a session for Python objects.

Between the user and `pack_object`, `unpack_object` and the session's own ways of sending and waiting. They cost nothing
to those who do not use them: what packs objects is imported by the first call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from partywire.engine.frames import Descriptor

from ..errors import UnexpectedMessage, UnsupportedByPeer
from ..mailbox import MESSAGE_OVERHEAD, frame_of
from ..waiting import run_blocking
from .errors import ObjectDecodeError
from .limits import DEFAULT_LIMITS
from .registry import DEFAULT

if TYPE_CHECKING:
    from partywire.engine.frames import Buffer

    from ..errors import SessionDesync
    from ..mailbox import Mailbox
    from ..session import Session
    from ..value_codec import Encoded
    from ..worker import Worker
    from .limits import ObjectLimits
    from .registry import ObjectRegistry

_OBJECT: Final = Descriptor.OBJECT.value
_JOB_END: Final = Descriptor.JOB_END.value

HEAD_SIZE_MAX: Final = 4096
"""The head of an object of two parts may be so large to be written as the head of a value is: it fits into the first
frame in every ring."""


class ObjectCalls:
    """For coroutines; a part of `Session`."""

    async def send_object(
        self,
        peer: str | int,
        value: Any,
        *,
        timeout: float | None = None,
        registry: ObjectRegistry | None = None,
        limits: ObjectLimits | None = None,
        **context: Any,
    ) -> None:
        """Send a Python object to a peer, who receives an equal one of the same type with `recv_object`.

        docs/objects.md says what can be sent. Nothing is pickled. Large arrays and bytes are copied once, into the
        ring. The `serialize` of registered classes gets `context` as keyword arguments. In all else like `send`.

        Raises:
            ObjectEncodeError: it, or something in it, cannot be sent; nothing was sent, the session goes on.
            UnsupportedByPeer: the peer's link speaks the iris protocol; nothing was sent.
            SessionTimeout, PeerLost, PeerClosed, PeerAborted, MessageTooLarge: as `send`.
        """
        from .packing import pack_object

        mailbox = self._mailbox_of(peer)
        self._raise_failure(mailbox)
        lane = mailbox.lane
        if not lane.carries_objects:
            raise UnsupportedByPeer(mailbox.peer, "sending a Python object", "send bytes, or ring elements and vectors")
        packed = pack_object(value, *_settings(registry, limits), **context)
        size, parts = packed.nbytes, packed.parts
        if size <= lane.small_size_max or len(parts) == 1:
            encoded: Any = (_OBJECT, size, b"", packed.join())
        elif len(parts) == 2 and len(parts[0]) <= HEAD_SIZE_MAX:
            encoded = (_OBJECT, size, parts[0], parts[1])
        else:
            encoded = (_OBJECT, size, b"", packed)
        await self._send_encoded(mailbox, encoded, timeout)

    async def recv_object(
        self,
        peer: str | int,
        *,
        timeout: float | None = None,
        registry: ObjectRegistry | None = None,
        limits: ObjectLimits | None = None,
        **context: Any,
    ) -> Any:
        """Receive the next message of a peer, which it sent with `send_object`.

        The `deserialize` of registered classes gets `context` as keyword arguments. Large arrays lie in the memory that
        the message came in. Cancelling the call loses no message.

        Raises:
            ObjectDecodeError: the message is no object, passes a limit, or needs a class that is not registered here.
                It is gone, and the session goes on with the next one.
            UnexpectedMessage: the message was sent with `send`; it stays first in line.
            SessionTimeout, SessionDesync, PeerLost, PeerClosed, PeerAborted, InboxOverflow: as `recv`.
        """
        from .packing import unpack_object

        mailbox = self._mailbox_of(peer)
        if not mailbox.queue:
            await self._wait_for_message(mailbox, None, timeout)
        body = self._take_object(mailbox)
        try:
            return unpack_object(body, *_settings(registry, limits), **context)
        except ObjectDecodeError as error:
            error.peer = mailbox.peer
            raise

    def _take_object(self, mailbox: Mailbox) -> Buffer:
        """Remove the first in line, which is an object, and return its bytes."""
        if mailbox.behind:
            raise self._leftover(mailbox)
        _, descriptor, _, body = frame_of(mailbox.queue[0], self.id)
        if descriptor == _JOB_END:
            raise self._job_over(mailbox)
        if descriptor != _OBJECT:
            raise UnexpectedMessage(self.id, mailbox.peer, "is no object; receive it with recv")
        mailbox.queue.popleft()
        mailbox.worker.inbox_size -= len(body) + MESSAGE_OVERHEAD
        return body

    if TYPE_CHECKING:
        id: int

        def _mailbox_of(self, peer: str | int) -> Mailbox: ...
        def _raise_failure(self, mailbox: Mailbox) -> None: ...
        def _leftover(self, mailbox: Mailbox) -> SessionDesync: ...
        def _job_over(self, mailbox: Mailbox) -> SessionDesync: ...
        async def _send_encoded(self, mailbox: Mailbox, encoded: Encoded, timeout: float | None) -> None: ...
        async def _wait_for_message(self, mailbox: Mailbox, out: Any, timeout: float | None) -> None: ...


class BlockingObjectCalls:
    """For plain code; a part of `BlockingSession`."""

    __slots__ = ()

    def send_object(
        self,
        peer: str | int,
        value: Any,
        *,
        timeout: float | None = None,
        registry: ObjectRegistry | None = None,
        limits: ObjectLimits | None = None,
        **context: Any,
    ) -> None:
        """Like Session.send_object, and published when it returns."""
        call = self._session.send_object(peer, value, timeout=timeout, registry=registry, limits=limits, **context)
        run_blocking(self._worker, call)

    def recv_object(
        self,
        peer: str | int,
        *,
        timeout: float | None = None,
        registry: ObjectRegistry | None = None,
        limits: ObjectLimits | None = None,
        **context: Any,
    ) -> Any:
        """Like Session.recv_object."""
        call = self._session.recv_object(peer, timeout=timeout, registry=registry, limits=limits, **context)
        return run_blocking(self._worker, call)

    if TYPE_CHECKING:
        _session: Session
        _worker: Worker


def _settings(registry: ObjectRegistry | None, limits: ObjectLimits | None) -> tuple[ObjectRegistry, ObjectLimits]:
    """Those of this process where none are given."""
    return registry or DEFAULT, limits or DEFAULT_LIMITS
