"""Who a pool knows, and its life: peers that are added, a loop that it belongs to, figures, and its end.

Between a user's asyncio program and the links to its peers. The one invariant: whatever way a pool ends, its links and
what they started are ended, and nobody waits any more.

A pool begins to run at the first call inside an event loop of any pool that was made in the same thread, and belongs to
that loop: one that is only sent to has to take what comes, and say so. Where its links come from: an engine of its own
(the default; it binds at once, in or outside a loop), a session of a party (`over`), or the memory of this process
(`MemoryNetwork`).
"""

from __future__ import annotations

import asyncio
import logging
import warnings
from pathlib import Path
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from partywire.engine.addresses import format_address

from ..errors import UnknownPeer
from ..objects.registry import DEFAULT
from .client import PoolClient
from .deadlines import LATE_S, late_s
from .errors import PoolClosed
from .peer import Peer, Shared
from .place import place_of_pool
from .stat import PoolStat

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType
    from typing import Self

    from ..objects.registry import ObjectRegistry
    from ..party import Party
    from ..session import Session
    from .links import PoolLinks

log = logging.getLogger("partywire.pool")

CLOSE_TIMEOUT_S: Final = 5.0
"""How long `shutdown` waits for what was sent to be taken, and then for the links to say goodbye."""

INBOX_MIB: Final = 256
OUTBOX_MIB: Final = 1024

PLAIN_PORT: Final = 80
TLS_PORT: Final = 443


_unstarted: Final[dict[int, WeakSet[PeerGroup]]] = {}
"""Thread -> its pools that no loop drives yet."""


class PeerGroup:
    """What `Pool` is without its sends and receives."""

    def __init__(
        self,
        key: str | Path | None = None,
        cert: str | Path | None = None,
        ca_cert: str | Path | None = None,
        timeout: Any = LATE_S,
        max_retries: int = -1,
        *,
        inbox_mib: int = INBOX_MIB,
        outbox_mib: int = OUTBOX_MIB,
        close_timeout: float = CLOSE_TIMEOUT_S,
        registry: ObjectRegistry = DEFAULT,
        links: PoolLinks | None = None,
    ) -> None:
        """Starts nothing yet.

        Args:
            key: path of our private key (PEM). With `cert` and `ca_cert`: all links are TLS, each end proves who it is.
            cert: path of our certificate, with the chain to the authority if there is one.
            ca_cert: path of the certificates of the authorities that we trust.
            timeout: seconds that a call waits for a peer that was never met; None for no limit. An aiohttp
                ClientTimeout may be given: its `total` counts.
            max_retries: -1, or the greatest number of seconds to wait for such a peer (it is tried once a second).
            inbox_mib: what all peers together may have sent that nobody has received; then no more is read.
            outbox_mib: what may wait to be sent to one peer before `asend` refuses more.
            close_timeout: seconds for `shutdown` to get what was sent to the peers, and again for the goodbyes.
            registry: the classes that can be sent; by default those given to `Serialization`.
            links: where messages go, if not through an engine of this pool's own.

        Raises:
            ValueError: only some of `key`, `cert` and `ca_cert` are given: such a pool would not be protected.
        """
        given = [path for path in (key, cert, ca_cert) if path is not None]
        if len(given) not in (0, 3):
            raise ValueError("key, cert and ca_cert belong together: give all three for TLS, or none")
        if inbox_mib < 1 or outbox_mib < 1:
            raise ValueError("inbox_mib and outbox_mib must be at least 1")
        self.key = _path(key)
        self.cert = _path(cert)
        self.ca_cert = _path(ca_cert)
        self._close_timeout = close_timeout
        self._shared = Shared(late_s(timeout, max_retries), inbox_mib << 20, outbox_mib << 20, registry)
        self._peers = self._shared.peers
        self._own_links = links
        self._port: int | None = None
        self._prefix: str | None = None
        self._shutdown: asyncio.Future[None] | None = None
        self._thread = get_ident()
        _unstarted.setdefault(self._thread, WeakSet()).add(self)

    @classmethod
    def over(cls, session: Session, **settings: Any) -> Self:
        """A pool whose peers are the other parties of a session, by their names; `settings` as of the constructor.

        The session is the pool's from now on. It needs an asyncio loop that drives the session's party, or a job of a
        batch, which becomes a task of one. A link that is lost ends the session, and so the pool's calls towards all
        peers.
        """
        from .session_links import SessionLinks

        pool = cls(links=SessionLinks(session), **settings)
        for name in session.parties:
            if name != session.parties[session.party_index]:
                pool.add_client(name)
        return pool

    @classmethod
    async def of_party(cls, party: Party, *, timeout: float | None = None, **settings: Any) -> Self:
        """A pool over a new session of a party. A common step, which all parties take in the same order.

        Raises:
            whatever Party.make_sessions does.
        """
        (session,) = await party.make_sessions(1, timeout=timeout)
        return cls.over(session, **settings)

    # Who there is.

    def add_server(self, addr: str = "0.0.0.0", port: int | None = None) -> int:
        """Listen for peers, at once, in or outside an event loop. Returns the port.

        Args:
            addr: the address of the interface, `*` for all of both families (`::` is those of IPv6 alone), or a
                multiaddress such as /ip4/0.0.0.0/tcp/61001.
            port: 0 lets the kernel choose; None is that of the multiaddress, or else 80, or 443 with certificates.

        Raises:
            AddressUnavailable: it cannot be listened on.
            ValueError: `addr` is none.
            RuntimeError: the pool listens already.
        """
        self._refuse_if_closed()
        if self._port is not None:
            raise RuntimeError(f"the pool listens on port {self._port} already")
        host, port = place_of_pool(addr, port, self._default_port, listening=True)
        self._port = self._links.listen(host, port)
        self._start_if_possible()
        log.info("listening on %s", format_address((host, self._port)))
        return self._port

    def add_http_server(self, port: int | None = None, addr: str = "0.0.0.0", external_port: int | None = None) -> None:
        """`add_server` by the name and arguments of tno.mpc.communication. HTTP is not spoken; `external_port` has no
        meaning here, since nobody is known by a port."""
        if external_port is not None:
            warnings.warn("external_port is not needed and not used", DeprecationWarning, stacklevel=2)
        self.add_server(addr, port)

    def add_client(
        self, name: str, addr: str | None = None, port: int | None = None, cert: str | Path | None = None
    ) -> None:
        """Make a peer known. At any time, in or outside an event loop.

        Args:
            name: what we call the peer.
            addr: its address or host name, or a multiaddress such as /dns/bob.example/tcp/61001.
            port: None is that of the multiaddress, or else 80, or 443 with certificates.
            cert: path of its certificate (PEM): only who has that is taken for the peer.

        Raises:
            ValueError: there is a peer of that name or address already, or something given is of no use.
            CredentialError: the certificate cannot be used.
        """
        self._refuse_if_closed()
        if not isinstance(name, str) or not name:
            raise ValueError(f"the name of a peer is a text that is not empty, not {name!r}")
        if name in self._peers:
            raise ValueError(f"there is a client {name} already")
        if port is not None and type(port) is not int:
            raise ValueError(f"the port of {name} is a number, not {port!r}")
        if addr is not None:
            addr, port = place_of_pool(addr, port, self._default_port)
        cert = _path(cert)
        channel = self._links.add_peer(name, addr, port, cert)
        peer = Peer(name, self._new_client(name, addr, port, cert), channel, self._shared)
        peer.prefix = peer.outbox.prefix = self._prefix or ""
        self._peers[name] = peer
        self._start_if_possible()

    def add_http_client(
        self, name: str, addr: str, port: int | None = None, cert: str | Path | None = None, **cert_kwargs: Any
    ) -> None:
        """`add_client` by the name and arguments of tno.mpc.communication. Certificates are PEM files; `cert_kwargs` of
        other types are refused."""
        if cert_kwargs.keys() - {"type"} or cert_kwargs.get("type", 1) not in (1, None):
            raise ValueError("only certificates in PEM are read")
        self.add_client(name, addr, port, cert)

    def _new_client(self, name: str, addr: str | None, port: int | None, cert: Path | None) -> Any:
        return PoolClient(name, addr, port, cert)

    @property
    def peers(self) -> tuple[str, ...]:
        """The names of all peers, in the order in which they were added."""
        return tuple(self._peers)

    @property
    def port(self) -> int | None:
        """The port that we listen on."""
        return self._port

    @property
    def _default_port(self) -> int:
        return PLAIN_PORT if self.ca_cert is None else TLS_PORT

    @property
    def _links(self) -> PoolLinks:
        if self._own_links is None:
            from .pairs import PairLinks

            self._own_links = PairLinks(self.key, self.cert, self.ca_cert)
        return self._own_links

    def _peer(self, name: str) -> Peer:
        try:
            return self._peers[name]
        except (KeyError, TypeError):
            raise self._unknown(name) from None

    def _peers_named(self, names: Iterable[str] | None) -> list[Peer]:
        return list(self._peers.values()) if names is None else [self._peer(name) for name in names]

    def _unknown(self, name: object) -> Exception:
        return UnknownPeer.of(name, tuple(self._peers))

    def _refuse_if_closed(self) -> None:
        if self._shared.is_closed:
            raise PoolClosed
        if self._shared.failure is not None:
            raise self._shared.failure.again()

    # Running.

    def _start_if_possible(self) -> None:
        if self._shared.loop is None and asyncio._get_running_loop() is not None:
            self._start(asyncio.get_running_loop())

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._shared.loop = loop
        self._links.start(loop)
        for other in tuple(_unstarted.get(self._thread, ())):
            if other is self or other._shared.is_closed:
                _unstarted[self._thread].discard(other)
            elif other._own_links is not None:
                _unstarted[self._thread].discard(other)
                other._shared.loop = loop
                other._own_links.start(loop)

    def _loop(self) -> asyncio.AbstractEventLoop:
        """The loop of this call, which is or becomes the pool's."""
        loop = asyncio._get_running_loop()
        shared = self._shared
        if loop is not shared.loop or loop is None:
            if loop is None:
                loop = shared.loop or _loop_to_come()
            if shared.loop is None:
                self._start(loop)
            elif loop is not shared.loop:
                raise RuntimeError("the pool belongs to the event loop that ran at the first call; make a new pool")
        if shared.is_closed:
            raise PoolClosed
        return loop

    # Everything else.

    def update_msg_prefix(self, prefix: str | None) -> None:
        """From now on the ids of all messages to and from the present peers are `prefix` and the id as text; None takes
        the prefix away. The peers have to do the same."""
        self._prefix = prefix
        for peer in self._peers.values():
            peer.prefix = peer.outbox.prefix = prefix or ""

    async def wait_connected(self, names: Iterable[str] | None = None, *, timeout: float | None = None) -> None:
        """Return when the links to all peers, or to those named, stand. Never needed: sends and receives wait.

        Raises:
            ConnectFailed: they do not within the timeout, by default that of the pool; says why.
            PeerRefused: a certificate is wrong, so none will.
            PeerLost, PeerClosed: a peer is gone.
        """
        loop = self._loop()
        seconds = self._shared.late_s if timeout is None else timeout
        waits = [loop.create_task(peer.wait_opened(seconds)) for peer in self._peers_named(names)]
        try:
            await asyncio.gather(*waits)  # the first error counts
        finally:
            for wait in waits:
                wait.cancel()

    async def reconnect(self, name: str, *, timeout: float | None = None) -> None:
        """Begin anew with a peer that was lost or has shut down, restarted or not. Returns when both ends have.

        Nothing of the life before is left: ids are counted from 0 again, and what was unread is gone. A peer that was
        not restarted has to call it too. After an error the peer is one that was never met: calls wait for it, and this
        may be called again. For a peer that is connected, or is waited for, this is `wait_connected`.

        Raises:
            ConnectFailed: the peer has not come within `timeout` seconds, by default that of the pool.
            PeerRefused: a certificate is wrong.
            PoolFailed: this pool itself is finished.
            PeerLost, PeerClosed: it came, and is gone again.
        """
        self._loop()
        seconds = self._shared.late_s if timeout is None else timeout
        await self._peer(name).reconnect(seconds)

    def stat(self) -> PoolStat:
        """Figures of this moment, also after `shutdown`."""
        return PoolStat({name: peer.traffic() for name, peer in self._peers.items()})

    async def shutdown(self) -> None:
        """End the pool. What was sent is delivered, if the peers take it within `close_timeout`; calls that wait raise
        PoolClosed; peers get PeerClosed once they have received what we sent. May be called again. In another loop than
        the pool's, which has ended then, it is `kill`.

        Raises:
            Exception: an `asend` failed with it, and nobody has looked. The pool has ended all the same.
        """
        if self._shutdown is not None:
            await asyncio.shield(self._shutdown)
            return
        loop = asyncio.get_running_loop()
        if self._shared.loop not in (None, loop):
            self.kill()
            return
        self._shutdown = loop.create_future()
        try:
            await self._end(loop)
        except BaseException:
            if self._own_links is not None:
                self._own_links.kill()
            raise
        finally:
            self._shared.is_closed = True
            for peer in self._peers.values():
                peer.close()
            self._shutdown.set_result(None)
        total = self.stat().total
        log.info(
            "shut down; sent %d bytes in %d messages, received %d bytes in %d messages",
            total.bytes_sent, total.messages_sent, total.bytes_received, total.messages_received,
        )  # fmt: skip
        unseen = [error for peer in self._peers.values() for error in peer.take_unseen()]
        if unseen:
            for error in unseen[1:]:
                log.warning("another asend failed: %s", error)
            raise unseen[0]

    async def _end(self, loop: asyncio.AbstractEventLoop) -> None:
        shared = self._shared
        shared.is_closed = True
        if shared.loop is None:
            if self._own_links is not None:
                await self._own_links.close(0)
            return
        for peer in self._peers.values():
            peer.stop_receiving()
        deadline = loop.time() + self._close_timeout
        under_way = [sending for peer in self._peers.values() for sending in peer.outbox.under_way]
        if under_way:
            await asyncio.wait(under_way, timeout=self._close_timeout)
        shared.acknowledge()
        for peer in self._peers.values():
            await peer.outbox.drained(deadline - loop.time())
        await self._links.close(self._close_timeout)

    def kill(self) -> None:
        """End the pool now, in or outside an event loop, without waiting for anything; peers get PeerLost. For the end
        of a test, or of a program that has failed. May be called again, and after `shutdown`."""
        shared = self._shared
        shared.is_closed = True
        if shared.loop is not None and not shared.loop.is_closed():
            for peer in self._peers.values():
                peer.close()
                peer.take_unseen()  # who kills a pool does not ask what became of its sends
        if self._own_links is not None:
            self._own_links.kill()

    async def __aenter__(self) -> Self:
        self._loop()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self.shutdown()
        except Exception as unseen:
            if error is None:
                raise
            log.warning("an asend failed: %s", unseen)

    def __del__(self) -> None:
        # A pool that was never finished: its engine would run as long as this process.
        shared = getattr(self, "_shared", None)
        if shared is not None and not shared.is_closed and self._own_links is not None:
            warnings.warn(f"{self!r} was not shut down", ResourceWarning, source=self, stacklevel=1)
            self.kill()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._peers)})"


def _loop_to_come() -> asyncio.AbstractEventLoop:
    """The loop that was set for this thread and does not run yet."""
    try:
        return asyncio.get_event_loop()
    except RuntimeError:
        raise RuntimeError("there is no event loop; call this inside one, as in asyncio.run(main())") from None


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)
