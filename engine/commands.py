"""What the processes of one party tell each other on their control sockets, as types.

Between the supervisor and the opener, the workers, the gateway and the I/O processes. Commands are imperative (`Start`,
`OpenLinks`), reports are past tense or nouns (`Started`, `LinkLost`, `Lanes`). Peers are named by their party index.
The one invariant: `decode(encode(message)) == message`, and nothing but a known type with exactly its fields, each of
its declared type, decodes. Descriptors never stand in a message: the docstring of each type lists those that travel
beside it, in order, and every list position has one meaning.
"""

from __future__ import annotations

import types
import typing
from enum import Enum
from typing import Any, Final, TypeAlias

import orjson

from .bulk_commands import BulkFailed, BulkLane, OpenBulk
from .channel.link_security import LinkSecurity
from .errors import PartyWireError
from .http_commands import (
    AnswerHttp,
    HttpFailed,
    HttpLaneLost,
    HttpLaneMade,
    HttpWorkerStarted,
    ServeHttp,
    StartHttp,
)
from .http_options import HttpOptions
from .iris_options import IrisOptions
from .link_options import LinkOptions
from .message import ControlMessage
from .node_commands import NodeFailed, NodeLane, NodeLost, NodeOptions, RunNode
from .pairing.pair_commands import AddPair, ListenPairs, StartPairs
from .socks_options import SocksOptions
from .topology import PartySpec, PeerSpec

MESSAGE_SIZE_MAX: Final = 64 * 1024
"""One control message. The largest, a Start with 9 parties, has some KiB; a SEQPACKET socket takes 200 KiB."""

DESCRIPTORS_MAX: Final = 250
"""Descriptors beside one message; the kernel's own limit (SCM_MAX_FD) is 253."""


class CommandError(PartyWireError):
    """Raised when bytes on a control socket are not a message of this module: both ends must be one version."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"a process of this party sent an invalid control message: {self.what}; are two versions installed?"


# The opener and its supervisor.


class Start(ControlMessage):
    """opener -> supervisor, the first message. Descriptors: [listening socket], or none to listen on `listen`.

    `workers` counts the opener. Workers 1.. run `worker_module`, a module name, with the descriptor number of their
    control socket as argv[1].
    """

    party: PartySpec
    listen: tuple[str, ...]
    """Addresses as `addresses.format_address` writes them."""
    workers: int = 1
    options: LinkOptions = LinkOptions()
    main_path: str | None = None
    worker_module: str = "partywire.workers.worker_main"
    links_per_io_process: int = 1
    node: NodeOptions | None = None


class Close(ControlMessage):
    """opener -> supervisor -> workers and I/O processes: end in an orderly way. No descriptors.

    A worker answers by finishing its lanes (records.FINISH) and exiting; an I/O process whose link is not up exits.
    """


class Started(ControlMessage):
    """supervisor -> opener: every process runs, once; then again, whenever another one runs or one stays away. Keys of
    `pids` are roles: "gateway", "link 2", "worker 1".

    Links that one process serves have its pid each.
    """

    pids: dict[str, int]


class WorkerStarted(ControlMessage):
    """supervisor -> opener. Descriptors: [channel], a stream socket whose other end that worker has."""

    index: int
    pid: int


class WorkerLost(ControlMessage):
    """supervisor -> every other worker: a child worker died. `cause` names the signal or exit code. If another one is
    started in its place, WorkerStarted tells the opener next."""

    index: int
    cause: str


class ListenFailed(ControlMessage):
    """supervisor -> opener: our address cannot be listened on. The supervisor ends after it."""

    message: str


class Stopped(ControlMessage):
    """supervisor -> opener, the last message: every child ended. `complaints` is empty after a clean end."""

    complaints: list[str]


# The state of a link, told to the workers. (An I/O process tells its supervisor, who passes it on.)


class LinkProgress(ControlMessage):
    """To the opener: why the link is not up yet; sent again when the reason changes.

    `is_refusal`: who answered at the peer's address and we do not accept each other, which no waiting changes. A pair
    engine says so soon after the first attempt that ends like that, and after each further one. Parties have
    LinkFailed.
    """

    peer: int
    cause: str
    is_refusal: bool = False


class LinkFailed(ControlMessage):
    """To the opener: the link will not come up. `code` is the name of a RejectCode, "TIMEOUT" or "LOCAL"."""

    peer: int
    code: str
    message: str


class LinkLost(ControlMessage):
    """To every worker: the I/O process of a link died, so the rings of its lanes will say no more. Lanes of another one
    may follow."""

    peer: int
    cause: str


class LinkEnded(ControlMessage):
    """I/O process -> supervisor: this epoch of the link is over, and every lane has been told by STREAM_END."""

    peer: int
    clean: bool
    cause: str


class LinkEventKind(Enum):
    """What an application may want to know of a link, or of the way to it."""

    ACCEPTED = "accepted"  # the peer dialled us, and its handshake was good
    CONNECTED = "connected"  # we dialled the peer, and its handshake was good
    CLOSED = "closed"  # what was accepted or connected is over; the cause is empty after both goodbyes
    RESOLVE_FAILED = "resolve failed"  # the peer's name could not be looked up; it is tried again
    CONNECT_FAILED = "connect failed"  # no address of the peer took our connection; they are tried again


class LinkNews(ControlMessage):
    """I/O process -> supervisor -> opener, verbatim: something happened on the way to a link, or to it.

    For the application's callback alone: nothing in the engine acts on it, and of too many some are dropped.
    """

    peer: int
    kind: str
    """Value of a LinkEventKind."""
    address: str
    """The peer's, as "host:port", or as it was configured when no connection was made; may be empty."""
    cause: str
    """Why, in words; empty for what went well."""
    dropped: int = 0
    """News that came before it and that the opener was too slow for."""


class LinkClaimed(ControlMessage):
    """I/O process -> supervisor: the peer of a link that carries substreams signed something about itself, as a
    PeerClaim (`peers.claims`), which was verified."""

    peer: int
    claim: bytes
    observed: str
    """Where the peer sees us, as a multiaddress; empty if it does not say. Nothing proves it."""


class Lanes(ControlMessage):
    """I/O process -> supervisor -> worker `worker`, verbatim: the link to `peer` is up, these are your lanes.

    Descriptors: I/O process's bell (eventfd, page), then (tx, rx) segments for each of `connections` in order, then
    (tx, rx) of the control lane if `control`, then if `substreams` a bell (eventfd, page) and (tx, rx) of the substream
    lane. tx is worker -> I/O process. The receiver owns all of them.
    """

    worker: int
    peer: int
    epoch: int
    peer_workers: int
    connections: list[int]
    connection_count: int
    """All normal connections of the link, so that session i uses connection i mod connection_count."""
    control: bool
    message_size_max: int
    """The smaller of both sides' limits."""
    substreams: bool = False
    """Whether a substream lane stands behind the control lane; it has a bell of its own in the I/O process."""


# The supervisor and its children.


class Welcome(ControlMessage):
    """supervisor -> worker (the opener is worker 0), the first message: who you are.

    Descriptors: own doorbell (eventfd, page); for a child worker also [channel], a stream socket to the opener.
    """

    worker: int
    workers: int
    party: PartySpec
    options: LinkOptions = LinkOptions()
    main_path: str | None = None


class OpenLinks(ControlMessage):
    """supervisor -> I/O process, the first message: make the links to `peers` and keep them.

    Descriptors: (eventfd, page) of every worker's doorbell in order, then a gateway socket for each of `peers` that
    dials us, in order, on which its connections arrive.
    """

    party: PartySpec
    peers: list[int]
    workers: int
    options: LinkOptions = LinkOptions()
    epochs: dict[str, int] = {}  # noqa: RUF012  (a message is never changed)
    """Peer -> the least epoch of its next attempt, for each link that an I/O process before this one had up."""


class DropWorker(ControlMessage):
    """supervisor -> I/O process: a worker died.

    If `is_replaced`, another one has its place and its doorbell, and the links are made anew. Else its connections
    break and no FINISH of it is to be expected.
    """

    index: int
    cause: str
    is_replaced: bool = False


class RemakeLink(ControlMessage):
    """opener or worker -> supervisor -> I/O process: a ring of mine in this epoch of the link is of no use any more, so
    make the link anew. One who has gone on to another epoch already does nothing."""

    worker: int
    peer: int
    epoch: int
    cause: str


class AreYouThere(ControlMessage):
    """supervisor -> I/O process: answer with Here. Who does not for a while is taken for stopped for good."""


class Here(ControlMessage):
    """I/O process -> supervisor: the answer to AreYouThere. The node process says it first, unasked: its start takes
    longer than others may be silent."""


class PublishStat(ControlMessage):
    """supervisor -> opener, workers and I/O processes, while somebody reads figures: publish yours now.

    Descriptors: [stat page] with the first one, none later. There is no answer; the page's generation moves.
    """


class Serve(ControlMessage):
    """supervisor -> gateway, the first message.

    Descriptors: `listeners` listening sockets, then one for each of `peer_listeners`, then one link socket for each of
    `peers`, then that of the node if there are `node_bytes`. The rest is what the answer to a probe tells of this
    party.
    """

    party: PartySpec
    peers: list[int]
    listeners: int = 1
    workers: int = 1
    options: LinkOptions = LinkOptions()
    peer_listeners: list[int] = []  # noqa: RUF012  (a message is never changed)
    """The peer that dials each of the listening sockets that are one peer's own; some of `peers`."""
    node_bytes: bytes = b""
    """First bytes of connections that are our node's."""


class Accepted(ControlMessage):
    """gateway -> I/O process on the link socket, or node process. Descriptors: [connection]. `preamble` has been read
    from it.

    In its place a connection of iris-mpc's protocol has its introduction; one of a peer's own port has nothing, and one
    for the node neither.
    """

    preamble: bytes
    address: str


class Refused(ControlMessage):
    """gateway -> supervisor: totals of connections that were closed because they could not be routed.

    supervisor -> opener: the same, of all gateways since the start.
    """

    unknown: int
    """Well-formed, but routed to nobody here: another party's address, or another party's configuration."""
    garbage: int
    """The first bytes were not a preamble."""
    silent: int
    """No complete preamble in time."""
    crowded: int = 0
    """Made room for others before their time was up: there were too many at once, of one address or in all."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.unknown + self.garbage + self.silent + self.crowded

    def plus(self, other: Refused) -> Refused:
        """The totals of both."""
        return Refused(
            self.unknown + other.unknown,
            self.garbage + other.garbage,
            self.silent + other.silent,
            self.crowded + other.crowded,
        )


Message: TypeAlias = (
    Start
    | Close
    | Started
    | WorkerStarted
    | WorkerLost
    | ListenFailed
    | Stopped
    | LinkProgress
    | LinkFailed
    | LinkLost
    | LinkEnded
    | LinkNews
    | LinkClaimed
    | Lanes
    | Welcome
    | OpenLinks
    | DropWorker
    | RemakeLink
    | OpenBulk
    | BulkLane
    | BulkFailed
    | AreYouThere
    | Here
    | PublishStat
    | Serve
    | Accepted
    | Refused
    | StartHttp
    | HttpWorkerStarted
    | HttpFailed
    | ServeHttp
    | AnswerHttp
    | HttpLaneMade
    | HttpLaneLost
    | StartPairs
    | ListenPairs
    | AddPair
    | RunNode
    | NodeLane
    | NodeFailed
    | NodeLost
)

MESSAGE_TYPES: Final[dict[str, type[Any]]] = {message.__name__: message for message in typing.get_args(Message)}

_field_types: dict[type[Any], dict[str, Any]] = {}
_OPTIONS = (HttpOptions, IrisOptions, LinkOptions, NodeOptions, SocksOptions)
_RECORDS = (*MESSAGE_TYPES.values(), *_OPTIONS, LinkSecurity, PartySpec, PeerSpec)


def encode(message: Message) -> bytes:
    """The bytes of one message.

    Raises:
        CommandError: above MESSAGE_SIZE_MAX.
    """
    encoded = orjson.dumps({"type": type(message).__name__, **_plain(message)})
    if len(encoded) > MESSAGE_SIZE_MAX:
        raise CommandError(f"{type(message).__name__} of {len(encoded)} bytes, at most {MESSAGE_SIZE_MAX} are allowed")
    return encoded


def decode(data: bytes | bytearray | memoryview) -> Message:
    """The message in `data`.

    Raises:
        CommandError: unknown type, missing or extra fields, or a field of another type.
    """
    if len(data) > MESSAGE_SIZE_MAX:
        raise CommandError(f"{len(data)} bytes, at most {MESSAGE_SIZE_MAX} are allowed")
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise CommandError(f"{len(data)} bytes that are not JSON") from None
    if not isinstance(document, dict):
        raise CommandError("JSON that is not an object")
    message_type = MESSAGE_TYPES.get(str(document.pop("type", None)))
    if message_type is None:
        raise CommandError("unknown type")
    message: Message = _typed(message_type, document, message_type.__name__)
    return message


def _plain(value: Any) -> Any:
    """`value` as JSON can hold it: bytes as hex, messages and dataclasses as objects."""
    if (names := getattr(value, "__match_args__", None)) is not None:
        return {name: _plain(getattr(value, name)) for name in names}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _typed(kind: Any, value: Any, where: str) -> Any:
    """`value` as `kind`, or CommandError. `kind` is an annotation of this module; others are programmer errors."""
    if kind in (int, str, bool):
        if type(value) is not kind:
            raise CommandError(f"{where} is not {kind.__name__}")
        return value
    if kind is float:
        if type(value) not in (int, float):
            raise CommandError(f"{where} is not a number")
        return float(value)
    if kind is bytes:
        try:
            return bytes.fromhex(value)
        except (TypeError, ValueError):
            raise CommandError(f"{where} is not hexadecimal") from None
    if kind in _RECORDS:
        return _record(kind, value, where)
    return _container(kind, value, where)


def _container(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):  # only `X | None` occurs
        return None if value is None else _typed(arguments[0], value, where)
    if origin in (list, tuple):
        if not isinstance(value, list):
            raise CommandError(f"{where} is not a list")
        items = [_typed(arguments[0], item, where) for item in value]
        return tuple(items) if origin is tuple else items
    if origin is dict:
        if not isinstance(value, dict):
            raise CommandError(f"{where} is not an object")
        return {key: _typed(arguments[1], item, where) for key, item in value.items()}
    raise TypeError(f"{where} has the annotation {kind}, which control messages do not know")


def _record(kind: type[Any], value: Any, where: str) -> Any:
    annotations = _field_types.get(kind)
    if annotations is None:
        hints = typing.get_type_hints(kind)
        annotations = _field_types[kind] = {name: hints[name] for name in kind.__match_args__}
    if not isinstance(value, dict) or value.keys() != annotations.keys():
        raise CommandError(f"{where} does not have the fields {', '.join(annotations) or 'of an empty message'}")
    typed = {name: _typed(annotations[name], item, f"{where}.{name}") for name, item in value.items()}
    try:
        return kind(**typed)
    except ValueError as error:
        raise CommandError(f"{where}: {error}") from None
