"""A body that arrives in pieces, put together in the memory that it is handed over in.

Between whoever takes pieces of a stream and the message that they make. One copy with the compiled core, for bytes too:
the memory of a `bytes` object that nobody has seen yet is written piece by piece. Plain Python zeroes a bytearray first
and copies it once more when bytes are wanted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from partywire.shm.compiled import core

if TYPE_CHECKING:
    from .frames import Buffer


class PlainFiller:
    """Driven by `put`, as often as there are pieces, and one `take` at the end."""

    def __init__(self, size: int, is_writable: bool) -> None:
        """`is_writable`: a bytearray is wanted, else bytes. Raises MemoryError when there is none."""
        if size < 0:
            raise ValueError("a filler is made once, for a size that is not negative")
        self._body = bytearray(size)  # calloc'ed: memory is only touched when data arrives
        self._size = size
        self._is_writable = is_writable
        self._is_taken = False
        self.filled = 0

    def put(self, piece: Buffer) -> None:
        """Append a piece.

        Raises:
            ValueError: it is longer than what is missing; nothing was put.
        """
        end = self.filled + len(piece)
        if self._is_taken or end > self._size:
            raise ValueError("a piece is longer than what is missing")
        self._body[self.filled : end] = piece
        self.filled = end

    def take(self) -> bytes | bytearray:
        """Hand the whole body over.

        Raises:
            ValueError: bytes are missing, or it was taken before.
        """
        if self._is_taken or self.filled != self._size:
            raise ValueError("a body is taken once, when it is whole")
        self._is_taken = True
        body = self._body
        return body if self._is_writable else bytes(body)


if TYPE_CHECKING:

    class Filler(PlainFiller):
        """What both have, and what only that of the compiled core has."""

        def receive(self, fd: int, size: int) -> tuple[int, int]:
            """Append up to `size` bytes from a non-blocking socket. Returns the bytes and the outcome, as
            `receive_into_ring` does.

            Raises:
                ValueError: `size` is more than what is missing, or nothing.
            """
else:
    Filler = PlainFiller if core is None else core.Filler
