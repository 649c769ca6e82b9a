"""PartyWire: a networking engine for secure multi-party computation.

One I/O process per peer link owns the no-delay sockets, compute processes run the protocol code, shared-memory rings
carry framed messages between them. These are the public names; each is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from partywire.engine.errors import (
        HandshakeRejected,
        LinkProtocolError,
        PartyWireError,
        SetupAborted,
        SetupMismatch,
    )
    from partywire.engine.peers.peer_id import PeerId
    from partywire.engine.rpc.service import RpcService
    from partywire.workers.batch import BatchRunner
    from partywire.workers.blocking_party import BlockingParty
    from partywire.workers.blocking_session import BlockingSession
    from partywire.workers.config import PartyConfig, load_config
    from partywire.workers.errors import (
        AddressUnavailable,
        ConfigError,
        ConnectFailed,
        InboxOverflow,
        JobFailed,
        MessageTooLarge,
        NoBulkConnection,
        NodeUnavailable,
        PartyFailed,
        PeerAborted,
        PeerClosed,
        PeerLost,
        RendezvousTimeout,
        SessionClosed,
        SessionDesync,
        SessionError,
        SessionTimeout,
        UnexpectedMessage,
        UnknownPeer,
        UnsupportedByPeer,
        WorkerDied,
    )
    from partywire.workers.http_handlers import Handlers, HttpError, HttpRequest, HttpResponse
    from partywire.workers.link_events import LinkEvent, LinkEventKind
    from partywire.workers.node.config import NodeConfig
    from partywire.workers.node.config_file import load_node_config
    from partywire.workers.node.peer_node import PeerNode
    from partywire.workers.objects.errors import (
        AnnotationError,
        ObjectDecodeError,
        ObjectEncodeError,
        PickleRefused,
        RepetitionError,
    )
    from partywire.workers.objects.limits import ObjectLimits
    from partywire.workers.objects.packing import pack_object, unpack_object
    from partywire.workers.objects.registry import ObjectRegistry
    from partywire.workers.objects.serialization import Serialization, SupportsSerialization
    from partywire.workers.party import Party
    from partywire.workers.pool.errors import (
        OutboxFull,
        PeerRefused,
        PoolClosed,
        PoolFailed,
        PoolInboxFull,
        ReceiveTimeout,
        SendTimeout,
    )
    from partywire.workers.pool.pool import Pool
    from partywire.workers.security import PeerSecurity, SecurityConfig
    from partywire.workers.session import Session
    from partywire.workers.values import (
        Bit,
        NetworkVec,
        PrfCheck,
        PrfKey,
        Ring16,
        Ring32,
        Ring48,
        Ring64,
        StateChecksum,
        VecBit,
        VecRing16,
        VecRing32,
        VecRing48,
        VecRing64,
    )

__all__ = [
    "Party",
    "BlockingParty",
    "Session",
    "BlockingSession",
    "BatchRunner",
    "Pool",
    "PartyConfig",
    "load_config",
    "SecurityConfig",
    "PeerSecurity",
    "LinkEvent",
    "LinkEventKind",
    "Handlers",
    "HttpError",
    "HttpRequest",
    "HttpResponse",
    "Bit",
    "Ring16",
    "Ring32",
    "Ring48",
    "Ring64",
    "VecBit",
    "VecRing16",
    "VecRing32",
    "VecRing48",
    "VecRing64",
    "NetworkVec",
    "PrfKey",
    "PrfCheck",
    "StateChecksum",
    "Serialization",
    "SupportsSerialization",
    "ObjectRegistry",
    "ObjectLimits",
    "pack_object",
    "unpack_object",
    "PartyWireError",
    "ConfigError",
    "AddressUnavailable",
    "NodeUnavailable",
    "ConnectFailed",
    "HandshakeRejected",
    "LinkProtocolError",
    "SetupMismatch",
    "SetupAborted",
    "PartyFailed",
    "WorkerDied",
    "SessionError",
    "PeerLost",
    "PeerClosed",
    "PeerAborted",
    "SessionTimeout",
    "SessionDesync",
    "SessionClosed",
    "InboxOverflow",
    "RendezvousTimeout",
    "MessageTooLarge",
    "UnexpectedMessage",
    "UnknownPeer",
    "UnsupportedByPeer",
    "NoBulkConnection",
    "ObjectEncodeError",
    "ObjectDecodeError",
    "PickleRefused",
    "AnnotationError",
    "RepetitionError",
    "JobFailed",
    "PoolClosed",
    "PeerRefused",
    "PoolFailed",
    "ReceiveTimeout",
    "SendTimeout",
    "PoolInboxFull",
    "OutboxFull",
    "PeerNode",
    "NodeConfig",
    "load_node_config",
    "PeerId",
    "RpcService",
]

_HOME = {
    "engine.errors": ("HandshakeRejected", "LinkProtocolError", "PartyWireError", "SetupAborted", "SetupMismatch"),
    "engine.peers.peer_id": ("PeerId",),
    "engine.rpc.service": ("RpcService",),
    "workers.batch": ("BatchRunner",),
    "workers.config": ("PartyConfig", "load_config"),
    "workers.http_handlers": ("Handlers", "HttpError", "HttpRequest", "HttpResponse"),
    "workers.link_events": ("LinkEvent", "LinkEventKind"),
    "workers.blocking_party": ("BlockingParty",),
    "workers.blocking_session": ("BlockingSession",),
    "workers.node.config": ("NodeConfig",),
    "workers.node.config_file": ("load_node_config",),
    "workers.node.peer_node": ("PeerNode",),
    "workers.objects.errors": (
        "AnnotationError", "ObjectDecodeError", "ObjectEncodeError", "PickleRefused", "RepetitionError",
    ),
    "workers.objects.limits": ("ObjectLimits",),
    "workers.objects.packing": ("pack_object", "unpack_object"),
    "workers.objects.registry": ("ObjectRegistry",),
    "workers.objects.serialization": ("Serialization", "SupportsSerialization"),
    "workers.party": ("Party",),
    "workers.pool.errors": (
        "OutboxFull", "PeerRefused", "PoolClosed", "PoolFailed", "PoolInboxFull", "ReceiveTimeout", "SendTimeout",
    ),
    "workers.pool.pool": ("Pool",),
    "workers.security": ("PeerSecurity", "SecurityConfig"),
    "workers.session": ("Session",),
    "workers.values": (
        "Bit", "NetworkVec", "PrfCheck", "PrfKey", "Ring16", "Ring32", "Ring48", "Ring64", "StateChecksum",
        "VecBit", "VecRing16", "VecRing32", "VecRing48", "VecRing64",
    ),
}  # fmt: skip


def __getattr__(name: str) -> object:
    """Load a public name on first use, so that importing the package costs neither numpy nor asyncio."""
    if name not in __all__:
        raise AttributeError(f"module 'partywire' has no attribute {name!r}")
    from importlib import import_module

    home = next((module for module, names in _HOME.items() if name in names), "workers.errors")
    value = getattr(import_module(f"partywire.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
