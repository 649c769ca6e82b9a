"""One message on its way to a peer: what `send` waits for and `asend` returns."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from ..objects.packing import pack_object
from .wire import BYTES, MESSAGE, RAW, RAW_SIZE_MIN

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Hashable, Sequence

    from partywire.engine.frames import Buffer

    from ..objects.registry import ObjectRegistry

AUTOMATIC: Final = object()
"""In place of an id: the one that follows from the message's place."""


class Sending(asyncio.Future[None]):
    """One message on its way. Done when the peer has it, or with an error.

    `asend` returns it: to be awaited or not. An error that nobody looked at is raised by the next call towards that
    peer, or by `shutdown`. Cancelling it before it goes out takes the message back.
    """

    is_seen = False
    has_begun = False
    msg_id: Hashable = None
    parts: Sequence[Buffer] = ()
    nbytes = 0
    kind = MESSAGE
    raw: bytes | None = None
    """The value, if the message is of kind RAW."""
    is_lent = False
    """Whether the channel reads the caller's buffers right now."""
    on_returned: Callable[[], object] | None = None
    """Called when it no longer does."""

    def __await__(self) -> Generator[Any, None, None]:
        self.is_seen = True
        return super().__await__()

    def result(self) -> None:
        """As of any future; who calls it has seen the error."""
        self.is_seen = True
        return super().result()

    def exception(self) -> BaseException | None:
        """As of any future; who calls it has seen the error."""
        self.is_seen = True
        return super().exception()

    def keep_copies(self) -> None:
        """The caller may change its buffers from now on, and the message has not gone out yet."""
        self.parts = tuple(part if isinstance(part, bytes) else bytes(part) for part in self.parts)


def new_sending(loop: asyncio.AbstractEventLoop, prefix: str, msg_id: Hashable | None) -> Sending:
    """A message that is to be sent with this id, None for the one that follows from its place."""
    sending = Sending(loop=loop)
    sending.msg_id = AUTOMATIC if msg_id is None else f"{prefix}{msg_id}" if prefix else msg_id
    return sending


def pack(sending: Sending, message: Any, registry: ObjectRegistry, destination: Any) -> None:
    """Make the parts of the message. `destination` is what `serialize` of classes is told.

    Raises:
        ObjectEncodeError: it cannot be sent.
    """
    if type(message) is bytes:
        sending.nbytes = len(message)
        if sending.nbytes >= RAW_SIZE_MIN:
            sending.kind = RAW
            sending.raw = message
        else:
            sending.kind = BYTES
            sending.parts = (message,)
        return
    packed = pack_object(message, registry, destination=destination)
    sending.parts = packed.parts
    sending.nbytes = packed.nbytes
