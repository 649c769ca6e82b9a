"""A multiaddress that is listened on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..multiaddr import Multiaddr


class Listening:
    """What `Router.listen` returns: where it really listens, and the way to end it."""

    def __init__(self, address: Multiaddr, on_close: Callable[[], object]) -> None:
        self.address = address
        """With the real port, even if 0 was asked for."""
        self._on_close = on_close
        self._is_open = True

    def close(self) -> None:
        """Accept no more. Streams that were accepted live on. May be called again."""
        if self._is_open:
            self._is_open = False
            self._on_close()
