"""Links of a pool in a plain script: pairwise, by a process of its own that starts with the first peer or server.

Between a Pool (`PoolLinks`) and the pair engine. The one invariant: whatever ends this process, the engine ends with
it; after `close` or `kill` nothing of either is left. Nothing here waits but `close`.

    Pool ── PairLinks ─┬─ PairChannel, PairWorker ── rings ─┬─ pair engine ── TCP, TLS ── the engine of a peer
                       └─ one of each for every peer        ┘  (one process)
"""

from __future__ import annotations

import asyncio
import logging
import os
import weakref
from typing import TYPE_CHECKING, Final

from partywire.engine.addresses import check_host, format_address, is_loopback, is_unix, meanings_of
from partywire.engine.channel.link_security import LinkSecurity
from partywire.engine.child_process import ChildProcess
from partywire.engine.commands import Close
from partywire.engine.control_socket import ControlClosed, ControlSocket, ControlTimeout
from partywire.engine.limits import NAME_SIZE_MAX
from partywire.engine.listening import Listening
from partywire.engine.pairing.pair_commands import AddPair, ListenPairs, StartPairs
from partywire.engine.pairing.whereabouts import THIS_HOST, place_of
from partywire.engine.preamble import SecurityMode
from partywire.engine.topology import PartySpec, PeerSpec
from partywire.shm import fence
from partywire.shm.doorbell import Doorbell

from ..errors import AddressUnavailable, PartyFailed
from .pair_channel import PairChannel
from .pair_worker import PairWorker

if TYPE_CHECKING:
    from .links import PeerChannel

ENGINE_MODULE: Final = "partywire.engine.pairing.process"

RING_SIZE: Final = 4 * 1024 * 1024
"""Of each ring of a link, as a party's."""

MESSAGE_SIZE_MAX: Final = 1 << 30
"""Default for the largest message. A peer can make us hold so much, so it is less than the wire allows (4 GiB)."""

INBOX_MARGIN: Final = 64 * 1024 * 1024
"""What a worker holds beyond one message of the greatest size: what a pool has not taken yet, and pauses for."""

_OUR_NAME: Final = "this-pool"

log = logging.getLogger("partywire.pool")


class PairLinks:
    """See PoolLinks."""

    def __init__(
        self,
        key: str | os.PathLike[str] | None = None,
        cert: str | os.PathLike[str] | None = None,
        ca_cert: str | os.PathLike[str] | None = None,
        *,
        message_size_max: int = MESSAGE_SIZE_MAX,
    ) -> None:
        """Starts nothing yet.

        Args:
            key: path of our private key (PEM), readable by nobody else; with `cert` and `ca_cert` every link is TLS.
            cert: path of our certificate (PEM), with those of intermediate issuers behind it.
            ca_cert: path of the issuers (PEM) that vouch for the certificates of peers.
            message_size_max: bytes of the largest message, in both directions; peers use the smaller of both.

        Raises:
            ValueError: some of the three paths are given and not all.
            CredentialError: a file cannot be used; says why.
        """
        self._security = _security_of(key, cert, ca_cert)
        self._message_size_max = message_size_max
        self._channels: dict[str, PairChannel] = {}
        self._addresses: dict[tuple[str, int], str] = {}  # of peers without a certificate -> their names
        self._certificates: dict[str, str] = {}  # the paths of those of peers, by their names
        self._loop: asyncio.AbstractEventLoop | None = None
        self._engine: _Engine | None = None  # set by the first server or peer
        self._end_engine: weakref.finalize[..., PairLinks] | None = None  # with it
        self._is_listening = False
        self._has_warned = False  # of plaintext
        self._is_over = False

    # Servers and peers.

    def listen(self, addr: str, port: int) -> int:
        """See PoolLinks; once for each pool.

        Raises:
            AddressUnavailable: at once.
            ValueError: `addr` is no host.
            RuntimeError: it listens already, or is closed.
        """
        if self._is_listening:
            raise RuntimeError("a pool has one server; this one listens already")
        if is_unix(addr):
            raise ValueError(f"{addr} is a unix socket; a pool listens on a host and a port")
        check_host(addr, listening=True)
        self._refuse_if_over()
        listening = Listening()
        try:
            try:
                listening.add((addr, port))
            except OSError as error:
                cause = (error.strerror or str(error)).lower()
                message = f"cannot listen on {format_address((addr, port))}: {cause}"
                raise AddressUnavailable(_OUR_NAME, message) from error
            sockets = listening.sockets
            port = sockets[0].getsockname()[1]
            self._started().control.send(ListenPairs(port), [sock.fileno() for sock in sockets])
        finally:
            listening.close()  # the engine has its own descriptors of the same sockets
        self._is_listening = True
        return port

    def add_peer(
        self,
        name: str,
        addr: str | None,
        port: int | None,
        cert: str | os.PathLike[str] | None = None,
    ) -> PeerChannel:
        """See PoolLinks.

        Args:
            name: what we call the peer; it need not know.
            addr: the host that it is dialled at, and known by if there is no `cert`. None: it dials us.
            port: the port that it listens at.
            cert: path of the certificate (PEM) that it must show, exactly: the first one of the file.

        Raises:
            ValueError: the name, the address or the certificate is another peer's, or nothing tells who the peer is.
            CredentialError: `cert` cannot be used.
            RuntimeError: the pool is closed.
        """
        self._refuse_if_over()
        if name in self._channels:
            raise ValueError(f"{name} is a peer already")
        if addr is not None and is_unix(addr):
            raise ValueError(f"{addr} is a unix socket; a peer is dialled at a host and a port")
        if addr is not None:
            check_host(addr)
        if addr is not None and (port is None or not 1 <= port <= 65535):
            raise ValueError(f"port {port} of {name} is not between 1 and 65535")
        if addr is None and cert is None:
            raise ValueError(f"{name} needs an address or a certificate: nothing else would tell who it is")
        address = (addr or "", port or 0)
        taken = meanings_of(address) & self._addresses.keys()
        if cert is None and taken:
            raise ValueError(f"{name} has the address {format_address(address)} of {self._addresses[min(taken)]}")
        certificate = "" if cert is None else self._checked(name, cert)
        if addr is not None:
            self._warn_of_plaintext(addr)
        engine = self._started()
        channel = PairChannel(name, self._make_worker(engine, name, address, certificate))
        if cert is None:
            self._addresses.update(dict.fromkeys(meanings_of(address), name))
        else:
            self._certificates[name] = certificate
        self._channels[name] = channel
        if self._loop is not None:
            channel.start(self._loop)
        return channel

    def _checked(self, name: str, cert: str | os.PathLike[str]) -> str:
        from partywire.engine.pairing.pool_tls import fingerprint_of_file

        if self._security.security_mode is not SecurityMode.TLS:
            raise ValueError(f"a certificate for {name} needs a pool with key, cert and ca_cert")
        path = os.path.abspath(cert)
        shown = fingerprint_of_file(path)
        for other, certificate in self._certificates.items():
            if fingerprint_of_file(certificate) == shown:
                raise ValueError(f"{name} has the certificate of {other}: nothing would tell who is who")
        return path

    def _make_worker(self, engine: _Engine, name: str, address: tuple[str, int], certificate: str) -> PairWorker:
        """The opener's end of the link, and word of it to the engine."""
        shown = _shown(name)
        party = PartySpec(_OUR_NAME, 0, (PeerSpec(_OUR_NAME, 0, "", 0), PeerSpec(shown, 1, *address)))
        fence_ = fence.probe()
        doorbell = Doorbell.create(fence_)
        ours, theirs = ControlSocket.pair()
        control = ControlSocket(ours, "the pair engine of this pool")
        try:
            with theirs:
                command = AddPair(shown, *address, certificate)
                engine.control.send(command, [theirs.fileno(), *doorbell.fds])
            inbox_size_max = self._message_size_max + INBOX_MARGIN
            return PairWorker(
                party,
                doorbell,
                fence_,
                control,
                inbox_size_max=inbox_size_max,
                message_size_max=self._message_size_max,
            )
        except BaseException as error:
            control.close()
            doorbell.close()
            if isinstance(error, (ControlClosed, ControlTimeout)):
                raise PartyFailed(_OUR_NAME, f"its pair engine does not answer: {error}") from error
            raise

    def _warn_of_plaintext(self, host: str) -> None:
        is_here = is_loopback(host) or place_of(host) == THIS_HOST
        if self._security.security_mode is SecurityMode.TLS or self._has_warned or is_here:
            return
        self._has_warned = True
        log.warning(
            "the links of this pool are plaintext, and %s is not this host; use a trusted network only, or give the "
            "pool key, cert and ca_cert",
            host,
        )

    # The engine.

    def _started(self) -> _Engine:
        """The engine, started if need be. Does not wait for it.

        Raises:
            PartyFailed: it cannot be started.
        """
        if self._engine is None:
            fence.register()
            self._engine = _Engine.start()
            self._end_engine = weakref.finalize(self, self._engine.end, os.getpid())
            try:
                self._engine.control.send(StartPairs(self._security, RING_SIZE, self._message_size_max))
            except BaseException:
                self._end_engine()
                raise
        return self._engine

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """See PoolLinks."""
        if self._loop is not None:
            raise RuntimeError("a loop drives the links of this pool already")
        self._loop = loop
        for channel in self._channels.values():
            channel.start(loop)

    def _refuse_if_over(self) -> None:
        if self._is_over:
            raise RuntimeError("the links of this pool are closed")

    # The end.

    async def close(self, timeout: float) -> None:
        """See PoolLinks."""
        if self._is_over or self._engine is None:
            self.kill()
            return
        self._is_over = True
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self.start(loop)  # a link that is up wants our goodbye
        deadline = loop.time() + timeout
        try:
            finishing = (channel.finish(deadline) for channel in self._channels.values())
            await asyncio.gather(*finishing, return_exceptions=True)
            self._engine.control.send(Close(), timeout_s=0)
            await self._engine.wait_for_end(loop, max(0.0, deadline - loop.time()))
        except (ControlClosed, ControlTimeout, TimeoutError) as error:
            log.debug("the pair engine is ended without its goodbyes: %s", error)
        finally:
            self.kill()

    def kill(self) -> None:
        """See PoolLinks."""
        self._is_over = True
        if self._end_engine is not None:
            self._end_engine()
        for channel in self._channels.values():
            channel.close()


class _Engine:
    """The process, and our end of its control socket. Not tied to PairLinks, whose end may have to end it."""

    def __init__(self, process: ChildProcess, control: ControlSocket) -> None:
        self.process = process
        self.control = control

    @classmethod
    def start(cls) -> _Engine:
        ours, theirs = ControlSocket.pair()
        with theirs:
            control = ControlSocket(ours, "the pair engine")
            try:
                process = ChildProcess.start("pair engine", ENGINE_MODULE, theirs.fileno(), new_session=True)
            except OSError as error:
                control.close()
                raise PartyFailed(_OUR_NAME, f"its pair engine cannot be started: {error.strerror}") from error
        return cls(process, control)

    async def wait_for_end(self, loop: asyncio.AbstractEventLoop, timeout_s: float) -> None:
        ended: asyncio.Future[None] = loop.create_future()
        fd = self.process.fileno()
        loop.add_reader(fd, ended.cancel)
        try:
            await asyncio.wait([ended], timeout=timeout_s)
        finally:
            loop.remove_reader(fd)

    def end(self, pid: int) -> None:
        """End and reap it, in the process `pid` that started it: a fork has no part in it."""
        if os.getpid() == pid:
            self.control.close()
            self.process.end()


def _security_of(
    key: str | os.PathLike[str] | None, cert: str | os.PathLike[str] | None, ca_cert: str | os.PathLike[str] | None
) -> LinkSecurity:
    given = {"key": key, "cert": cert, "ca_cert": ca_cert}
    missing = [name for name, path in given.items() if path is None]
    if len(missing) == len(given):
        return LinkSecurity()
    if key is None or cert is None or ca_cert is None:
        raise ValueError(f"a pool with TLS needs key, cert and ca_cert; missing: {', '.join(missing)}")
    from partywire.engine.channel.credentials import tls_context

    security = LinkSecurity(
        mode=SecurityMode.TLS,
        certificate=os.path.abspath(cert),
        key=os.path.abspath(key),
        ca=os.path.abspath(ca_cert),
    )
    tls_context(security, accepts=True)  # raises what is wrong with the files now, not in the engine
    return security


def _shown(name: str) -> str:
    """A peer's name as messages of the link can carry it."""
    text = "".join(letter if letter.isprintable() and not letter.isspace() else "_" for letter in name) or "peer"
    text = text.encode("utf-8", "replace")[:NAME_SIZE_MAX].decode("utf-8", "ignore")
    return f"{text[: NAME_SIZE_MAX // 4 - 1]}_" if text == _OUR_NAME else text
