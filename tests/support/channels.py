"""Two ends of a secure channel joined in memory: their handshake, and bytes carried from one to the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from partywire.engine.channel.channel import Buffer, Channel

ROOM = 100_000


def shake(initiator: Channel, responder: Channel, step: int = 1 << 20) -> None:
    """Pass handshake bytes, `step` at a time, until both ends have nothing more to say."""
    ends = [(initiator, responder), (responder, initiator)]
    while any([_pass(sender, receiver, step) for sender, receiver in ends]):
        pass


def _pass(sender: Channel, receiver: Channel, step: int) -> bool:
    data = sender.data_to_send()
    for start in range(0, len(data), step):
        part = data[start : start + step]
        if receiver.result is None:
            receiver.receive_data(part)
        else:
            receiver.feed(part)
    return bool(data)


def carry(sender: Channel, receiver: Channel, views: Sequence[Buffer]) -> bytes:
    """What comes out at the other end when all of `views` is sealed."""
    left = b"".join(views)
    opened = b""
    while left:
        sealed, size = sender.seal([left], 70_000)
        assert 0 < size <= 70_000
        left = left[size:]
        receiver.feed(sealed)
        opened += open_all(receiver)
    return opened


def open_all(channel: Channel) -> bytes:
    """Everything that can be opened."""
    return drained(channel)[0]


def drained(channel: Channel) -> tuple[bytes, bool]:
    """Everything that can be opened, and whether the end came behind it."""
    opened = b""
    room = memoryview(bytearray(ROOM))
    while count := channel.open_into(room):
        opened += room[:count]
    return opened, count == 0
