"""A process's answer to PublishStat: its figures of this moment, in its stat page.

Between the supervisor, which asks while a reader is attached, and whoever knows the figures. The one invariant: nothing
is counted for this; what exists anyway is looked at when the supervisor asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .commands import PublishStat
from .control_socket import close_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from .commands import Message
    from .stat_page import StatPageWriter, Value


class StatPublisher:
    """One process's page, from the supervisor's first PublishStat on."""

    def __init__(self, values: Callable[[], list[Value]]) -> None:
        """`values` gives the figures of this moment; it is called once for each PublishStat."""
        self._values = values
        self._page: StatPageWriter | None = None

    def take(self, message: Message, fds: list[int]) -> None:
        """Obey a PublishStat; another command is nothing to us. Owns the descriptors."""
        if not isinstance(message, PublishStat):
            close_all(fds)
            return
        if fds:
            from .stat_page import StatPageError, StatPageWriter  # only here: most parties are never watched

            page_fd = fds.pop(0)
            close_all(fds)
            self.close()
            try:
                self._page = StatPageWriter(page_fd)
            except StatPageError:
                return  # no memory to map it: the party goes on without
        if self._page is not None:
            self._page.publish(self._values())

    def close(self) -> None:
        """Give the page back; what was published stays readable. May be called again."""
        page, self._page = self._page, None
        if page is not None:
            page.close()
