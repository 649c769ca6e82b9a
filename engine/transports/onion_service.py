"""An onion service of ours, kept in Tor for as long as it is listened on.

Between the router and Tor's control port. The one invariant: while `Listening` is open, Tor has the service, or a task
here is about to add it again with the same key; nobody but this user can read the key.

Tor makes the key when there is none. It is written to its file before the service is announced to anybody. A control
connection that is lost ends the service in Tor (unless it is detached), so it is dialled again until it stands and the
service is added anew: every RECONNECT_PAUSE_S, the first time at once.

Tor delivers from loopback: of those who come, nothing is known but that they came through Tor. Any program on this host
can dial the local port as well, so who it is must be found out above.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ..addresses import is_unix, parse_address, unix_path
from ..multiaddr import Multiaddr
from .errors import DialFailed, OnionCollision, TorControlError, TorControlLost, TorProtocolError
from .listening import Listening
from .onion_key import OnionKey, read_key, write_key
from .routes import tcp_address
from .tor_control import TorAuthentication, TorControl

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from ..transport import Stream

RECONNECT_PAUSE_S: Final = 5.0
"""Between two attempts to reach a control port that was lost; that of the reference."""

COLLISIONS_MAX: Final = 10
COLLISION_PAUSE_S: Final = 0.1
"""Between that many attempts while Tor still has the service of a connection that ended a moment ago: of the process
that was here before us, say."""

CONNECT_TIMEOUT_S: Final = 10.0
"""To a control port, which is on this host or near."""

_NEW_KEY: Final = "NEW:ED25519-V3"
_LOG: Final = logging.getLogger("partywire.tor")


@dataclass(frozen=True, slots=True)
class OnionService:
    """What to listen on through Tor."""

    control: Multiaddr
    """Tor's control port: /ip4/127.0.0.1/tcp/9051, or /unix/run/tor/control."""
    key_path: Path
    """The file of the service's key, mode 0600. Whoever has it has the address. Made if it is not there."""
    onion_port: int
    """The port of the onion address."""
    authentication: TorAuthentication = field(default_factory=TorAuthentication)
    local_port: int = 0
    """On 127.0.0.1, where Tor delivers; 0 for any."""
    detach: bool = False
    """Whether Tor keeps the service when we go; when we come back, we take it over."""
    adopt_proxy: bool = True
    """Whether a router without a SOCKS5 proxy uses Tor's from then on."""

    def __post_init__(self) -> None:
        """Raises ValueError for a port that there is not."""
        if not 1 <= self.onion_port <= 65535 or not 0 <= self.local_port <= 65535:
            raise ValueError("the onion port must be between 1 and 65535, the local port between 0 and 65535")


class OnionListening(Listening):
    """An onion service that is listened on. `address` is /onion3/ID:PORT. Closing it ends the service in Tor, unless it
    is detached, and the local port."""

    def __init__(
        self,
        service: OnionService,
        target: str,
        connect: Callable[[Multiaddr, float], Coroutine[object, object, Stream]],
        on_close: Callable[[], object],
    ) -> None:
        """Use `start`. `target` is host:port; `connect` dials the control port."""
        super().__init__(service.control, on_close)  # the address is set by `start`
        self._service = service
        self._target = target
        self._connect = connect
        self._control: TorControl | None = None
        self._key: OnionKey | None = None  # set once Tor has the service; from then on the file is not read again
        self._keeper: asyncio.Task[None] | None = None
        self._published = asyncio.Event()
        self.network_is_up: bool | None = None
        """What Tor said last of its network; None before it said anything."""

    async def start(self) -> None:
        """Add the service, and keep it from then on.

        Raises:
            TorControlError: Tor does not take it; OnionKeyError: its key cannot be used.
        """
        try:
            await self._add()
        except BaseException:
            self.close()
            raise
        self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def socks_proxy(self) -> Multiaddr | None:
        """Where Tor listens for SOCKS5: over TCP if it does, else at a unix socket, else nowhere.

        Raises:
            TorControlError: it cannot be asked.
        """
        if self._control is None:
            return None
        found: list[Multiaddr] = []
        for text in (await self._control.get_info("net/listeners/socks")).split(" "):
            try:
                host, port = parse_address(text.strip('"'))
                found.append(Multiaddr([("unix", unix_path(host))]) if is_unix(host) else tcp_address(host, port))
            except ValueError:
                continue
        return next((address for address in found if address.protocols[-1] == "tcp"), found[0] if found else None)

    async def wait_published(self, timeout_s: float) -> None:
        """Until Tor has told a directory where the service is, so that others can find it.

        Raises:
            TimeoutError: not in time.
        """
        async with asyncio.timeout(timeout_s):
            await self._published.wait()

    def close(self) -> None:
        """End it. May be called again."""
        if self._keeper is not None:
            self._keeper.cancel()
        if self._control is not None:
            self._control.close()
        super().close()

    # Keeping.

    async def _keep(self) -> None:
        while True:
            assert self._control is not None
            # Shielded: the future is the connection's, and cancelling this task must not cancel it.
            cause = await asyncio.shield(self._control.lost)
            _LOG.warning(
                "lost the control port at %s (%s); adding %s again", self._service.control, cause, self.address
            )
            await self._add_again()

    async def _add_again(self) -> None:
        self._published.clear()
        while True:
            try:
                await self._add()
            except TorControlError as error:
                _LOG.warning("%s is not in Tor: %s; trying again in %g s", self.address, error, RECONNECT_PAUSE_S)
                await asyncio.sleep(RECONNECT_PAUSE_S)
            else:
                _LOG.info("added %s again", self.address)
                return

    async def _add(self) -> None:
        service = self._service
        try:
            stream = await self._connect(service.control, CONNECT_TIMEOUT_S)
        except DialFailed as error:
            raise TorControlLost(str(service.control), f"{error.cause}; does Tor run, with a ControlPort?") from error
        control = TorControl(asyncio.get_running_loop(), stream, str(service.control))
        try:
            await control.authenticate(service.authentication)
            control.on_event = self._hear
            await control.command("SETEVENTS HS_DESC NETWORK_LIVENESS")
            await self._add_to(control)
        except BaseException:
            control.close()
            raise
        self._control = control

    async def _add_to(self, control: TorControl) -> None:
        loop = asyncio.get_running_loop()
        path = self._service.key_path
        key = self._key or await loop.run_in_executor(None, read_key, path)
        known = key.service_id if key is not None else ""
        service_id, made = await self._add_key(control, key.blob if key is not None else _NEW_KEY, known)
        try:
            address = self._address_of(service_id)
            if known not in ("", service_id):
                raise TorProtocolError(str(self._service.control), "it added another onion service than the key's")
            if key is None:
                if made is None:
                    raise TorProtocolError(str(self._service.control), "it made no key for the onion service")
                key = OnionKey(made, service_id)
                await loop.run_in_executor(None, write_key, path, key)
        except TorControlError:
            with suppress(TorControlError):  # a detached one would stay else, and nobody know of it
                await control.delete_onion(service_id)
            raise
        self._key = OnionKey(key.blob, service_id)
        self.address = address

    def _address_of(self, service_id: str) -> Multiaddr:
        try:
            return Multiaddr([("onion3", f"{service_id}:{self._service.onion_port}")])
        except ValueError as error:
            raise TorProtocolError(str(self._service.control), f"it named a service that cannot be: {error}") from None

    async def _add_key(self, control: TorControl, blob: str, known: str) -> tuple[str, str | None]:
        service = self._service
        trials = COLLISIONS_MAX
        while True:
            try:
                return await control.add_onion(blob, service.onion_port, self._target, detach=service.detach)
            except OnionCollision:
                trials -= 1
                if not trials:
                    raise
                if known and known in (await control.get_info("onions/detached")).split("\n"):
                    await control.delete_onion(known)
                else:
                    await asyncio.sleep(COLLISION_PAUSE_S)

    def _hear(self, event: str) -> None:
        words = event.split(" ")
        match words:
            case ["HS_DESC", "UPLOADED", service_id, *_] if (
                self._key is not None and service_id == self._key.service_id
            ):
                self._published.set()
            case ["NETWORK_LIVENESS", "UP" | "DOWN" as state]:
                self.network_is_up = state == "UP"
