"""All parties on this host: `partywire run JOB --local 3`.

Between the command and the configurations that it would otherwise read from files. The ports come from the kernel, and
the listening sockets are open before any party starts, so neither a used port nor the order of starts can matter.
The parties are process families of their own, which share nothing but the loopback interface.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from partywire.engine import limits

from .config import PartyConfig
from .errors import ConfigError

if TYPE_CHECKING:
    from types import TracebackType

    from .security import SecurityConfig

NAMES: Final = ("alice", "bob", "charlie", "dave", "erin", "frank", "grace", "heidi", "ivan")
LOOPBACK: Final = "127.0.0.1"
BACKLOG: Final = 128

KEYS_DAYS: Final = 30
"""Validity of certificates that end with a local run, which is far shorter."""

SHARING_PARTIES_MIN: Final = 4
"""From so many parties on, one I/O process serves all links of a party of a local run: with one for each, nine parties
would start 72. Three, the most common number, run as they would on three hosts."""


@dataclass(slots=True)
class LocalParties:
    """Configurations of parties on this host, each with its open listening socket. Close it once they have ended: the
    keys that secure their links, if any, end with it.
    """

    configs: list[PartyConfig]
    listeners: list[socket.socket]
    keys: TemporaryDirectory[str] | None = None

    def __enter__(self) -> LocalParties:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for listener in self.listeners:
            listener.close()
        if self.keys is not None:
            self.keys.cleanup()


def make_local_parties(count: int, workers: int = 1, security: str = "none") -> LocalParties:
    """Configurations of `count` parties that can reach each other, by links of the mode `security`.

    Raises:
        ConfigError: the number of parties or workers is out of range.
        OSError: no port can be had on the loopback interface.
    """
    least, most = limits.PARTIES_MIN, min(limits.PARTIES_MAX, len(NAMES))
    if not least <= count <= most:
        raise ConfigError("", (("parties", f"{count} are asked for, between {least} and {most} are possible"),))
    listeners: list[socket.socket] = []
    keys: TemporaryDirectory[str] | None = None
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
        tables: dict[str, SecurityConfig] = {}
        if security != "none":
            keys = TemporaryDirectory(prefix="partywire-keys-")  # of mode 0700
            tables = _write_keys(Path(keys.name), list(addresses), security)
        configs = [
            PartyConfig(
                name=name,
                parties=addresses,
                workers=workers,
                links_per_io_process=links,
                security=tables.get(name),
            )
            for name in addresses
        ]
    except BaseException:
        for listener in listeners:
            listener.close()
        if keys is not None:
            keys.cleanup()
        raise
    return LocalParties(configs, listeners, keys)


def _write_keys(folder: Path, names: list[str], security: str) -> dict[str, SecurityConfig]:
    """Make new keys for all parties in a folder, and for each party the table that names them."""
    from .keygen import new_keys, write_files

    files, tables = new_keys(names, security, KEYS_DAYS, prefix=f"{folder}/")
    write_files(folder, files)
    return tables
