"""One party's configuration: a TOML file, checked as a whole before any process starts.

Between the person who writes the file and `Party`. The one invariant: a PartyConfig that exists can be used; every
problem of a file is reported at once, each with its key. `[parties]` must be equal in all files, order included: the
order gives each party its index.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from partywire.engine import limits
from partywire.engine.addresses import Address, format_address, is_loopback, is_unix, parse_address
from partywire.engine.link_options import LinkOptions
from partywire.engine.topology import PartySpec, PeerSpec, check_name

from .address_config import FORMS, address_of, address_problems, client_host_of, listen_addresses_of
from .compat_config import compat_lines, compat_problems, iris_options
from .errors import ConfigError
from .http_config import HttpConfig, http_lines, read_http
from .security import SecurityConfig, links_of, read_security, security_lines, security_problems
from .socks_config import SocksConfig, read_socks, socks_lines

if TYPE_CHECKING:
    from collections.abc import Iterable

    from partywire.engine.socks_options import SocksOptions

    from .node import NodeConfig

__all__ = ["PartyConfig", "is_loopback", "load_config", "parse_address", "parse_config", "write_config"]

INBOX_MIB_DEFAULT = 256
RING_MIB_DEFAULT = 4
MESSAGE_MIB_DEFAULT = 4096
"""All that the wire's length field can say: 4 GiB, less one byte."""
IO_PROCESSES = "processes"
IO_IN_PROCESS = "in-process"

_TABLES = {
    "limits": ("inbox_mib", "ring_mib", "message_mib", "unidentified"),
    "timeouts": ("connect_s", "close_s", "heartbeat_s", "reconnect_s"),
    "listen": ("address",),
    "dial": ("client_host", "socks"),
}
_STAND_IN: Mapping[str, Any] = {"name": "a", "parties": {"a": ("localhost", 1), "b": ("localhost", 2)}, "compat": {}}
_NAMED_TABLES = ("parties", "parameters", "compat", "security", "http", "node")
_TOP = ("name", "insecure", "workers", "links_per_io_process", "io", *_NAMED_TABLES, *_TABLES)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartyConfig:
    """Everything that one party needs to know. Built by hand, or from a file with `load_config`.

    `parties` maps every party's name, ours included, to its address, in index order. An address is a (host, port) or
    the text "host:port", "unix:/path" or a multiaddress (docs/networks.md), and is kept as the former. Raises
    ConfigError when the values cannot work together.
    """

    name: str
    parties: Mapping[str, Any]
    insecure: bool | None = None
    """True allows plaintext connections. None means: only when every address is a loopback address."""
    workers: int = 1
    links_per_io_process: int = 1
    """How many peers one I/O process serves: more than one where parties share few cores."""
    io: str = IO_PROCESSES
    """Who serves the links: "processes", or "in-process" for a party of one process in all (docs/parties.md)."""
    listen: Any = None
    """Where to listen when it is not the address that the others dial: an address or several; `*` is every one."""
    client_host: str | None = None
    """Local address, or a name of it, to dial from. None: whatever the routing table says."""
    socks: SocksConfig | None = None
    """[dial.socks]: the SOCKS5 proxy, such as Tor's, by which peers are dialled. None: that of `node`, if there is."""
    inbox_mib: int = INBOX_MIB_DEFAULT
    ring_mib: int = RING_MIB_DEFAULT
    message_mib: int = MESSAGE_MIB_DEFAULT
    unidentified: int = limits.UNIDENTIFIED_MAX
    """Connections that may be accepted and have not shown yet whom they want; a quarter of them from one address."""
    connect_s: float = limits.CONNECT_TIMEOUT_S
    close_s: float = limits.CLOSE_TIMEOUT_S
    heartbeat_s: float = limits.HEARTBEAT_TIMEOUT_S
    reconnect_s: float = limits.RECONNECT_TIMEOUT_S
    parameters: Mapping[str, object] = field(default_factory=dict)
    """Whatever else must be equal at all parties (text, numbers, true or false); compared when they connect."""
    compat: Mapping[str, Any] = field(default_factory=dict)
    """Peers whose links speak another protocol, each with its table (docs/iris-compat.md)."""
    security: SecurityConfig | None = None
    """How links are protected (docs/security.md). None: they are plaintext."""
    http: HttpConfig | None = None
    """What `partywire serve` offers; without it a party cannot serve, and nothing else looks at it."""
    node: NodeConfig | None = None
    """The party's peer-to-peer node (docs/node.md); without it nothing of one is imported or started."""
    path: str = field(default="", compare=False)
    """The file that it was read from, for messages."""

    def __post_init__(self) -> None:
        problems: list[tuple[str, str]] = []
        if not isinstance(self.parties, Mapping):
            raise ConfigError(self.path, (("parties", "must map each name to host and port"),))
        if not isinstance(self.compat, Mapping):
            raise ConfigError(self.path, (("compat", "must have a table for each peer: [compat.NAME]"),))
        parties = {name: address_of(f"parties.{name}", given, problems) for name, given in self.parties.items()}
        listen = None if self.listen is None else listen_addresses_of(self.listen, problems)
        dialling: list[tuple[str, str]] = []
        client_host = None if self.client_host is None else client_host_of(self.client_host, dialling)
        if not problems:
            object.__setattr__(self, "parties", parties)
            object.__setattr__(self, "listen", listen)
            object.__setattr__(self, "client_host", client_host)
            problems += _problems_of(self)
            problems += dialling
            problems += _node_problems(self, is_whole=not problems)
        if problems:
            raise ConfigError(self.path, tuple(problems))

    @property
    def spec(self) -> PartySpec:
        """All parties as the engine sees them."""
        parties = tuple(
            PeerSpec(name, index, host, port, iris_options(self.compat[name]) if name in self.compat else None)
            for index, (name, (host, port)) in enumerate(self.parties.items())
        )
        return PartySpec(self.name, list(self.parties).index(self.name), parties)

    @property
    def listen_addresses(self) -> tuple[Address, ...]:
        """The addresses that our own listening sockets bind."""
        return self.listen if self.listen is not None else (self.parties[self.name],)

    @property
    def proxy(self) -> SocksConfig | None:
        """The SOCKS5 proxy by which peers are dialled."""
        return self.socks or getattr(self.node, "socks", None)

    @property
    def parameter_digest(self) -> bytes:
        """What the handshake compares of `parameters`."""
        if not self.parameters:
            return bytes(32)
        return hashlib.sha256(json.dumps(dict(self.parameters), sort_keys=True).encode("utf-8")).digest()

    @property
    def link_options(self) -> LinkOptions:
        """What all our links share."""
        return LinkOptions(
            ring_size=self.ring_mib << 20,
            bulk_ring_size=self.ring_mib << 20,
            connect_timeout_s=self.connect_s,
            heartbeat_interval_s=min(limits.HEARTBEAT_INTERVAL_S, self.heartbeat_s / 3),
            heartbeat_timeout_s=self.heartbeat_s,
            close_timeout_s=self.close_s,
            message_size_max=min(self.message_mib << 20, limits.MESSAGE_SIZE_MAX),
            parameter_digest=self.parameter_digest,
            client_host=self.client_host,
            socks=_socks_options(self),
            unidentified_max=self.unidentified,
            security=links_of(self),
            **({} if self.node is None else _link_settings(self)),
        )

    @property
    def is_loopback(self) -> bool:
        """Whether nothing can leave this host or come from elsewhere."""
        goes_through = isinstance(self.proxy, SocksConfig) and self.proxy.takes_all
        if goes_through and not all(is_unix(host) for name, (host, _) in self.parties.items() if name != self.name):
            return False  # addresses of loopback are those of the proxy's host
        hosts = [host for host, _ in self.parties.values()]
        hosts += [host for host, _ in self.listen or ()]
        return all(is_loopback(host) for host in hosts)


def _problems_of(config: PartyConfig) -> Iterable[tuple[str, str]]:
    """Every (key, problem) of values that have the right types."""
    for name in config.parties:
        try:
            check_name(name)
        except ValueError as error:
            yield "parties", str(error)
    if not limits.PARTIES_MIN <= len(config.parties) <= limits.PARTIES_MAX:
        least, most = limits.PARTIES_MIN, limits.PARTIES_MAX
        yield "parties", f"lists {len(config.parties)}, between {least} and {most} are needed"
    if config.name not in config.parties:
        yield "name", f"{config.name!r} is not in [parties]; known are {', '.join(config.parties) or 'none'}"
    yield from address_problems(config)
    if config.name in config.parties:
        yield from security_problems(config)
    for key, value in config.parameters.items():
        if not isinstance(key, str) or type(value) not in (str, int, float, bool):
            yield f"parameters.{key}", "must be text, a number, true or false"
    yield from _range_problem("workers", config.workers, 1, limits.WORKERS_MAX, int)
    yield from compat_problems(config)
    links, most = config.links_per_io_process, limits.LINKS_PER_IO_PROCESS_MAX
    yield from _range_problem("links_per_io_process", links, 1, most, int)
    yield from _io_problems(config)
    yield from _range_problem("limits.inbox_mib", config.inbox_mib, 1, 1 << 20, int)
    yield from _range_problem("limits.ring_mib", config.ring_mib, 1, 1024, int)
    if isinstance(config.ring_mib, int) and config.ring_mib & (config.ring_mib - 1):
        yield "limits.ring_mib", f"{config.ring_mib} is not a power of two"
    yield from _range_problem("limits.unidentified", config.unidentified, *limits.UNIDENTIFIED_BOUNDS, int)
    yield from _range_problem("limits.message_mib", config.message_mib, 1, MESSAGE_MIB_DEFAULT, int)
    yield from _range_problem("timeouts.connect_s", config.connect_s, 0.1, 86_400)
    yield from _range_problem("timeouts.close_s", config.close_s, 0.1, 3_600)
    yield from _range_problem("timeouts.heartbeat_s", config.heartbeat_s, 0.5, 3_600)
    yield from _range_problem("timeouts.reconnect_s", config.reconnect_s, 0.1, 86_400)


def _node_problems(config: PartyConfig, *, is_whole: bool) -> Iterable[tuple[str, str]]:
    """`is_whole`: whether the rest has no problem."""
    if config.node is None:
        return
    from .node.in_party import party_problems, table_problems  # only here: most parties have no node

    problems = list(table_problems(config.node))
    yield from problems
    if is_whole and not problems:
        yield from party_problems(config, config.node)


def _socks_options(config: PartyConfig) -> SocksOptions | None:
    """Files of the proxy are beside the file that has its table."""
    if config.socks is None and config.node is not None:
        return None if config.node.socks is None else config.node.socks.options(config.node.file(""))
    return None if config.socks is None else config.socks.options(Path(config.path).parent)


def _link_settings(config: PartyConfig) -> dict[str, Any]:
    from .node.in_party import link_settings  # only here, as above

    return link_settings(config)


def _io_problems(config: PartyConfig) -> Iterable[tuple[str, str]]:
    if config.io == IO_IN_PROCESS:
        settings = {"workers": config.workers != 1, "compat": config.compat, "http": config.http, "node": config.node}
        for key, is_set in settings.items():
            if is_set:
                yield "io", f"{IO_IN_PROCESS!r} is for a party of one process, without `{key}`: leave one of them out"
    elif config.io != IO_PROCESSES:
        yield "io", f"must be {IO_PROCESSES!r} or {IO_IN_PROCESS!r}, not {config.io!r:.40}"


def _range_problem(
    key: str, value: object, least: float, most: float, kind: type[int] | type[float] = float
) -> Iterable[tuple[str, str]]:
    if isinstance(value, bool) or not isinstance(value, (int, kind)):
        yield key, f"must be a {'whole ' if kind is int else ''}number, not a {type(value).__name__}"
    elif not least <= value <= most:
        yield key, f"{value} is not between {least} and {most}"


# Files.


def load_config(path: str | Path) -> PartyConfig:
    """Read and check a configuration file.

    Raises:
        ConfigError: the file cannot be read or used; names every key at fault.
    """
    try:
        text = Path(path).read_text("utf-8-sig")  # some editors put a mark in front
    except OSError as error:
        raise ConfigError(str(path), (("", f"cannot be read: {error.strerror}"),)) from error
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), (("", "is not UTF-8 text"),)) from error
    return parse_config(text, str(path))


def parse_config(text: str, path: str = "") -> PartyConfig:
    """Check the text of a configuration file.

    Raises:
        ConfigError: names every key at fault.
    """
    import tomllib  # not for who builds a configuration by hand

    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(path, (("", f"is not TOML: {error}"),)) from error
    reader = _Reader(document, path)
    values = reader.read()
    if reader.problems:
        # What can be checked of the rest is, so that one run of the user shows everything.
        known = {key for key, _ in reader.problems}
        if not {"name", "parties"} <= values.keys():
            values |= _STAND_IN  # so that what does not depend on them is checked
            known |= {*_STAND_IN, "insecure"}
        try:
            PartyConfig(**values, path=path)
        except ConfigError as error:
            reader.problems += [problem for problem in error.problems if problem[0] not in known]
        raise ConfigError(path, tuple(reader.problems))
    return PartyConfig(**values, path=path)


class _Reader:
    """Takes a TOML document apart by type, collecting problems instead of stopping at the first."""

    def __init__(self, document: Mapping[str, object], path: str) -> None:
        self._document = document
        self._path = path
        self.problems: list[tuple[str, str]] = []

    def read(self) -> dict[str, Any]:
        """Arguments of PartyConfig that have the right types."""
        values: dict[str, Any] = {}
        self._refuse_unknown("", self._document, _TOP)
        self._take(values, self._document, "name", "", str, required=True)
        self._take(values, self._document, "insecure", "", bool)
        self._take(values, self._document, "workers", "", int)
        self._take(values, self._document, "links_per_io_process", "", int)
        self._take(values, self._document, "io", "", str)
        parties = self._read_parties()
        if parties is not None:
            values["parties"] = parties
        parameters = self._document.get("parameters", {})
        if isinstance(parameters, dict):
            values["parameters"] = parameters
        else:
            self.problems.append(("parameters", "must be a table: [parameters]"))
        if "compat" in self._document:
            values["compat"] = self._document["compat"]
        if "security" in self._document:
            values["security"] = read_security(self._document["security"], self.problems)
        if "http" in self._document:
            values["http"] = read_http(self._document["http"], self._path, self.problems)
        if "node" in self._document:
            from .node.in_party import read_table  # only here: most parties have no node

            values["node"] = read_table(self._document["node"], self._path, self.problems)
        for table, keys in _TABLES.items():
            found = self._document.get(table, {})
            if not isinstance(found, dict):
                self.problems.append((table, f"must be a table: [{table}]"))
                continue
            self._refuse_unknown(f"{table}.", found, keys)
            if table == "listen":
                if found and (addresses := self._listen(found.get("address"))) is not None:
                    values["listen"] = addresses
                continue
            if table == "dial":
                self._take(values, found, "client_host", "dial.", str)
                if "socks" in found:
                    values["socks"] = read_socks("dial.socks", found["socks"], self.problems)
                continue
            for key in keys:
                self._take(values, found, key, f"{table}.", float if table == "timeouts" else int)
        return values

    def _take(
        self,
        values: dict[str, object],
        table: Mapping[str, object],
        key: str,
        prefix: str,
        wanted: type,
        *,
        required: bool = False,
    ) -> None:
        if key not in table:
            if required:
                self.problems.append((prefix + key, "is missing"))
            return
        value = table[key]
        accepted = isinstance(value, wanted) or (wanted is float and isinstance(value, int))
        if not accepted or (isinstance(value, bool) and wanted is not bool):
            words = {str: "text in quotes", bool: "true or false", int: "a whole number", float: "a number"}
            self.problems.append((prefix + key, f"must be {words[wanted]}, not {value!r:.40}"))
            return
        values[key] = value

    def _read_parties(self) -> dict[str, tuple[str, int]] | None:
        if "parties" not in self._document:
            self.problems.append(("parties", 'is missing: a table [parties] with a line name = "host:port" for each'))
            return None
        table = self._document["parties"]
        if not isinstance(table, dict):
            self.problems.append(("parties", "must be a table: [parties]"))
            return None
        addresses = {name: self._address(f"parties.{name}", value) for name, value in table.items()}
        if any(address is None for address in addresses.values()):
            return None
        return {name: address for name, address in addresses.items() if address is not None}

    def _listen(self, value: object) -> tuple[Address, ...] | None:
        several = value if isinstance(value, list) else [value]
        if not all(isinstance(item, str) for item in several):
            self.problems.append(("listen.address", 'must be an address in quotes, or a list: ["host:port", ...]'))
            return None
        problems: list[tuple[str, str]] = []
        addresses = listen_addresses_of(several, problems)
        self.problems += problems
        return None if problems else addresses

    def _address(self, key: str, value: object) -> tuple[str, int] | None:
        if isinstance(value, str):
            return address_of(key, value, self.problems)
        self.problems.append((key, f"must be an address in quotes: {FORMS}"))
        return None

    def _refuse_unknown(self, prefix: str, table: Mapping[str, object], known: Iterable[str]) -> None:
        for key in table:
            if key not in known:
                self.problems.append((f"{prefix}{key}", f"is not a setting; known are {', '.join(known)}"))


def _quoted(text: str) -> str:
    """A TOML string; TOML and JSON escape alike but for DEL, as long as no surrogate pairs are written."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: object) -> str:
    """Text, a number or a truth value as TOML."""
    if isinstance(value, str):
        return _quoted(value)
    return str(value).lower() if isinstance(value, bool) else repr(value)


def write_config(config: PartyConfig) -> str:
    """The text of a file that `load_config` reads back as an equal configuration, commented for its reader."""

    def address(pair: Address) -> str:
        return _quoted(format_address(pair))

    lines = [f"name = {_quoted(config.name)}  # which of the parties below this file belongs to"]
    if config.insecure is not None:
        lines.append(f"insecure = {str(config.insecure).lower()}  # whether a link may be plaintext")
    lines += [f"workers = {config.workers}  # compute processes of this party"]
    lines += [f"links_per_io_process = {config.links_per_io_process}  # peers that one I/O process serves", ""]
    if config.io != IO_PROCESSES:
        lines[-1:] = [f"io = {_quoted(config.io)}  # who serves the links", ""]
    lines += ["[parties]  # the same lines in the same order at every party"]
    lines += [f"{_quoted(name)} = {address(pair)}" for name, pair in config.parties.items()]
    if config.listen is not None:
        listed = ", ".join(address(pair) for pair in config.listen)
        lines += ["", "[listen]", f"address = {listed if len(config.listen) == 1 else f'[{listed}]'}"]
    if config.client_host is not None:
        lines += ["", "[dial]", f"client_host = {_quoted(config.client_host)}"]
    if config.socks is not None:
        lines += ["", *socks_lines("dial.socks", config.socks)]
    if config.parameters:
        lines += ["", "[parameters]"]
        lines += [f"{_quoted(key)} = {_value(value)}" for key, value in config.parameters.items()]
    lines += compat_lines(config.compat)
    for table in ("limits", "timeouts"):
        lines += ["", f"[{table}]"]
        lines += [f"{key} = {getattr(config, key)}" for key in _TABLES[table]]
    if config.security is not None:
        lines += ["", *security_lines(config.security)]
    if config.http is not None:
        lines += ["", *http_lines(config.http)]
    if config.node is not None:
        from .node.table import node_lines  # only here: most parties have no node

        lines += ["", *node_lines(config.node)]
    return "\n".join(lines) + "\n"
