"""Dials and listens on multiaddresses: finds the transport that an address asks for.

Between whoever wants a stream and TCP, unix sockets, this process itself, a SOCKS5 proxy, Tor and WebSockets
(docs/transports.md). The one invariant: every call ends within its deadline, with a stream or listening that stands, or
with a typed error and nothing left open.

What goes where is decided by the address alone (`routes`) and the settings; nothing is tried directly that should have
gone through a proxy.
"""

from __future__ import annotations

import asyncio
import ipaddress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from ..addresses import format_address
from ..eyeballs import race
from ..listening import ListenError
from ..multiaddr import Multiaddr
from ..tcp import TcpTransport
from .acceptor import Acceptor
from .errors import AddressNotSupported, DialFailed, DialTimeout, SocksProtocolError, SocksUnreachable
from .listening import Listening
from .onion_service import OnionListening, OnionService
from .routes import Carrier, Route, Upgrade, peer_address, route_of, tcp_address
from .settings import ProxyScope, SocksProxy, TransportSettings
from .socks_client import connect_through, resolve_through
from .switchboard import Switchboard, process_switchboard

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from ..addresses import Address
    from ..eyeballs import Failed
    from ..resolver import Resolver
    from ..transport import Listener, Stream
    from .websocket import WebSocketCore

    OnAccept = Callable[[Stream, Multiaddr], object]

DIAL_TIMEOUT_S: Final = 20.0
"""For one dial, if its caller names no other. An onion service takes several seconds."""

_MEMORY_PEER: Final = Multiaddr([("memory", 0)])
"""Where one that came within the process is: nowhere that could be dialled."""


class Router:
    """For one event loop. Any number of dials and listenings at once."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        settings: TransportSettings | None = None,
        *,
        switchboard: Switchboard | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        """`switchboard` is what /memory means; by default that of this process."""
        self._loop = loop
        self._settings = settings or TransportSettings()
        self._socks = self._settings.socks
        self._client_context: ssl.SSLContext | None = None  # set at the first use, which may read many certificates
        self._switchboard = switchboard or process_switchboard()
        self._tcp = TcpTransport(loop, resolver)

    @property
    def proxy(self) -> SocksProxy | None:
        """The SOCKS5 proxy in use: that of the settings, or Tor's since an onion service brought it along."""
        return self._socks

    # Dialling.

    async def dial(self, address: Multiaddr, timeout_s: float = DIAL_TIMEOUT_S) -> Stream:
        """A stream to an address.

        Cancelled, it leaves nothing open. `peer_address` of a stream through a proxy is the proxy's.

        Raises:
            AddressNotSupported: no transport here understands the address, or the settings that it needs are missing.
            DialFailed: nobody could be reached; the subclasses say what was in the way, DialTimeout that it was time.
        """
        route = route_of(address)
        core = self._websocket(address, route, dials=True)
        doing = _Doing()
        try:
            async with asyncio.timeout(timeout_s):
                stream = await self._carry(address, route, timeout_s, doing)
                doing.what = "opening the WebSocket"
                return stream if core is None else await self._open_websocket(stream, core, address)
        except TimeoutError:
            raise DialTimeout(str(address), f"{doing.what} took longer than {timeout_s:.3g} s") from None

    async def _carry(self, address: Multiaddr, route: Route, timeout_s: float, doing: _Doing) -> Stream:
        match route.carrier:
            case Carrier.MEMORY:
                return self._switchboard.dial(self._loop, route.port)
            case Carrier.UNIX:
                return await self._connect(str(address), [(route.host, 0)], timeout_s)
            case Carrier.ONION:
                if self._socks is None:
                    raise AddressNotSupported(
                        str(address), "onion services are reached through Tor's SOCKS5 proxy; set it"
                    )
                return await self._through_proxy(address, route, self._socks, timeout_s, doing)
        proxy = self._socks
        if proxy is not None and proxy.is_direct is not None and proxy.is_direct(address):
            proxy = None
        if proxy is not None and proxy.scope is ProxyScope.ALL:
            return await self._through_proxy(address, route, proxy, timeout_s, doing)
        return await self._directly(address, route, proxy, timeout_s, doing)

    async def look_up(self, address: Multiaddr, timeout_s: float = DIAL_TIMEOUT_S) -> list[Address]:
        """The literal addresses of a TCP address that is connected to directly; Tor looks its name up if it is to.

        Raises:
            AddressNotSupported, DialFailed: as of `dial`.
        """
        route = route_of(address)
        if route.carrier is not Carrier.TCP:
            raise AddressNotSupported(str(address), "there is nothing to look up")
        doing = _Doing()
        try:
            async with asyncio.timeout(timeout_s):
                return await self._find(address, route, self._socks, timeout_s, doing)
        except TimeoutError:
            raise DialTimeout(str(address), f"{doing.what} took longer than {timeout_s:.3g} s") from None

    async def _find(
        self, address: Multiaddr, route: Route, proxy: SocksProxy | None, timeout_s: float, doing: _Doing
    ) -> list[Address]:
        """`proxy`, if there is one, looks the name up."""
        doing.what = f"looking up {route.host}"
        if proxy is not None and route.is_name:
            return [await self._resolve_through(address, route, proxy, timeout_s, doing)]
        return await self._resolve(address, route)

    async def _directly(
        self, address: Multiaddr, route: Route, proxy: SocksProxy | None, timeout_s: float, doing: _Doing
    ) -> Stream:
        found = await self._find(address, route, proxy, timeout_s, doing)
        doing.what = "connecting"
        return await self._connect(str(address), found, timeout_s)

    async def _resolve(self, address: Multiaddr, route: Route) -> list[Address]:
        try:
            found = await self._tcp.resolve(route.host, route.port)
        except OSError as error:
            raise DialFailed(str(address), f"{route.host} cannot be looked up: {_cause(error)}") from error
        of_family = [pair for pair in found if not route.family or _family(pair[0]) == route.family]
        if not of_family:
            raise DialFailed(str(address), f"{route.host} has no IPv{route.family} address")
        return of_family

    async def _connect(self, address: str, found: list[Address], timeout_s: float) -> Stream:
        failed: list[Failed] = []
        stream = await race(found, lambda pair: self._tcp.connect(pair, None, timeout_s), failed.append)
        if stream is not None:
            return stream
        if len(failed) == 1:
            cause = _cause(failed[0].error)
        else:
            cause = "; ".join(f"{format_address(each.address)}: {_cause(each.error)}" for each in failed)
        raise DialFailed(address, cause) from failed[-1].error

    # By way of a proxy.

    async def _dial_proxy(self, address: Multiaddr, proxy: SocksProxy, timeout_s: float, doing: _Doing) -> Stream:
        doing.what = f"reaching the SOCKS5 proxy at {proxy.address}"
        try:
            return await self._dial_plainly(proxy.address, timeout_s)
        except DialFailed as error:
            cause = f"it cannot be reached: {error.cause}"
            raise SocksUnreachable(str(address), str(proxy.address), cause) from error

    async def _dial_plainly(self, address: Multiaddr, timeout_s: float) -> Stream:
        """To a service of this host's: over TCP or a unix socket, by way of nothing."""
        route = route_of(address)
        found = [(route.host, 0)] if route.carrier is Carrier.UNIX else await self._resolve(address, route)
        return await self._connect(str(address), found, timeout_s)

    async def _through_proxy(
        self, address: Multiaddr, route: Route, proxy: SocksProxy, timeout_s: float, doing: _Doing
    ) -> Stream:
        stream = await self._dial_proxy(address, proxy, timeout_s, doing)
        doing.what = f"the answer of the SOCKS5 proxy at {proxy.address}"
        await connect_through(stream, route.host, route.port, proxy.credentials, str(proxy.address))
        return stream

    async def _resolve_through(
        self, address: Multiaddr, route: Route, proxy: SocksProxy, timeout_s: float, doing: _Doing
    ) -> Address:
        stream = await self._dial_proxy(address, proxy, timeout_s, doing)
        doing.what = f"looking up {route.host} through the SOCKS5 proxy at {proxy.address}"
        text = await resolve_through(stream, route.host, proxy.credentials, str(proxy.address))
        try:
            host = str(ipaddress.ip_address(text))
        except ValueError:
            raise SocksProtocolError(str(address), str(proxy.address), "it resolved a name to another name") from None
        if route.family and _family(host) != route.family:
            raise DialFailed(str(address), f"Tor found no IPv{route.family} address of {route.host}")
        return host, route.port

    # WebSockets.

    def _websocket(self, address: Multiaddr, route: Route, *, dials: bool) -> WebSocketCore | None:
        """The WebSocket that an address asks for; None if it asks for none."""
        if route.upgrade is Upgrade.NONE:
            return None
        if find_spec("wsproto") is None:
            raise AddressNotSupported(
                str(address), "WebSockets need a further package: pip install 'partywire[websocket]'"
            )
        from .tls_pipe import TlsPipe
        from .websocket import WebSocketCore

        host = route.host.partition("%")[0]
        try:
            tls = None
            if route.upgrade is Upgrade.WSS:
                tls = TlsPipe(self._context(dials=dials), host if dials else None)
            named = format_address((host, route.port))
            return WebSocketCore(dials=dials, host=named, path=self._settings.websocket.path, tls=tls)
        except ValueError as error:  # also of the encoding for names
            raise AddressNotSupported(str(address), f"a WebSocket cannot ask for this host: {error}") from error

    async def _open_websocket(self, stream: Stream, core: WebSocketCore, address: Multiaddr) -> Stream:
        from .websocket_stream import open_websocket

        return await open_websocket(stream, core, self._loop, str(address))

    async def _accept_websocket(self, stream: Stream, address: Multiaddr, route: Route) -> Stream:
        core = self._websocket(address, route, dials=False)
        assert core is not None, "the address asks for one"
        return await self._open_websocket(stream, core, address)

    def _context(self, *, dials: bool) -> ssl.SSLContext:
        settings = self._settings.websocket
        if not dials:
            assert settings.server_context is not None, "`listen` has looked"
            return settings.server_context
        if self._client_context is None:
            import ssl

            self._client_context = settings.client_context or ssl.create_default_context()
        return self._client_context

    # Listening.

    async def listen(self, address: Multiaddr, on_accept: OnAccept) -> Listening:
        """Listen at an address; port 0 stands for a free one. `on_accept` is called with each stream and where it comes
        from: of a unix socket the address that is listened on, of a memory stream /memory/0.

        A name is listened on at its first address only.

        Raises:
            AddressNotSupported: no transport here can listen there, or the settings that it needs are missing.
            ListenError: the address is in use, not ours, or not to be found.
        """
        route = route_of(address, listening=True)
        if route.carrier is Carrier.ONION:
            raise AddressNotSupported(str(address), "an onion service is listened on with listen_onion")
        if route.carrier is Carrier.MEMORY:
            port = self._switchboard.listen(self._loop, route.port, lambda stream: on_accept(stream, _MEMORY_PEER))
            return Listening(Multiaddr([("memory", port.port)]), port.close)
        if route.upgrade is Upgrade.WSS and self._settings.websocket.server_context is None:
            raise AddressNotSupported(
                str(address), "listening on /wss needs websocket.server_context, with a certificate"
            )
        if route.carrier is Carrier.UNIX:
            listener = self._bind(address, (route.host, 0), lambda stream: on_accept(stream, address))
            return Listening(address, listener.close)
        try:
            pair = (await self._resolve(address, route))[0]
        except DialFailed as error:
            raise ListenError(str(address), 0, error.cause) from error
        if route.upgrade is Upgrade.NONE:
            listener = self._bind(address, pair, lambda stream: _accepted(stream, stream, Upgrade.NONE, on_accept))
            return Listening(tcp_address(*listener.address), listener.close)
        self._websocket(address, route, dials=False)  # to find out now whether that can be done
        acceptor = Acceptor(
            self._loop,
            lambda stream: self._accept_websocket(stream, address, route),
            lambda stream, opened: _accepted(stream, opened, route.upgrade, on_accept),
        )
        listener = self._bind(address, pair, acceptor.accept)

        def close() -> None:
            listener.close()
            acceptor.close()

        return Listening(tcp_address(*listener.address, route.upgrade), close)

    def _bind(self, address: Multiaddr, pair: Address, on_accept: Callable[[Stream], object]) -> Listener:
        try:
            return self._tcp.listen(*pair, on_accept)
        except OSError as error:
            raise ListenError(str(address), error.errno or 0, _cause(error)) from error

    async def listen_onion(self, service: OnionService, on_accept: OnAccept) -> OnionListening:
        """Listen as an onion service of Tor's. Streams come from Tor, so from an address of loopback.

        Returns:
            The listening; `address` is /onion3/ID:PORT. It can be dialled once it is published.

        Raises:
            AddressNotSupported: the control port cannot be reached in that way.
            ListenError: the local port is in use.
            TorControlError: Tor cannot be reached, or does not take the service.
        """
        control = route_of(service.control)
        if control.carrier not in (Carrier.TCP, Carrier.UNIX) or control.upgrade is not Upgrade.NONE:
            raise AddressNotSupported(str(service.control), "a control port is reached over TCP or a unix socket")
        pair = ("127.0.0.1", service.local_port)
        listener = self._bind(
            tcp_address(*pair), pair, lambda stream: _accepted(stream, stream, Upgrade.NONE, on_accept)
        )
        listening = OnionListening(service, format_address(listener.address), self._dial_control, listener.close)
        await listening.start()
        try:
            if service.adopt_proxy and self._socks is None and (proxy := await listening.socks_proxy()) is not None:
                self._socks = SocksProxy(proxy)
        except BaseException:
            listening.close()
            raise
        return listening

    async def _dial_control(self, address: Multiaddr, timeout_s: float) -> Stream:
        try:
            async with asyncio.timeout(timeout_s):
                return await self._dial_plainly(address, timeout_s)
        except TimeoutError:
            raise DialTimeout(str(address), f"no answer within {timeout_s:.3g} s") from None


class _Doing:
    """What a dial waits for at the moment, for the message should it take too long."""

    def __init__(self) -> None:
        self.what = "connecting"


def _accepted(came: Stream, stream: Stream, upgrade: Upgrade, on_accept: OnAccept) -> None:
    try:
        source = peer_address(came.peer_address, upgrade)
    except ValueError:
        stream.close()  # it went away before we came to it
    else:
        on_accept(stream, source)


def _family(host: str) -> int:
    return 6 if ":" in host else 4


def _cause(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
