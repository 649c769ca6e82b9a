"""The transport of links by way of a SOCKS5 proxy: the contract of `transport`, kept by a router.

Between the dialler of a link, which knows pairs of host and port, and the router, which knows what goes through the
proxy. The one invariant: nothing that the scope of the proxy covers is dialled, or looked up, in another way; what it
does not cover is dialled as without one, from `client_host` if that is set.

Behind the proxy's answer a stream is a plain socket, and everything above takes it for one: the compiled pump too.
"""

from __future__ import annotations

import errno
import ipaddress
from typing import TYPE_CHECKING, Final

from ..addresses import format_address, is_onion, is_unix, split_family
from ..channel.errors import CredentialError
from ..link_addresses import multiaddr_of
from ..multiaddr import Multiaddr
from ..tcp import TcpStream, TcpTransport
from ..transport import ProxyError, Transport
from .errors import (
    AddressNotSupported,
    DialFailed,
    DialTimeout,
    SocksConnectionRefused,
    SocksError,
    SocksHostUnreachable,
    SocksNetworkUnreachable,
    SocksTtlExpired,
)
from .router import Router
from .settings import ProxyScope, SocksProxy, TransportSettings
from .socks import SocksCredentials

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from ..addresses import Address
    from ..resolver import Resolver
    from ..socks_options import SocksOptions
    from ..transport import Listener, Stream

PROXY_TIMEOUT_S: Final = 60.0
"""For one connection by way of the proxy: Tor may need tens of seconds for a service that it has not spoken to yet."""

LOOK_UP_TIMEOUT_S: Final = 20.0
"""For one name that Tor looks up."""

_NUMBERS: Final = (
    (SocksConnectionRefused, errno.ECONNREFUSED),
    (SocksHostUnreachable, errno.EHOSTUNREACH),
    (SocksNetworkUnreachable, errno.ENETUNREACH),
    (SocksTtlExpired, errno.ETIMEDOUT),
    (DialTimeout, errno.ETIMEDOUT),
)


def proxy_of(options: SocksOptions) -> SocksProxy:
    """The proxy that is to be used; reads the file of the password.

    Raises:
        CredentialError: the file cannot be read, or others may read it, or what is in it cannot be sent.
        AddressNotSupported: a proxy cannot be reached at that address.
    """
    credentials = None
    if options.password_path:
        from ..channel.credentials import read_file  # only here: it imports much

        path = options.password_path
        try:
            password = read_file(path, private=True).decode().removesuffix("\n")
            credentials = SocksCredentials(options.username, password)
        except UnicodeDecodeError:
            raise CredentialError(path, "does not hold a password in UTF-8") from None
        except ValueError as error:
            raise CredentialError(path, str(error)) from None
    return SocksProxy(Multiaddr.parse(options.address), credentials, ProxyScope(options.scope))


class ProxiedTransport(Transport):
    """Dials on one event loop. A resolved address that the proxy is to find is the pair as it was given."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, options: SocksOptions, resolver: Resolver | None = None
    ) -> None:
        self._loop = loop
        self._options = options
        self._takes_all = ProxyScope(options.scope) is ProxyScope.ALL
        self._resolver = resolver
        self._tcp = TcpTransport(loop, resolver)

    def _is_far(self, host: str) -> bool:
        """Whether the proxy connects to it."""
        return is_onion(host) or (self._takes_all and not is_unix(host))

    def _router(self) -> Router:
        """Made for each use, since the file of the password may have been replaced."""
        try:
            proxy = proxy_of(self._options)
        except (CredentialError, AddressNotSupported) as error:
            raise ProxyError(errno.EPROTO, f"the SOCKS5 proxy cannot be used: {error}") from error
        return Router(self._loop, TransportSettings(proxy), resolver=self._resolver)

    async def resolve(self, host: str, port: int) -> list[Address]:
        if self._is_far(host):
            return [(host, port)]
        if _is_ours(host):
            return await self._tcp.resolve(host, port)
        try:
            return await self._router().look_up(multiaddr_of((host, port)), LOOK_UP_TIMEOUT_S)
        except DialFailed as error:
            raise _as_os_error(error) from error
        except (AddressNotSupported, ValueError) as error:
            raise OSError(errno.EINVAL, str(error)) from error

    async def connect(self, address: Address, client_host: str | None, timeout_s: float) -> Stream:
        """As of the contract; by way of the proxy it takes up to PROXY_TIMEOUT_S, and `client_host` is not used.

        Raises:
            ProxyError: the proxy is not there or not in order, or it says that the address cannot be reached.
        """
        if not self._is_far(address[0]):
            return await self._tcp.connect(address, client_host, timeout_s)
        try:
            stream = await self._router().dial(multiaddr_of(address), PROXY_TIMEOUT_S)
        except DialFailed as error:
            raise _as_os_error(error) from error
        except (AddressNotSupported, ValueError) as error:
            raise ProxyError(errno.EPROTO, str(error)) from error
        assert isinstance(stream, TcpStream)
        stream.lead_to(format_address(address))
        return stream

    def listen(self, host: str, port: int, on_accept: Callable[[Stream], object]) -> Listener:
        return self._tcp.listen(host, port, on_accept)


def _is_ours(host: str) -> bool:
    """Whether the proxy has nothing to look up: a literal, a unix socket, or this host's own name."""
    name = split_family(host)[0]
    if is_unix(host) or name == "localhost":
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _as_os_error(error: DialFailed) -> OSError:
    number = next((number for kind, number in _NUMBERS if isinstance(error, kind)), errno.EPROTO)
    if isinstance(error, SocksError):
        return ProxyError(number, f"the SOCKS5 proxy at {error.proxy}: {error.cause}")
    return ProxyError(number, error.cause) if isinstance(error, DialTimeout) else OSError(errno.ENODATA, error.cause)
