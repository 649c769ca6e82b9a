"""All parties on this host: `partywire run JOB --local 3`.

Between the command and the configurations that it would otherwise read from files. The ports come from the kernel, and
the listening sockets are open before any party starts, so neither a used port nor the order of starts can matter.
The parties are process families of their own, which share nothing but the loopback interface.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from partywire.engine import limits

from .config import PartyConfig
from .errors import ConfigError

if TYPE_CHECKING:
    from types import TracebackType

NAMES: Final = ("alice", "bob", "charlie", "dave", "erin", "frank", "grace", "heidi", "ivan")
LOOPBACK: Final = "127.0.0.1"
BACKLOG: Final = 128

SHARING_PARTIES_MIN: Final = 4
"""From so many parties on, one I/O process serves all links of a party of a local run: with one for each, nine parties
would start 72. Three, the most common number, run as they would on three hosts."""


@dataclass(slots=True)
class LocalParties:
    """Configurations of parties on this host, each with its open listening socket. Close it once they have started."""

    configs: list[PartyConfig]
    listeners: list[socket.socket]

    def __enter__(self) -> LocalParties:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for listener in self.listeners:
            listener.close()


def make_local_parties(count: int, workers: int = 1) -> LocalParties:
    """Configurations of `count` parties that can reach each other.

    Raises:
        ConfigError: the number of parties or workers is out of range.
        OSError: no port can be had on the loopback interface.
    """
    least, most = limits.PARTIES_MIN, min(limits.PARTIES_MAX, len(NAMES))
    if not least <= count <= most:
        raise ConfigError("", (("parties", f"{count} are asked for, between {least} and {most} are possible"),))
    listeners: list[socket.socket] = []
    try:
        for _ in range(count):
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            listeners.append(listener)
            listener.bind((LOOPBACK, 0))
            listener.listen(BACKLOG)
            listener.setblocking(False)
        addresses = {
            name: (LOOPBACK, int(listener.getsockname()[1]))
            for name, listener in zip(NAMES[:count], listeners, strict=True)
        }
        links = 1 if count < SHARING_PARTIES_MIN else count - 1
        configs = [
            PartyConfig(name=name, parties=addresses, workers=workers, links_per_io_process=links) for name in addresses
        ]
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return LocalParties(configs, listeners)
