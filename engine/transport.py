"""What every way of carrying bytes between two parties must offer, so that everything above is written once.

Between the owner of a stream (dialler, I/O process) and an implementation: `tcp` for parties, `memory` for tests. One
conformance suite, tests/contracts, runs on all of them. The one invariant: a stream delivers the bytes of its other end
in order, each once, and then either end of file or an error, which it repeats from then on.

Nothing here waits but `connect` and `resolve`. Readiness is level-triggered: a registered callback is called again
while the condition holds. A callback may change any registration and close its stream.
A broken stream shows as OSError; whoever owns the stream says which peer that was.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .addresses import Address

Buffer: TypeAlias = bytes | bytearray | memoryview

VIEWS_MAX: Final = 512
"""Views of one `try_send`. Linux refuses above 1,024 (IOV_MAX); beyond some tens the gain is nothing."""


class Stream(ABC):
    """One end of a connected byte stream. Owned by one event loop; not for several threads."""

    @property
    @abstractmethod
    def peer_address(self) -> str:
        """Where the other end is, for messages."""

    # Bytes.

    @abstractmethod
    def try_send(self, views: Sequence[Buffer]) -> int | None:
        """Take as many bytes from the front of `views` as there is room for now, at most VIEWS_MAX views.

        When this returns, the caller may change what was taken. No view is empty.

        Returns:
            How many bytes were taken, at least 1; None if there is no room.

        Raises:
            OSError: the stream is broken, or its sending half was shut down.
        """

    @abstractmethod
    def try_recv_into(self, view: memoryview) -> int | None:
        """Receive into `view`, which is not empty.

        Returns:
            How many bytes came; 0 at end of file, again and again; None if there are none now.

        Raises:
            OSError: the stream is broken.
        """

    @abstractmethod
    def shutdown_write(self) -> None:
        """Send nothing more: the other end reads end of file behind what was sent. May be called again."""

    # Readiness.

    @abstractmethod
    def on_readable(self, callback: Callable[[], object] | None) -> None:
        """Call back while `try_recv_into` would not return None; None ends it."""

    @abstractmethod
    def on_writable(self, callback: Callable[[], object] | None) -> None:
        """Call back while `try_send` would not return None; None ends it."""

    # Ending.

    @abstractmethod
    def close(self) -> None:
        """Give the stream back; what was sent is still delivered unless received bytes were left unread.

        Ends both registrations. May be called again; anything else then raises OSError.
        """

    @property
    def is_lingering(self) -> bool:
        """Whether the stream is closed, and something that was sent is still with this process: it must live on for a
        moment, or the other end takes this for a cut. Bounded by the implementation."""
        return False

    @abstractmethod
    def abort(self) -> None:
        """Like `close`, but the other end sees a broken stream and not end of file (where there is such a thing: a unix
        socket ends for it)."""


class Listener(ABC):
    """Accepts streams. Hands each to the callback that `listen` got, in the order they came."""

    @property
    @abstractmethod
    def address(self) -> Address:
        """Where it listens; the port is the real one even if 0 was asked for."""

    @abstractmethod
    def close(self) -> None:
        """Accept no more. Streams that were accepted live on. May be called again."""


class Transport(ABC):
    """A way of reaching other parties."""

    @abstractmethod
    async def resolve(self, host: str, port: int) -> list[Address]:
        """Addresses to try, in order, at least one.

        Raises:
            OSError: the name cannot be looked up.
        """

    @abstractmethod
    async def connect(self, address: Address, client_host: str | None, timeout_s: float) -> Stream:
        """A stream to a resolved address, dialled from `client_host` if given; a unix socket is dialled from nowhere.

        Raises:
            BindError: `client_host` cannot be dialled from.
            OSError: refused, unreachable, or not answered in time (TimeoutError).
        """

    @abstractmethod
    def listen(self, host: str, port: int, on_accept: Callable[[Stream], object]) -> Listener:
        """Accept streams at one address; port 0 lets the implementation choose.

        Raises:
            OSError: the address is in use, or is not ours.
        """


class BindError(OSError):
    """Raised when the local address to dial from does not exist or cannot be bound."""


class ProxyError(OSError):
    """Raised when an address could not be reached by way of a proxy: there is none, it fails, or it says why not. Then
    `errno` is what the same would be without one; it is EPROTO where the proxy itself is at fault."""
