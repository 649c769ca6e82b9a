"""One socket's life as a table: `(state, event) -> state`, with the states that CCF gives a socket.

Between the process that owns the socket and nobody: no bytes pass here. The one invariant: a state changes only by
`ConnectionMachine.apply`, and an event that the table does not list for a state is our bug, named with both.

All transitions live in TRANSITIONS; the diagram in docs/wire.md is drawn from it.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from .errors import LocalProtocolError


class ConnectionState(Enum):
    """Where a socket stands."""

    FRESH = "fresh"  # nothing asked of it yet; also the return of a reconnect whose old handle is closed
    LISTENING_RESOLVING = "listening, resolving"  # the address to listen on is being looked up
    LISTENING = "listening"  # bound and listening; stays so until it is closed
    LISTENING_FAILED = "listening failed"  # no resolved address could be bound
    RESOLVING_FAILED = "resolving failed"  # the name could not be looked up
    BINDING = "binding"  # the local address for dialling is being looked up and bound
    BINDING_FAILED = "binding failed"  # the local address does not exist or is in use
    CONNECTING_RESOLVING = "connecting, resolving"  # looking up the peer, or between two of its addresses
    CONNECTING = "connecting"  # a non-blocking connect is under way
    CONNECTING_FAILED = "connecting failed"  # every address of the peer was tried
    CONNECTED = "connected"  # dialled or accepted; bytes may flow
    DISCONNECTED = "disconnected"  # end of file or an error ended it
    RECONNECTING = "reconnecting"  # the old handle is being closed to start afresh


class ConnectionEvent(Enum):
    """What happens to a socket: what its owner asks for, and what the kernel and the resolver report."""

    LISTEN_REQUESTED = "listen requested"
    BIND_REQUESTED = "bind requested"  # dial from a given local address
    CONNECT_REQUESTED = "connect requested"  # dial from any local address
    ACCEPTED = "accepted"  # the socket came out of a listener
    RESOLVE_FAILED = "resolve failed"
    LISTEN_SUCCEEDED = "listen succeeded"
    LISTEN_FAILED = "listen failed"
    BIND_SUCCEEDED = "bind succeeded"
    BIND_FAILED = "bind failed"
    ADDRESS_CHOSEN = "address chosen"  # the first, or the next, resolved address is being tried
    ADDRESS_FAILED = "address failed"  # it refused, or the attempt's deadline passed
    ADDRESSES_EXHAUSTED = "addresses exhausted"
    CONNECT_SUCCEEDED = "connect succeeded"
    CONNECTION_LOST = "connection lost"
    RECONNECT_REQUESTED = "reconnect requested"
    HANDLE_CLOSED = "handle closed"


_S = ConnectionState
_E = ConnectionEvent

TRANSITIONS: Final[dict[tuple[ConnectionState, ConnectionEvent], ConnectionState]] = {
    (_S.FRESH, _E.LISTEN_REQUESTED): _S.LISTENING_RESOLVING,
    (_S.FRESH, _E.BIND_REQUESTED): _S.BINDING,
    (_S.FRESH, _E.CONNECT_REQUESTED): _S.CONNECTING_RESOLVING,
    (_S.FRESH, _E.ACCEPTED): _S.CONNECTED,
    (_S.LISTENING_RESOLVING, _E.LISTEN_SUCCEEDED): _S.LISTENING,
    (_S.LISTENING_RESOLVING, _E.LISTEN_FAILED): _S.LISTENING_FAILED,
    (_S.LISTENING_RESOLVING, _E.RESOLVE_FAILED): _S.RESOLVING_FAILED,
    (_S.BINDING, _E.BIND_SUCCEEDED): _S.CONNECTING_RESOLVING,
    (_S.BINDING, _E.BIND_FAILED): _S.BINDING_FAILED,
    (_S.BINDING_FAILED, _E.RECONNECT_REQUESTED): _S.BINDING,
    (_S.CONNECTING_RESOLVING, _E.ADDRESS_CHOSEN): _S.CONNECTING,
    (_S.CONNECTING_RESOLVING, _E.ADDRESSES_EXHAUSTED): _S.CONNECTING_FAILED,
    (_S.CONNECTING_RESOLVING, _E.RESOLVE_FAILED): _S.RESOLVING_FAILED,
    (_S.CONNECTING, _E.CONNECT_SUCCEEDED): _S.CONNECTED,
    (_S.CONNECTING, _E.ADDRESS_FAILED): _S.CONNECTING_RESOLVING,
    (_S.CONNECTED, _E.CONNECTION_LOST): _S.DISCONNECTED,
    (_S.RESOLVING_FAILED, _E.RECONNECT_REQUESTED): _S.CONNECTING_RESOLVING,
    (_S.CONNECTING_FAILED, _E.RECONNECT_REQUESTED): _S.CONNECTING_RESOLVING,
    (_S.DISCONNECTED, _E.RECONNECT_REQUESTED): _S.RECONNECTING,
    (_S.RECONNECTING, _E.HANDLE_CLOSED): _S.FRESH,
}


class ConnectionMachine:
    """The state of one socket. Driven by its owner, who reports what the kernel said."""

    __slots__ = ("_name", "_state")

    def __init__(self, name: str = "connection") -> None:
        """`name` says which socket this is, for the error."""
        self._name = name
        self._state = ConnectionState.FRESH

    @property
    def state(self) -> ConnectionState:
        """Where the socket stands."""
        return self._state

    def apply(self, event: ConnectionEvent) -> ConnectionState:
        """Take an event and return the state that follows. The state stays as it was when this raises.

        Raises:
            LocalProtocolError: the table has no such transition.
        """
        following = TRANSITIONS.get((self._state, event))
        if following is None:
            raise LocalProtocolError(self._name, self._state.name, event.name)
        self._state = following
        return following
