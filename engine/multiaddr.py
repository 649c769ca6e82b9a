"""Multiaddresses: addresses that say themselves how they are to be reached, as text and as bytes. Without I/O.

    /ip4/10.0.0.1/tcp/7101   /dns6/bob.example/tcp/443/tls/ws   /unix/run/alice.sock   /memory/7   /onion3/<56>:7101

A Multiaddr is a sequence of parts, each a protocol and its value. The one invariant: text and bytes of every Multiaddr
that exists read back to an equal one, and nothing that some part forbids (a port above 65535, an onion address whose
checksum is wrong) is ever one. What a sequence of parts means is the business of who dials it.

Sources: the multiformats specification (github.com/multiformats/multiaddr) with its table of protocols; rend-spec-v3 of
Tor, 6, for onion3. As in the Go implementation the bytes of a unix path begin with its slash; without one they are read
all the same.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from .addresses import check_host, check_unix_path
from .errors import LinkProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Value: TypeAlias = str | int | None
Part: TypeAlias = tuple[str, Value]

PARTS_MAX: Final = 16
"""Parts of one address: more than any way of reaching somebody has."""

SIZE_MAX: Final = 1024
"""Bytes of one address, and characters of one."""

ONION3_VERSION: Final = 3

_ONION3_SIZE: Final = 35
_BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class _Protocol:
    """One row of the table. `size` None: the value has a length before it; 0: there is no value."""

    name: str
    code: int
    size: int | None
    parse: Callable[[str], Value]
    """The value of a text, or ValueError."""
    encode: Callable[[Value], bytes]
    decode: Callable[[bytes], str]
    """The text of bytes, which `parse` then reads; or ValueError."""


def _number(bits: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= 20 and int(text) < 1 << bits):
            raise ValueError(f"{text[:20]!r} is not a number below 2**{bits}")
        return int(text)

    return parse


def _number_bytes(size: int) -> Callable[[Value], bytes]:
    def encode(value: Value) -> bytes:
        assert isinstance(value, int)
        return value.to_bytes(size, "big")

    return encode


def _number_text(data: bytes) -> str:
    return str(int.from_bytes(data, "big"))


def _ip4(text: str) -> str:
    return str(ipaddress.IPv4Address(text))


def _ip6(text: str) -> str:
    if "%" in text:
        raise ValueError(f"{text[:40]!r} names an interface; that is a part of its own, /ip6zone")
    return str(ipaddress.IPv6Address(text))


def _ip_bytes(value: Value) -> bytes:
    assert isinstance(value, str)
    return ipaddress.ip_address(value).packed


def _ip_text(data: bytes) -> str:
    return str(ipaddress.ip_address(data))


def _name(text: str) -> str:
    check_host(text)
    return text


def _zone(text: str) -> str:
    if not 1 <= len(text) <= 15 or not text.isprintable() or any(character in " %/" for character in text):
        raise ValueError(f"{text[:20]!r} is not the name of an interface")
    return text


def _path(text: str) -> str:
    check_unix_path(text)
    return text


def _path_text(data: bytes) -> str:
    text = data.decode()
    return text if text.startswith("/") else "/" + text


def _text_bytes(value: Value) -> bytes:
    assert isinstance(value, str)
    return value.encode()


def _onion3(text: str) -> str:
    name, separator, port = text.partition(":")
    try:
        data = base64.b32decode(name.upper())
    except binascii.Error:
        data = b""
    if len(name) != 56 or len(data) != _ONION3_SIZE or not separator:
        raise ValueError(f"{text[:20]!r}... is not 56 letters and digits of an onion service, a colon and a port")
    key, checksum, version = data[:32], data[32:34], data[34]
    if version != ONION3_VERSION:
        raise ValueError(f"an onion service of version {version}, known is {ONION3_VERSION}")
    if hashlib.sha3_256(b".onion checksum" + key + bytes((version,))).digest()[:2] != checksum:
        raise ValueError(f"the checksum of {text[:20]!r}... is wrong; was it copied whole?")
    number = _number(16)(port)
    if not number:
        raise ValueError("port 0 of an onion service")
    return f"{name.lower()}:{number}"


def _onion3_bytes(value: Value) -> bytes:
    assert isinstance(value, str)
    name, _, port = value.partition(":")
    return base64.b32decode(name.upper()) + int(port).to_bytes(2, "big")


def _onion3_text(data: bytes) -> str:
    return f"{base64.b32encode(data[:_ONION3_SIZE]).decode().lower()}:{int.from_bytes(data[_ONION3_SIZE:], 'big')}"


def _p2p(text: str) -> str:
    _check_multihash(_from_base58(text))
    return text


def _p2p_bytes(value: Value) -> bytes:
    assert isinstance(value, str)
    return _from_base58(value)


def _check_multihash(data: bytes) -> None:
    try:
        _, at = _read_varint(data, 0)
        size, at = _read_varint(data, at)
    except ValueError:
        size = at = -1
    if size < 1 or len(data) - at != size:
        raise ValueError("the id of a peer is not a multihash")


def _from_base58(text: str) -> bytes:
    number = 0
    if not 1 <= len(text) <= 128:
        raise ValueError(f"an id of {len(text)} characters, at most 128 are possible")
    for character in text:
        digit = _BASE58.find(character)
        if digit < 0:
            raise ValueError(f"{character!r} is not a character of base58")
        number = number * 58 + digit
    zeros = len(text) - len(text.lstrip("1"))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")


def _to_base58(data: bytes) -> str:
    number = int.from_bytes(data, "big")
    digits = ""
    while number:
        number, digit = divmod(number, 58)
        digits = _BASE58[digit] + digits
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + digits


def _nothing(text: str) -> None:
    raise ValueError(f"a value, {text[:20]!r}, where none belongs")


def _no_bytes(_value: Value) -> bytes:
    return b""


def _of_text(name: str, code: int, parse: Callable[[str], str] = _name) -> _Protocol:
    return _Protocol(name, code, None, parse, _text_bytes, bytes.decode)


def _of_number(name: str, code: int, size: int) -> _Protocol:
    return _Protocol(name, code, size, _number(8 * size), _number_bytes(size), _number_text)


def _of_none(name: str, code: int) -> _Protocol:
    return _Protocol(name, code, 0, _nothing, _no_bytes, bytes.decode)


_TABLE: Final = (
    _Protocol("ip4", 0x04, 4, _ip4, _ip_bytes, _ip_text),
    _Protocol("ip6", 0x29, 16, _ip6, _ip_bytes, _ip_text),
    _of_text("ip6zone", 0x2A, _zone),
    _of_text("dns", 0x35),
    _of_text("dns4", 0x36),
    _of_text("dns6", 0x37),
    _of_number("tcp", 0x06, 2),
    _of_number("udp", 0x0111, 2),
    _of_none("utp", 0x012E),
    _Protocol("unix", 0x0190, None, _path, _text_bytes, _path_text),
    _Protocol("p2p", 0x01A5, None, _p2p, _p2p_bytes, _to_base58),
    _Protocol("onion3", 0x01BD, _ONION3_SIZE + 2, _onion3, _onion3_bytes, _onion3_text),
    _of_none("tls", 0x01C0),
    _of_none("ws", 0x01DD),
    _of_none("wss", 0x01DE),
    _of_number("memory", 0x0309, 8),
)
_BY_NAME: Final = {protocol.name: protocol for protocol in _TABLE}
_BY_CODE: Final = {protocol.code: protocol for protocol in _TABLE}


@dataclass(frozen=True, slots=True)
class Multiaddr:
    """An address. Made by `parse`, by `decode_untrusted`, or of parts that are checked all the same."""

    parts: tuple[Part, ...]

    def __init__(self, parts: Iterable[Part]) -> None:
        """`parts` are (protocol, value), with None for a protocol without one.

        Raises:
            ValueError: says what is wrong.
        """
        checked = tuple(_checked(name, value) for name, value in parts)
        if not 1 <= len(checked) <= PARTS_MAX:
            raise ValueError(f"{len(checked)} parts of a multiaddress, between 1 and {PARTS_MAX} are possible")
        object.__setattr__(self, "parts", checked)
        if any(name == "unix" for name, _ in checked[:-1]):
            raise ValueError("a unix path takes the rest of a multiaddress, so nothing can follow it")

    @classmethod
    def parse(cls, text: str) -> Multiaddr:
        """The address that a text stands for.

        Raises:
            ValueError: says what is wrong.
        """
        if len(text) > SIZE_MAX:
            raise ValueError(f"a multiaddress of {len(text)} characters, at most {SIZE_MAX} are possible")
        first, *words = text.split("/")
        if first or not words:
            raise ValueError(f"{text[:40]!r} is not a multiaddress, as in /ip4/10.0.0.1/tcp/7101")
        parts: list[Part] = []
        while words:
            name = words.pop(0)
            protocol = _BY_NAME.get(name)
            if protocol is None:
                raise ValueError(f"{name[:20]!r} is not a protocol of multiaddresses that is known here")
            if protocol.size == 0:
                parts.append((name, None))
            elif name == "unix":
                parts.append((name, protocol.parse("/" + "/".join(words))))
                words = []
            elif not words:
                raise ValueError(f"/{name} at the end of {text[:40]!r} has no value")
            else:
                parts.append((name, protocol.parse(words.pop(0))))
        return cls(parts)

    @classmethod
    def decode_untrusted(cls, data: bytes, peer: str = "") -> Multiaddr:
        """The address in bytes of a peer's.

        Raises:
            LinkProtocolError: these are none.
        """
        try:
            return cls._decode(data)
        except ValueError as error:
            raise LinkProtocolError(peer, "a multiaddress", str(error)) from None

    @classmethod
    def _decode(cls, data: bytes) -> Multiaddr:
        if len(data) > SIZE_MAX:
            raise ValueError(f"{len(data)} bytes, at most {SIZE_MAX} are possible")
        parts: list[Part] = []
        at = 0
        while at < len(data) and len(parts) <= PARTS_MAX:
            code, at = _read_varint(data, at)
            protocol = _BY_CODE.get(code)
            if protocol is None:
                raise ValueError(f"protocol {code:#x}, which is not known here")
            size = protocol.size
            if size is None:
                size, at = _read_varint(data, at)
            value = data[at : at + size]
            if len(value) != size:
                raise ValueError(f"{len(value)} bytes of a value that has {size}")
            parts.append((protocol.name, protocol.parse(protocol.decode(value)) if size else None))
            at += size
        return cls(parts)

    def encode(self) -> bytes:
        """The bytes."""
        encoded = bytearray()
        for name, value in self.parts:
            protocol = _BY_NAME[name]
            body = protocol.encode(value)
            encoded += _varint(protocol.code)
            if protocol.size is None:
                encoded += _varint(len(body))
            encoded += body
        return bytes(encoded)

    def __str__(self) -> str:
        text = ""
        for name, value in self.parts:
            text += f"/{name}"
            if value is not None:
                text += str(value) if name == "unix" else f"/{value}"
        return text

    @property
    def protocols(self) -> tuple[str, ...]:
        """Names of the parts, in order: how the address is to be reached."""
        return tuple(name for name, _ in self.parts)

    def value_of(self, protocol: str) -> Value:
        """Value of the first part of that protocol; None without one."""
        return next((value for name, value in self.parts if name == protocol), None)


def _checked(name: str, value: Value) -> Part:
    protocol = _BY_NAME.get(name)
    if protocol is None:
        raise ValueError(f"{name[:20]!r} is not a protocol of multiaddresses that is known here")
    if protocol.size == 0:
        if value is not None:
            _nothing(str(value))
        return name, None
    if value is None:
        raise ValueError(f"/{name} has no value")
    return name, protocol.parse(str(value))


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """(value, position behind it); the shortest form only, at most 28 bits."""
    value = 0
    for index in range(4):
        if at + index >= len(data):
            raise ValueError("an end in the middle of a number")
        byte = data[at + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            if index and not byte:
                raise ValueError("a number that could be shorter")
            return value, at + index + 1
    raise ValueError("a number above 2**28")
