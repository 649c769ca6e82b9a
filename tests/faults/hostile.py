"""Hundreds of hostile sockets at one party's address, held open and renewed by one thread.

Each kind is a script: what it says, and how it goes on. A socket that the party closes is dialled again at once, up to
a rate, so that the party has the whole horde at it all the time. Who attacks a secured link knows how it is secured,
has listened to one handshake of the real peer, and shakes hands as far as one gets without its key.
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from partywire.engine.channel.maker import ChannelMaker
from partywire.engine.errors import PartyWireError
from partywire.engine.handshake import Role
from partywire.engine.handshake_messages import Hello, MessageType, encode_message
from partywire.engine.preamble import PREAMBLE_SIZE, ConnectionClass, Preamble, SecurityMode
from partywire.engine.topology import routing_tag

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from partywire.engine.channel.channel import Channel
    from partywire.engine.channel.link_security import LinkSecurity

REDIALS_PER_S: Final = 2000
TICK_S: Final = 0.02


def _hello(name: str = "bob", party_set: tuple[str, ...] = ("alice", "bob")) -> bytes:
    body = Hello(name, "alice", os.urandom(32), party_set=party_set).encode()
    return encode_message(MessageType.HELLO, body)


_REPLAYED: Final = _hello()

_GREATEST_OF_TLS: Final = b"\x16\x03\x01\xff\xff\x01\xff\xff\xff"
"""The headers of a record and of the message in it. For Noise it is a message of 5,635 bytes."""

IMPOSTOR: Final = "whole handshake with another key"


@dataclass(frozen=True, slots=True)
class Secrets:
    """What those who attack a secured link have to do with it."""

    alice: LinkSecurity
    bob: LinkSecurity
    """The real ends: one handshake between them was listened to."""
    impostor: LinkSecurity
    """Of somebody who says to be bob and has another key."""

    def flight(self, preamble: bytes) -> list[bytes]:
        """What bob said in a handshake with alice, message by message."""
        bob = ChannelMaker("bob", "alice", self.bob).make(Role.INITIATOR, preamble)
        alice = ChannelMaker("alice", "bob", self.alice).make(Role.RESPONDER, preamble)
        said = []
        while message := bob.data_to_send():
            said.append(message)
            alice.receive_data(message)
            if bob.result is None:
                bob.receive_data(alice.data_to_send())
        assert alice.result is not None
        return said

    def impostors_channel(self, preamble: bytes) -> Channel:
        """A fresh handshake of the impostor."""
        return ChannelMaker("bob", "alice", self.impostor).make(Role.INITIATOR, preamble)


class Speech:
    """What each kind of hostile socket says at once. They know the names of both parties, with them the routing tag,
    and how the link is secured."""

    def __init__(self, mode: SecurityMode, secrets: Secrets | None = None) -> None:
        self._mode = mode
        self._secrets = secrets
        control = self.control = self._preamble(ConnectionClass.CONTROL)
        connection = self._preamble(ConnectionClass.NORMAL)
        question = self._preamble(ConnectionClass.PROBE)
        self.kinds: Final[dict[str, Callable[[], bytes]]] = {
            "silent": lambda: b"",
            "slow preamble": lambda: b"",  # a byte at a time
            "garbage": lambda: bytes((0xFF,)) + os.urandom(200),
            "HTTP": lambda: b"GET / HTTP/1.1\r\nHost: alice\r\n\r\n",
            "TLS": lambda: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(100),
            "unknown tag": lambda: self._preamble(ConnectionClass.CONTROL, tag=os.urandom(16)),
            "half handshake": lambda: control,
            "half TLS handshake": lambda: control + b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(100),
            "half Noise handshake": lambda: control + b"\x00\x20" + os.urandom(32),
            "handshake without its end": lambda: control + _hello(),
            "replayed handshake": lambda: control + _REPLAYED + encode_message(MessageType.ACCEPT, bytes(32)),
            "wrong identity": lambda: control + _hello("mallory", ()),
            "refusal": lambda: control + encode_message(MessageType.REJECT, b"\x05\x00no"),
            "greatest length": lambda: control + bytes((MessageType.HELLO,)) + b"\xff\xff" + bytes(4000),
            "silent connection": lambda: connection,
            "frame of 4 GiB": lambda: connection + b"\0\0\0\0\x01\xff\xff\xff\xff" + bytes(4000),
            "connection that does not exist": lambda: self._preamble(ConnectionClass.NORMAL, 65_535),
            "half probe": lambda: question,
            "nonsense in a probe": lambda: question + b"\x05\xff\xff" + bytes(100),
        }
        if secrets is not None:
            first, *others = secrets.flight(control)
            replayed = first + b"".join(others)
            self.kinds.update(
                {
                    "first message of a channel": lambda: control + first,
                    "half of a first message": lambda: control + first[: len(first) // 2],
                    "changed first message": lambda: control + first[:-20] + os.urandom(20),
                    "first message of a channel in a connection": lambda: connection + first,
                    "first message of a channel in a probe": lambda: question + first,
                    "greatest length in a channel": lambda: control + _GREATEST_OF_TLS + bytes(4000),
                    "replayed channel": lambda: control + replayed,
                    "replayed channel in a connection": lambda: connection + replayed,
                    IMPOSTOR: lambda: control,  # and goes on
                }
            )

    def channel(self, kind: str) -> Channel | None:
        """What goes on behind the first words of a kind, if anything does."""
        if kind != IMPOSTOR or self._secrets is None:
            return None
        return self._secrets.impostors_channel(self.control)

    def _preamble(self, class_: ConnectionClass, index: int = 0, tag: bytes | None = None) -> bytes:
        return Preamble(class_, index, tag or routing_tag("alice", "bob"), self._mode).encode()


class _Hostile:
    def __init__(self, kind: str, sock: socket.socket, channel: Channel | None) -> None:
        self.kind = kind
        self.channel = channel
        self.sock = sock
        self.is_connected = False
        self.passed = 0  # of a trickle


class Horde:
    """`count` sockets of all kinds at `address`, from `with` to its end."""

    def __init__(
        self,
        address: tuple[str, int],
        count: int = 500,
        kinds: tuple[str, ...] = (),
        mode: SecurityMode = SecurityMode.PLAINTEXT,
        secrets: Secrets | None = None,
    ) -> None:
        """`kinds`: all, or those. `secrets`: for a link with a channel."""
        self._speech = Speech(mode, secrets)
        self._address = address
        self._count = count
        self._kinds = deque(kinds or self._speech.kinds)
        self._selector = selectors.DefaultSelector()
        self._hostiles: set[_Hostile] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="horde", daemon=True)
        self.dialled = 0
        """Connections that were begun."""
        self.closed = 0
        """Of those, how many the party ended."""
        self.is_complete = threading.Event()
        """Set once all of them had been dialled."""

    def __enter__(self) -> Self:
        self._thread.start()
        if not self.is_complete.wait(30):
            self.__exit__(None, None, None)
            raise AssertionError(f"only {self.dialled} hostile sockets could be dialled")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(30)
        for hostile in self._hostiles:
            hostile.sock.close()
        self._selector.close()

    def _run(self) -> None:
        trickle_at = 0.0
        while not self._stop.is_set():
            started = time.monotonic()
            budget = int(REDIALS_PER_S * TICK_S)
            while len(self._hostiles) < self._count and budget:
                self._dial()
                budget -= 1
            if self.dialled >= self._count:
                self.is_complete.set()
            for key, events in self._selector.select(0):
                self._serve(key.data, events)
            if started >= trickle_at:
                trickle_at = started + 0.1
                for hostile in list(self._hostiles):
                    if hostile.kind == "slow preamble" and hostile.is_connected:
                        self._say(hostile, self._speech.control[hostile.passed : hostile.passed + 1])
                        hostile.passed = min(hostile.passed + 1, PREAMBLE_SIZE - 1)  # never whole
            self._stop.wait(max(0.0, started + TICK_S - time.monotonic()))

    def _dial(self) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(self._address)
        kind = self._kinds[0]
        self._kinds.rotate(-1)
        hostile = _Hostile(kind, sock, self._speech.channel(kind))
        self._hostiles.add(hostile)
        self._selector.register(sock, selectors.EVENT_WRITE, hostile)
        self.dialled += 1

    def _serve(self, hostile: _Hostile, events: int) -> None:
        if not hostile.is_connected:
            hostile.is_connected = True
            self._selector.modify(hostile.sock, selectors.EVENT_READ, hostile)
            if hostile.kind != "slow preamble":
                self._say(hostile, self._speech.kinds[hostile.kind]())
                self._shake(hostile, b"")
            return
        try:
            data = hostile.sock.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._shake(hostile, data)
        else:
            self._forget(hostile)

    def _shake(self, hostile: _Hostile, data: bytes) -> None:
        """Go on with the handshake of one that knows how."""
        channel = hostile.channel
        if channel is None or channel.result is not None:
            return
        try:
            if data:
                channel.receive_data(data)
        except PartyWireError:
            pass  # it is refused, and hears of the end in time
        self._say(hostile, channel.data_to_send())

    def _say(self, hostile: _Hostile, data: bytes) -> None:
        try:
            hostile.sock.send(data)
        except BlockingIOError:
            pass
        except OSError:
            self._forget(hostile)

    def _forget(self, hostile: _Hostile) -> None:
        if hostile in self._hostiles:
            self._hostiles.remove(hostile)
            self._selector.unregister(hostile.sock)
            hostile.sock.close()
            self.closed += 1
