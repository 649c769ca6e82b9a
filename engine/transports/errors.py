"""What can go wrong on the way to a stream, as types with fields; `__str__` makes the sentence.

    TransportError
    ├── AddressNotSupported        no transport here understands the address, or not for this use
    ├── DialFailed                 nobody could be reached at an address
    │   ├── DialTimeout            ... within the time that the caller gave
    │   ├── WebSocketFailed        ... because the opening handshake of the WebSocket, or its TLS, went wrong
    │   └── SocksError             ... because of the SOCKS5 proxy on the way
    │       ├── SocksUnreachable       nobody answers where it should be
    │       ├── SocksProtocolError     it does not speak SOCKS5
    │       ├── SocksMethodRefused     it wants to be authenticated to in a way that is not offered
    │       ├── SocksPasswordRefused   it does not take the user name and password
    │       └── SocksReplyError        it answered the request with a code: one class for each
    └── TorControlError            Tor's control port
        ├── TorControlLost             cannot be reached, ended, or said nothing in time
        ├── TorProtocolError           answered what the control protocol does not allow
        ├── TorAuthenticationFailed    does not let us in
        ├── TorCommandRefused          refused a command, with a code
        │   └── OnionCollision         ... because another control connection has the onion service
        └── OnionKeyError              the file with the key of the onion service cannot be used

A stream that breaks once it stands shows that as OSError, as every stream does (`transport`). All of these survive
pickling: `args` are the fields, in order. None holds a password, a cookie or a key.
"""

from __future__ import annotations

from typing import Final

from ..errors import PartyWireError


class TransportError(PartyWireError):
    """Root of what dialling and listening raise on purpose."""


class AddressNotSupported(TransportError):
    """Raised when no transport here can dial, or listen on, an address; nothing has been tried."""

    def __init__(self, address: str, why: str) -> None:
        super().__init__(address, why)
        self.address = address
        self.why = why

    def __str__(self) -> str:
        return f"{self.address} cannot be used: {self.why}"


class DialFailed(TransportError):
    """Raised when nobody could be reached at an address. Trying again later, or another address, may help."""

    def __init__(self, address: str, cause: str) -> None:
        super().__init__(address, cause)
        self.address = address
        self.cause = cause

    def __str__(self) -> str:
        return f"cannot reach {self.address}: {self.cause}"


class DialTimeout(DialFailed):
    """Raised when the time that the caller gave is over; `cause` says what was being waited for."""


class WebSocketFailed(DialFailed):
    """Raised when a WebSocket does not come to stand; `cause` says why: an HTTP status, TLS, bytes that are neither."""


# SOCKS5.


class SocksError(DialFailed):
    """Root of what a SOCKS5 proxy can do wrong or refuse. `address` is what was to be reached through it."""

    def __init__(self, address: str, proxy: str, cause: str) -> None:
        super().__init__(address, cause)
        self.args = (address, proxy, cause)
        self.proxy = proxy

    def __str__(self) -> str:
        return f"cannot reach {self.address} through the SOCKS5 proxy at {self.proxy}: {self.cause}"


class SocksUnreachable(SocksError):
    """Raised when the proxy itself cannot be reached."""


class SocksProtocolError(SocksError):
    """Raised when the proxy sends what SOCKS5 does not allow. Is it a SOCKS5 proxy at all?"""


class SocksMethodRefused(SocksError):
    """Raised when the proxy accepts no offered method of authentication, or chose one that was not offered."""


class SocksPasswordRefused(SocksError):
    """Raised when the proxy does not take the user name and password."""


class SocksReplyError(SocksError):
    """Raised when the proxy answers a request with a code that no class below stands for."""

    def __init__(self, address: str, proxy: str, code: int) -> None:
        super().__init__(address, proxy, f"it answered with {code:#04x}, {_REPLIES.get(code, 'an unknown code')}")
        self.args = (address, proxy, code)
        self.code = code


class SocksServerFailure(SocksReplyError):
    """Raised for 01: a general failure, also of a name that the proxy cannot look up."""


class SocksNotAllowed(SocksReplyError):
    """Raised for 02: the rules of the proxy do not allow it."""


class SocksNetworkUnreachable(SocksReplyError):
    """Raised for 03."""


class SocksHostUnreachable(SocksReplyError):
    """Raised for 04; of Tor also when it does not find an onion service."""


class SocksConnectionRefused(SocksReplyError):
    """Raised for 05: nobody listens there."""


class SocksTtlExpired(SocksReplyError):
    """Raised for 06; of Tor: it took too long."""


class SocksCommandNotSupported(SocksReplyError):
    """Raised for 07: a proxy other than Tor was asked to resolve a name, say."""


class SocksAddressNotSupported(SocksReplyError):
    """Raised for 08: the proxy does not take this kind of address."""


_REPLIES: Final = {
    0x01: "a general failure",
    0x02: "not allowed by its rules",
    0x03: "network unreachable",
    0x04: "host unreachable",
    0x05: "connection refused",
    0x06: "time to live expired",
    0x07: "command not supported; only Tor resolves names on its own",
    0x08: "this kind of address not supported",
    # Of Tor, to those whose SocksPort has ExtendedErrors.
    0xF0: "the descriptor of the onion service cannot be found",
    0xF1: "the descriptor of the onion service is invalid",
    0xF2: "the introduction to the onion service failed",
    0xF3: "the rendezvous with the onion service failed",
    0xF4: "the onion service wants its clients to be authorized",
    0xF5: "the authorization for the onion service is wrong",
    0xF6: "the onion address is invalid",
    0xF7: "the introduction to the onion service took too long",
}

_REPLY_ERRORS: Final[dict[int, type[SocksReplyError]]] = {
    0x01: SocksServerFailure,
    0x02: SocksNotAllowed,
    0x03: SocksNetworkUnreachable,
    0x04: SocksHostUnreachable,
    0x05: SocksConnectionRefused,
    0x06: SocksTtlExpired,
    0x07: SocksCommandNotSupported,
    0x08: SocksAddressNotSupported,
}


def socks_reply_error(address: str, proxy: str, code: int) -> SocksReplyError:
    """The error that stands for a reply code other than 0."""
    return _REPLY_ERRORS.get(code, SocksReplyError)(address, proxy, code)


# Tor's control port.


class TorControlError(TransportError):
    """Root of what can go wrong with Tor's control port at `address`."""

    def __init__(self, address: str, cause: str) -> None:
        super().__init__(address, cause)
        self.address = address
        self.cause = cause

    def __str__(self) -> str:
        return f"Tor's control port at {self.address}: {self.cause}"


class TorControlLost(TorControlError):
    """Raised when the control port cannot be reached, has ended the connection, or said nothing in time."""


class TorProtocolError(TorControlError):
    """Raised when what answers does not keep to the control protocol. Is it Tor?"""


class TorAuthenticationFailed(TorControlError):
    """Raised when Tor does not let us in, or did not prove that it knows the cookie; `cause` says what to set."""


class TorCommandRefused(TorControlError):
    """Raised when Tor answers a command with an error. `command` is its first word, never its arguments."""

    def __init__(self, address: str, command: str, code: int, text: str) -> None:
        super().__init__(address, f"{command} was answered with {code}{f' ({text})' if text else ''}")
        self.args = (address, command, code, text)
        self.command = command
        self.code = code
        self.text = text


class OnionCollision(TorCommandRefused):
    """Raised when Tor has an onion service of this key already, of another control connection that is open."""


class OnionKeyError(TorControlError):
    """Raised when the file with the key of an onion service cannot be read or written; `address` is its path."""

    def __str__(self) -> str:
        return f"the key of the onion service in {self.address}: {self.cause}"
