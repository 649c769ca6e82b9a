"""What a node is told: who it is, where it listens, whom it knows, and its limits.

Between a program, or a file (config_file.py), and `PeerNode`. The one invariant: a NodeConfig that exists can be used,
but for what only the machine can say (whether a file or a port is there); what is wrong is reported at once, each with
its key. No secret is in it, only the paths of files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from partywire.engine.messaging.messaging import MessagingLimits
from partywire.engine.multiaddr import Multiaddr
from partywire.engine.peers.claims import (
    ADDRESSES_MAX,
    PROTOCOLS_MAX,
    USER_AGENT_SIZE_MAX,
    check_protocol_id,
    fault_of_address,
)
from partywire.engine.peers.options import PeerOptions
from partywire.engine.peers.peer_id import PeerId
from partywire.engine.rpc.server import RpcLimits
from partywire.engine.transports.errors import AddressNotSupported
from partywire.engine.transports.routes import route_of

from ..errors import ConfigError
from ..socks_config import SocksConfig, socks_problems

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Problems = list[tuple[str, str]]

TOR_DIAL_TIMEOUT_S: Final = 60.0
"""For one address by way of Tor, which takes several seconds where others take one."""

LISTEN_MAX: Final = ADDRESSES_MAX
"""Addresses to listen on: as many as peers can be told."""

_PORT_MAX: Final = 65_535
_FEATURES_BITS: Final = 32
_TARGET: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class OnionConfig:
    """[node.onion]: an onion service of ours, by which peers reach us."""

    control: str
    """Tor's control port: /ip4/127.0.0.1/tcp/9051, or a unix socket."""
    key_file: str
    """The file of the service's key, made if it is not there. Whoever has it has the address."""
    port: int
    """Of the onion address."""
    local_port: int = 0
    """On 127.0.0.1, where Tor delivers; 0 for any."""
    detach: bool = False
    """Whether Tor keeps the service when we go."""
    password_file: str = ""
    """A file that only we may read, with the password of the control port; without one, Tor's cookie is used."""
    cookie_file: str = ""
    """The file of Tor's cookie, in place of the one that Tor names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """Everything that a node needs to know. Built by hand, or from a file with `load_node_config`.

    Addresses are multiaddresses, as text or as Multiaddr, one or several; they are kept as tuples of Multiaddr, ids of
    peers as PeerId. Paths are relative to the folder of the file, if it was read from one. Raises ConfigError when the
    values cannot be, or not together.
    """

    identity: str | os.PathLike[str] = ""
    """The file of our identity key, made with mode 0600 if it is not there. Empty: a new identity with each start."""
    listen: Any = ()
    """Where peers may dial us, with port 0 at a free port. None: we only dial."""
    advertise: Any = None
    """Where peers are told to dial us, if it is not where we listen: behind a wildcard, or a translation."""
    peers: Mapping[Any, Any] = field(default_factory=dict)
    """Whom we know from the beginning: the id of each, and its addresses."""
    store: str | os.PathLike[str] = ""
    """The folder of the peer store, which needs `partywire[node]`. Empty: what is learnt is forgotten with the node."""
    strangers: bool | None = None
    """Whether peers may connect that are not in `peers`. None: they may connect to the node of a program, unless
    `connections.allowed` lists others, and may not to that of a party."""
    user_agent: str = ""
    """What we call our program; every peer reads it."""
    features: int = 0
    """32 bits that peers are told, for protocols of yours."""
    connections: PeerOptions | None = None
    """How connections are secured, limits and deadlines. None: the defaults; with Tor more time for dials."""
    messages: MessagingLimits = field(default_factory=MessagingLimits)
    rpc: RpcLimits = field(default_factory=RpcLimits)
    protocols: Mapping[str, str] = field(default_factory=dict)
    """What we serve from the start: protocol id -> "module:function" of its handler."""
    socks: SocksConfig | None = None
    onion: OnionConfig | None = None
    path: str = field(default="", compare=False)
    """The file that it was read from, for messages and relative paths."""

    def __post_init__(self) -> None:
        problems: Problems = []
        for name in ("identity", "store"):
            if isinstance(given := getattr(self, name), os.PathLike):
                object.__setattr__(self, name, os.fspath(given))
        listen = addresses_of("listen", self.listen, problems)
        advertise = None if self.advertise is None else addresses_of("advertise", self.advertise, problems)
        peers = _peers_of(self.peers, problems)
        object.__setattr__(self, "listen", listen)
        object.__setattr__(self, "advertise", advertise)
        object.__setattr__(self, "peers", peers)
        problems += _problems_of(self)
        if problems:
            raise ConfigError(self.path, tuple(problems))

    @property
    def options(self) -> PeerOptions:
        """What holds for connections. A node without strangers takes in its `peers` alone. One that listens only where
        nobody outside this host can come tells peers of these addresses, and takes such from them."""
        options = self.connections or default_options(uses_tor=self.uses_tor)
        is_local = bool(self.listen) and all(address.protocols[0] in ("memory", "unix") for address in self.listen)
        options = replace(options, is_local=options.is_local or (is_local and self.onion is None))
        return replace(options, allowed=frozenset(self.peers)) if self.strangers is False else options

    @property
    def uses_tor(self) -> bool:
        """Whether dials may take as long as Tor does."""
        return self.socks is not None or self.onion is not None

    def file(self, name: str | os.PathLike[str]) -> Path:
        """Where a file of this configuration is."""
        return Path(self.path).parent / name


def default_options(*, uses_tor: bool) -> PeerOptions:
    """Of a node that was told nothing else."""
    return PeerOptions(dial_timeout_s=TOR_DIAL_TIMEOUT_S) if uses_tor else PeerOptions()


def addresses_of(key: str, given: object, problems: Problems) -> tuple[Multiaddr, ...]:
    """One address or several; what is none is added to `problems`."""
    if isinstance(given, (str, Multiaddr)):
        given = (given,)
    if not isinstance(given, (list, tuple)):
        problems.append((key, "must be a multiaddress in quotes, or a list of them"))
        return ()
    found: list[Multiaddr] = []
    for one in given:
        try:
            found.append(one if isinstance(one, Multiaddr) else Multiaddr.parse(one))
        except (ValueError, AttributeError, TypeError) as error:
            what = str(error) if isinstance(one, str) else f"{one!r} is not a multiaddress in quotes"
            problems.append((key, what))
    if len(given) > LISTEN_MAX:
        problems.append((key, f"lists {len(given)} addresses, at most {LISTEN_MAX} are possible"))
    return tuple(found)


def _peers_of(given: object, problems: Problems) -> dict[PeerId, tuple[Multiaddr, ...]]:
    if not isinstance(given, Mapping):
        problems.append(("peers", "must map the id of each peer to its addresses"))
        return {}
    peers: dict[PeerId, tuple[Multiaddr, ...]] = {}
    for name, addresses in given.items():
        key = f"peers.{name}"
        try:
            peer_id = name if isinstance(name, PeerId) else PeerId.parse(str(name))
        except ValueError as error:
            problems.append((key, str(error)))
        else:
            peers[peer_id] = addresses_of(key, addresses, problems)
            problems += _unreachable(key, peers[peer_id])
    return peers


def _unreachable(key: str, addresses: Iterable[Multiaddr]) -> Iterable[tuple[str, str]]:
    for address in addresses:
        fault = fault_of_address(address, is_local=True)
        if fault is not None:
            yield key, f"{address} cannot be dialled: {fault}"


def _problems_of(config: NodeConfig) -> Iterable[tuple[str, str]]:
    for name in ("identity", "store", "user_agent"):
        if not isinstance(getattr(config, name), str):
            yield name, "must be text"
    for address in config.listen:
        if address.protocols[0] == "onion3":
            yield "listen", f"{address}: an onion service is set up with [node.onion]"
            continue
        try:
            route_of(address, listening=True)
        except AddressNotSupported as error:
            yield "listen", str(error)
    yield from _unreachable("advertise", config.advertise or ())
    if config.strangers not in (None, True, False):
        yield "strangers", "must be true or false"
    elif config.strangers is not None and config.connections is not None and config.connections.allowed is not None:
        yield "strangers", "says who may connect, and so does connections.allowed; leave one of them out"
    agent = config.user_agent
    if isinstance(agent, str) and (len(agent.encode()) > USER_AGENT_SIZE_MAX or not agent.isprintable()):
        yield "user_agent", f"must be printable, with at most {USER_AGENT_SIZE_MAX} bytes"
    if type(config.features) is not int or config.features >> _FEATURES_BITS:
        yield "features", f"must be a number of {_FEATURES_BITS} bits"
    yield from _protocol_problems(config.protocols)
    if config.socks is not None:
        yield from socks_problems("socks", config.socks)
    if config.onion is not None:
        yield from _onion_problems(config.onion, config.listen)


def _protocol_problems(protocols: object) -> Iterable[tuple[str, str]]:
    if not isinstance(protocols, Mapping):
        yield "protocols", 'must map protocol ids to handlers: "/app/echo/1" = "module:function"'
        return
    if len(protocols) > PROTOCOLS_MAX:
        yield "protocols", f"lists {len(protocols)}, at most {PROTOCOLS_MAX} are possible"
    for protocol, target in protocols.items():
        try:
            check_protocol_id(protocol)
        except (ValueError, AttributeError) as error:
            yield f"protocols.{protocol}", str(error)
        if not isinstance(target, str) or not _TARGET.match(target):
            yield f"protocols.{protocol}", 'must be "module:function"'


def _onion_problems(onion: OnionConfig, listen: Sequence[Multiaddr]) -> Iterable[tuple[str, str]]:
    yield from _service_problems("onion.control", onion.control)
    if onion.control in map(str, listen):
        yield "onion.control", "is an address in `listen`; it must be Tor's own control port"
    if not onion.key_file:
        yield "onion.key_file", "is missing"
    for key, least in (("port", 1), ("local_port", 0)):
        port = getattr(onion, key)
        if type(port) is not int or not least <= port <= _PORT_MAX:
            yield f"onion.{key}", f"{port!r} is not a port, {least} to {_PORT_MAX}"
    if onion.password_file and onion.cookie_file:
        yield "onion.cookie_file", "is of no use beside password_file"


def _service_problems(key: str, text: str) -> Iterable[tuple[str, str]]:
    """A service of this host's, or near: over TCP or a unix socket."""
    try:
        address = Multiaddr.parse(text)
    except (ValueError, AttributeError, TypeError) as error:
        yield key, str(error) if isinstance(text, str) else f"{text!r} is not a multiaddress in quotes"
        return
    if address.protocols[-1] not in ("tcp", "unix"):
        yield key, f"{address} is neither an address of TCP nor of a unix socket"
