"""A substream as a plain file: for synchronous workers, and whatever in Python takes a file.

Between plain code and the two halves of a substream. The one invariant: nothing happens here that does not happen
there; each call runs a coroutine of theirs to its end, serving the worker meanwhile.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, TypeVar

from partywire.engine.errors import PartyWireError

from ..waiting import run_blocking

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from partywire.engine.substreams.streams import SubstreamReader, SubstreamWriter

    from ..worker import Worker

T = TypeVar("T")


class SubstreamFile(io.RawIOBase):
    """Unbuffered in our direction: when `write` returns, the data is on its way. Lines are cheap without a
    BufferedReader, which may be put around it all the same. Leaving `with`, or `close`, ends our side behind everything
    that was written. Of the thread that has the party."""

    def __init__(self, worker: Worker, reader: SubstreamReader, writer: SubstreamWriter, protocol: str) -> None:
        super().__init__()
        self._worker = worker
        self._reader = reader
        self._writer = writer
        self._protocol = protocol
        self._is_ended = False  # nothing more is to be flushed

    def __repr__(self) -> str:
        return f"<SubstreamFile {self._protocol} with {self.peer}{', closed' if self.closed else ''}>"

    @property
    def peer(self) -> str:
        """The party or peer at the other end."""
        return self._writer.peer

    @property
    def timeout(self) -> float | None:
        """Seconds that one wait of a call may take; None: for ever. SubstreamTimeout loses nothing."""
        return self._reader.timeout_s

    @timeout.setter
    def timeout(self, seconds: float | None) -> None:
        self._reader.timeout_s = self._writer.timeout_s = seconds

    def readable(self) -> bool:
        """True."""
        return True

    def writable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Something as soon as there is any. 0: the peer has ended its side.

        Raises:
            SubstreamReset, SubstreamSessionOver: the substream, or the link, is gone.
            SubstreamTimeout: nothing came in time.
        """
        view = memoryview(buffer).cast("B")
        data = self._run(self._reader.read(len(view)))
        view[: len(data)] = data
        return len(data)

    def peek(self, _: int = 0, /) -> bytes:
        """What the next read gives, without taking it. Lines are found by it."""
        return self._run(self._reader.peek())

    def write(self, data: Any, /) -> int:
        """Send all of `data`; waits while the peer takes nothing. Returns its size in bytes.

        Raises:
            SubstreamReset, SubstreamSessionOver, SubstreamTimeout: as `readinto`. Behind a time-out `flush` goes on.
            SubstreamClosed: behind `write_eof`.
        """
        self._check()
        view = memoryview(data).cast("B")
        self._writer.write(view)
        self.flush()
        return len(view)

    def flush(self) -> None:
        """Wait until everything that was written is on its way."""
        if not self._is_ended:
            self._run(self._writer.drain())

    def write_eof(self) -> None:
        """End our side; reading goes on."""
        self.flush()
        self._writer.write_eof()
        self._worker.flush()

    def reset(self, cause: str = "") -> None:
        """Give the substream up in both directions, and close the file."""
        self._writer.reset(cause)
        self._worker.flush()
        self._end()

    def close(self) -> None:
        """End our side, and read no more. May be called again. When it raises, the substream was reset.

        Raises:
            SubstreamTimeout: what was written is not taken.
            SubstreamReset, SubstreamSessionOver: nobody knows how much of what was written has arrived.
        """
        if self._is_ended:
            return
        try:
            self.flush()
            if (failure := self._writer.failure) is not None and not self._reader.at_eof():
                raise failure
            self._writer.close()
            self._worker.flush()
        except PartyWireError as error:
            self._writer.reset(str(error))
            raise
        finally:
            self._end()

    def __del__(self) -> None:
        """What nobody holds any more is given up: nobody said that it had come to its end."""
        if not self._is_ended:
            self._writer.reset("its file was dropped")
            self._end()

    def _end(self) -> None:
        self._is_ended = True
        super().close()

    def _check(self) -> None:
        if self.closed:
            raise ValueError("the file is closed")

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if self.closed:
            coroutine.close()
        self._check()
        return run_blocking(self._worker, coroutine)
