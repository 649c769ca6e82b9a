"""SOCKS5 as a client, without I/O: RFC 1928, user name and password of RFC 1929, and Tor's RESOLVE.

Between whoever dials and a proxy that may send anything. The one invariant: `result` is there only after the proxy has
said that the request succeeded, and `missing` never asks for a byte beyond its answer: what follows belongs to the
stream.

Driven by its owner: send `data_to_send()`, receive at most `missing` bytes, give them to `receive_data_untrusted`,
until `result` is there. With credentials both methods are offered, so a proxy that wants none serves us all the same.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Final

from .errors import (
    AddressNotSupported,
    SocksError,
    SocksMethodRefused,
    SocksPasswordRefused,
    SocksProtocolError,
    socks_reply_error,
)

VERSION: Final = 5
PASSWORD_VERSION: Final = 1
CREDENTIAL_SIZE_MAX: Final = 255
"""Bytes of a user name, and of a password: the field's length is one byte."""

_METHOD_NONE: Final = 0
_METHOD_PASSWORD: Final = 2
_METHOD_UNACCEPTABLE: Final = 0xFF
_IP4: Final = 1
_NAME: Final = 3
_IP6: Final = 4
_SIZES: Final = {_IP4: 4, _IP6: 16}


class SocksCommand(IntEnum):
    """What the proxy is asked for."""

    CONNECT = 0x01  # connect, and become the stream
    RESOLVE = 0xF0  # look a name up; Tor's own


@dataclass(frozen=True, slots=True)
class SocksCredentials:
    """A user name and its password, 1 to 255 bytes of UTF-8 each. To Tor they only say which streams may share a
    circuit."""

    username: str
    password: str = field(repr=False)

    def __post_init__(self) -> None:
        """Raises ValueError if one cannot be sent."""
        for name, text in (("user name", self.username), ("password", self.password)):
            if not 1 <= len(text.encode()) <= CREDENTIAL_SIZE_MAX:
                raise ValueError(f"the {name} for a SOCKS5 proxy must have 1 to {CREDENTIAL_SIZE_MAX} bytes")


class _State(Enum):
    METHOD = 1  # the method was offered
    PASSWORD = 2  # name and password were sent
    REPLY = 3  # the request was sent; version and code are to come
    KIND = 4  # the reserved byte, the kind of the bound address and its first byte
    BOUND = 5  # the rest of the bound address, and the port
    DONE = 6
    DEAD = 7


class SocksClient:
    """One request to a proxy. Driven by the bytes that the proxy sends."""

    def __init__(
        self, command: SocksCommand, host: str, port: int, credentials: SocksCredentials | None, proxy: str
    ) -> None:
        """`host` is a literal or a name. `proxy` is its address, for messages.

        Raises:
            AddressNotSupported: the host cannot be sent to a SOCKS5 proxy.
        """
        self._target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._proxy = proxy
        self._request = bytes((VERSION, command, 0)) + _encode_host(host) + port.to_bytes(2, "big")
        self._credentials = credentials
        self._methods = (_METHOD_NONE,) if credentials is None else (_METHOD_NONE, _METHOD_PASSWORD)
        self._state = _State.METHOD
        self._output = bytes((VERSION, len(self._methods), *self._methods))
        self._input = b""
        self._bound_kind = 0
        self.missing = 2
        """Bytes that are awaited, 0 when there is a result. No more than these may be received."""
        self.result: str | None = None
        """Set by success: the address that the proxy tells; that of the name after RESOLVE."""

    def data_to_send(self) -> bytes:
        """What is to be sent now; each byte once."""
        data, self._output = self._output, b""
        return data

    def receive_data_untrusted(self, data: bytes) -> None:
        """Take 1 to `missing` bytes of the proxy.

        Raises:
            SocksError: it refused, or they are not SOCKS5; nothing can be done with this object any more.
        """
        assert self._state not in (_State.DONE, _State.DEAD), "the exchange is over"
        assert 1 <= len(data) <= self.missing, "a byte beyond what was asked for belongs to the stream"
        self._input += data
        self.missing -= len(data)
        if self.missing:
            return
        taken, self._input = self._input, b""
        try:
            self._take(taken)
        except SocksError:
            self._state = _State.DEAD
            raise

    def receive_end_of_file(self) -> SocksProtocolError:
        """The error to raise when the proxy ends the stream before `result` is there."""
        self._state = _State.DEAD
        return SocksProtocolError(self._target, self._proxy, "it ended the connection before it had answered")

    def _take(self, data: bytes) -> None:
        match self._state:
            case _State.METHOD:
                self._take_method(data)
            case _State.PASSWORD:
                if data[0] != PASSWORD_VERSION:
                    raise self._broken(f"version {data[0]} of an answer to a password")
                if data[1] != 0:
                    raise SocksPasswordRefused(self._target, self._proxy, "it does not take the user name and password")
                self._ask()
            case _State.REPLY:
                self._check_version(data[0])
                if data[1] != 0:
                    raise socks_reply_error(self._target, self._proxy, data[1])
                self._state, self.missing = _State.KIND, 3
            case _State.KIND:
                self._take_kind(data)
            case _:
                self._take_bound(data)

    def _take_method(self, data: bytes) -> None:
        self._check_version(data[0])
        if data[1] == _METHOD_UNACCEPTABLE:
            wants = "it wants a user name and a password, or " if self._credentials is None else "it "
            raise SocksMethodRefused(self._target, self._proxy, f"{wants}does not serve us at all")
        if data[1] not in self._methods:
            raise SocksMethodRefused(self._target, self._proxy, f"it chose method {data[1]}, which was not offered")
        if data[1] == _METHOD_NONE or self._credentials is None:
            self._ask()
            return
        name, password = self._credentials.username.encode(), self._credentials.password.encode()
        self._output = bytes((PASSWORD_VERSION, len(name))) + name + bytes((len(password),)) + password
        self._state, self.missing = _State.PASSWORD, 2

    def _ask(self) -> None:
        self._output = self._request
        self._state, self.missing = _State.REPLY, 2

    def _take_kind(self, data: bytes) -> None:
        reserved, kind, first = data
        if reserved != 0:
            raise self._broken(f"a reserved byte of {reserved}")
        size = first + 1 if kind == _NAME else _SIZES.get(kind)
        if size is None:
            raise self._broken(f"an address of kind {kind}")
        self._bound_kind = kind
        self._input = data[2:]
        self._state, self.missing = _State.BOUND, size - 1 + 2

    def _take_bound(self, data: bytes) -> None:
        host = data[:-2]
        if self._bound_kind == _NAME:
            self.result = host[1:].decode("ascii", "replace")
        else:
            self.result = str(ipaddress.ip_address(host))
        self._state = _State.DONE

    def _check_version(self, version: int) -> None:
        if version != VERSION:
            raise self._broken(f"version {version}")

    def _broken(self, what: str) -> SocksProtocolError:
        return SocksProtocolError(self._target, self._proxy, f"it answered with {what}; is it a SOCKS5 proxy?")


def _encode_host(host: str) -> bytes:
    try:
        literal = ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        if "%" in host:
            raise AddressNotSupported(host, "the interface of a link-local address means nothing to a proxy")
        return bytes((_IP4 if literal.version == 4 else _IP6,)) + literal.packed
    try:
        name = host.encode("ascii") if host.isascii() else host.encode("idna")
    except UnicodeError:
        name = b""
    if not 1 <= len(name) <= 255:
        raise AddressNotSupported(host, "a SOCKS5 proxy takes names of 1 to 255 bytes")
    return bytes((_NAME, len(name))) + name
