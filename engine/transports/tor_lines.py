"""The language of Tor's control port, without I/O: replies of many lines, events, quoting, proofs of the cookie.

Between the control client and bytes that may come from anything that listens there. The one invariant: what is kept of
an unfinished reply never exceeds REPLY_SIZE_MAX, and a reply comes out whole or not at all.

Source: the control-spec of Tor (spec.torproject.org), sections 2, 3.5, 3.21, 3.24, 3.27.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Final

from .errors import TorProtocolError

LINE_SIZE_MAX: Final = 16 * 1024
REPLY_SIZE_MAX: Final = 256 * 1024
"""Bytes of one reply; the longest that is asked for here, a list of onion services, has some KiB."""

COOKIE_SIZE: Final = 32
NONCE_SIZE: Final = 32

_SERVER_KEY: Final = b"Tor safe cookie authentication server-to-controller hash"
_CLIENT_KEY: Final = b"Tor safe cookie authentication controller-to-server hash"
_LINE: Final = re.compile(rb"([0-9]{3})([- +])(.*)", re.DOTALL)
_ESCAPE: Final = re.compile(r"\\([0-7]{1,3}|.)", re.DOTALL)
_NAMED: Final = {"n": "\n", "t": "\t", "r": "\r"}


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply, or an event: its code and the text of each line. The data behind a `+` line follows it, joined by
    newlines. Bytes are Latin-1 here, one character each."""

    code: int
    lines: tuple[str, ...]

    @property
    def is_event(self) -> bool:
        """Whether it came by itself."""
        return 600 <= self.code < 700


class ReplyLines:
    """Makes replies of what arrives. Driven by the bytes of Tor."""

    def __init__(self, address: str) -> None:
        """`address` is the control port's, for messages."""
        self._address = address
        self._buffer = bytearray()
        self._size = 0  # bytes of the reply that is not complete, its full lines only
        self._code = 0  # its code, 0 before its first line
        self._lines: list[str] = []
        self._data: list[str] | None = None  # the lines behind a `+` line, until the one with the dot alone
        self._error: str | None = None

    def receive_data_untrusted(self, data: bytes) -> list[Reply]:
        """The replies that these bytes complete.

        Raises:
            TorProtocolError: this is not the control protocol; the same again from then on.
        """
        if self._error is not None:
            raise TorProtocolError(self._address, self._error)
        self._buffer += data
        replies: list[Reply] = []
        start = 0
        try:
            while (end := self._buffer.find(b"\n", start)) >= 0:
                line = bytes(self._buffer[start:end])
                self._check_line(len(line))
                reply = self._take(line.removesuffix(b"\r"))
                start = end + 1
                if reply is not None:
                    replies.append(reply)
            del self._buffer[:start]
            self._check_line(len(self._buffer))
        except TorProtocolError as error:
            self._error = error.cause
            self._buffer.clear()
            self._lines.clear()
            raise
        return replies

    def _check_line(self, size: int) -> None:
        if size > LINE_SIZE_MAX:
            raise self._broken(f"a line of more than {LINE_SIZE_MAX} bytes")
        if self._size + size > REPLY_SIZE_MAX:
            raise self._broken(f"a reply of more than {REPLY_SIZE_MAX} bytes")

    def _take(self, line: bytes) -> Reply | None:
        self._size += len(line) + 1
        if self._data is not None:
            if line == b".":
                self._lines[-1] = "\n".join([self._lines[-1], *self._data])
                self._data = None
            else:
                self._data.append(line.removeprefix(b".").decode("latin-1"))
            return None
        match = _LINE.fullmatch(line)
        if match is None:
            raise self._broken("a line without a code")
        code, kind, text = int(match[1]), match[2], match[3].decode("latin-1")
        if self._code not in (0, code):
            raise self._broken(f"code {code} within a reply of code {self._code}")
        self._code = code
        self._lines.append(text)
        if kind == b"+":
            self._data = []
        if kind != b" ":
            return None
        reply = Reply(code, tuple(self._lines))
        self._code = self._size = 0
        self._lines = []
        return reply

    def _broken(self, what: str) -> TorProtocolError:
        return TorProtocolError(self._address, f"it sent {what}; is it a control port of Tor?")


def quote(text: str) -> str:
    """A text as a quoted string of a command, which is sent as UTF-8.

    Raises:
        ValueError: it has control characters, which would end the command, or is no text.
    """
    if any(character < " " or character == "\x7f" or "\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("control characters and surrogates cannot be sent to a control port")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def words_untrusted(line: str) -> dict[str, str]:
    """The NAME=VALUE words of a line, escapes in quoted values undone; of a name that occurs twice the first."""
    found: dict[str, str] = {}
    at = 0
    while at < len(line):
        space = line.find(" ", at)
        equals = line.find("=", at)
        if equals < 0:
            break
        if 0 <= space < equals:
            at = space + 1
            continue
        name = line[at:equals]
        value, at = _value(line, equals + 1)
        found.setdefault(name, value)
        at += 1
    return found


def _value(line: str, at: int) -> tuple[str, int]:
    """(value, position behind it); an unclosed quotation ends with the line."""
    if line[at : at + 1] != '"':
        end = line.find(" ", at)
        end = len(line) if end < 0 else end
        return line[at:end], end
    end = at + 1
    while end < len(line) and line[end] != '"':
        end += 2 if line[end] == "\\" else 1
    return _ESCAPE.sub(_unescaped, line[at + 1 : end]), end + 1


def _unescaped(match: re.Match[str]) -> str:
    escaped = match[1]
    if escaped[0] in "01234567":
        return chr(int(escaped, 8) & 0xFF)
    return _NAMED.get(escaped, escaped)


@dataclass(frozen=True, slots=True)
class ProtocolInfo:
    """What PROTOCOLINFO tells."""

    methods: frozenset[str]
    """NULL, COOKIE, SAFECOOKIE, HASHEDPASSWORD, those that are offered."""
    cookie_path: bytes | None


def protocol_info_untrusted(reply: Reply) -> ProtocolInfo:
    """The ways to be let in."""
    for line in reply.lines:
        if line.startswith("AUTH "):
            words = words_untrusted(line.removeprefix("AUTH "))
            path = words.get("COOKIEFILE")
            return ProtocolInfo(
                frozenset(words.get("METHODS", "").split(",")) - {""},
                path.encode("latin-1", "replace") if path else None,
            )
    return ProtocolInfo(frozenset(), None)


def proof_of_server(cookie: bytes, our_nonce: bytes, their_nonce: bytes) -> bytes:
    """What Tor must answer to AUTHCHALLENGE."""
    return hmac.digest(_SERVER_KEY, cookie + our_nonce + their_nonce, hashlib.sha256)


def proof_of_client(cookie: bytes, our_nonce: bytes, their_nonce: bytes) -> bytes:
    """What we authenticate with afterwards."""
    return hmac.digest(_CLIENT_KEY, cookie + our_nonce + their_nonce, hashlib.sha256)
