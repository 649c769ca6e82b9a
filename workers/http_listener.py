"""The listening socket of the HTTP front: opened by the service, before anything else is started, and handed on.

Between the configuration and the supervisor, who keeps the socket so that a front that died is replaced by one that
goes on with it. The one invariant: a unix socket's path is ours while we listen, and gone afterwards.
"""

from __future__ import annotations

import os
import socket
import stat
from typing import TYPE_CHECKING

from partywire.engine.addresses import split_family

from .errors import AddressUnavailable

if TYPE_CHECKING:
    from .http_config import HttpConfig

UNIX_MODE = 0o600

BACKLOG = 128
"""Connections that the kernel completes before the front accepts them."""


def open_http_listener(name: str, config: HttpConfig) -> socket.socket:
    """A listening socket as the configuration says.

    Raises:
        AddressUnavailable: the address is taken, or cannot be had.
    """
    try:
        path = config.unix_path
        return _listen_tcp(*config.address) if path is None else _listen_at(path)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise AddressUnavailable(
            name,
            f"{name} cannot serve HTTP at {config.listen} ({reason}); stop the program that uses the address, "
            "or choose another one in the configuration ([http] listen)",
        ) from error


def _listen_tcp(host: str, port: int) -> socket.socket:
    name, version = split_family(host)
    wanted = {0: socket.AF_UNSPEC, 4: socket.AF_INET, 6: socket.AF_INET6}[version]
    found = socket.getaddrinfo(name, port, wanted, socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Without it a restarted service could not listen for a minute, while its old connections are in TIME_WAIT.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _listen_at(path: str) -> socket.socket:
    """A socket at `path`, which only our user can open. One that nobody listens at any more is replaced."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if os.path.exists(path) and stat.S_ISSOCK(os.stat(path).st_mode):
            try:
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                    probe.settimeout(1.0)
                    probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)  # left by a service that was killed
        mask = os.umask(0o777 & ~UNIX_MODE)
        try:
            sock.bind(path)
        finally:
            os.umask(mask)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def close_http_listener(sock: socket.socket) -> None:
    """Stop listening, and take the path of a unix socket away."""
    path = sock.getsockname() if sock.family == socket.AF_UNIX else ""
    sock.close()
    if path:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass  # the administrator was quicker


def url_of(sock: socket.socket) -> str:
    """Where clients find us."""
    if sock.family == socket.AF_UNIX:
        return f"unix:{sock.getsockname()}"
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
