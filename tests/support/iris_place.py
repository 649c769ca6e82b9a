"""Where parties of ours meet foreign peers that speak iris-mpc's protocol: addresses, configurations, and threads."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from partywire import PartyConfig
from tests.support.iris_peer import DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Place:
    """Addresses of parties that nobody else has, and each party's configuration."""

    def __init__(self, *names: str) -> None:
        self.listeners = {name: socket.create_server(("127.0.0.1", 0)) for name in names}
        self.addresses: dict[str, tuple[str, int]] = {
            name: listener.getsockname()[:2] for name, listener in self.listeners.items()
        }

    def config(self, name: str, *iris: str, connections: int = 1, **settings: Any) -> PartyConfig:
        """`version`, `tls` and `listen` are settings of the links; the others are the party's."""
        table = {"protocol": "iris", "connections": connections}
        table |= {key: settings.pop(key) for key in ("version", "tls", "listen") if key in settings}
        settings = {"connect_s": DEADLINE_S, "ring_mib": 1} | settings
        return PartyConfig(name=name, parties=self.addresses, compat=dict.fromkeys(iris, table), **settings)

    def close(self) -> None:
        for listener in self.listeners.values():
            listener.close()


@contextmanager
def playing(*parts: Callable[[], object]) -> Iterator[None]:
    """Foreign peers in threads of their own; what one of them raises is raised here at the end."""
    errors: list[BaseException] = []

    def run(part: Callable[[], object]) -> None:
        try:
            part()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(part,), daemon=True) for part in parts]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.join(DEADLINE_S)
    for error in errors:
        raise error
    assert not any(thread.is_alive() for thread in threads)
