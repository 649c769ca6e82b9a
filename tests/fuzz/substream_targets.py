"""Fuzz targets of what travels on a connection of a node behind the identities, and of the texts that persons write for
one, beside those in targets.py."""

from __future__ import annotations

import math
import tomllib
from typing import TYPE_CHECKING, Final

import pytest

from partywire.engine import negotiation
from partywire.engine.errors import LinkProtocolError
from partywire.engine.messaging import wire as messages
from partywire.engine.multiaddr import SIZE_MAX, Multiaddr
from partywire.engine.negotiation import Answerer, NegotiationFailed, Proposer
from partywire.engine.rpc import wire as rpc
from partywire.engine.worker_bridge import heads
from partywire.engine.yamux.errors import SubstreamSessionOver
from partywire.engine.yamux.events import Offered
from partywire.engine.yamux.frames import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    HEADER_SIZE,
    PING,
    RST,
    SYN,
    WINDOW_SIZE,
    WINDOW_UPDATE,
    encode_header,
)
from partywire.engine.yamux.limits import YamuxLimits
from partywire.engine.yamux.session import YamuxSession
from partywire.workers.errors import ConfigError
from partywire.workers.node.config_file import read_node_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from partywire.engine.yamux.substream import Substream

LIMITS: Final = YamuxLimits(substreams_max=4, unaccepted_max=2, unanswered_max=2, growth_max=1000)
SAID: Final = b"what we say on a substream"
PROTOCOLS: Final = ("/app/1", "/app/2", "/app/\N{LATIN SMALL LETTER E WITH ACUTE}")
BODY_SIZE_MAX: Final = 200
LENGTH_SIZE: Final = 4


def _pieces(data: bytes) -> Iterator[bytes]:
    """What follows the first byte, in slices of the size that it says."""
    size = max(1, data[0]) if data else 1
    for start in range(1, len(data), size):
        yield data[start : start + size]


def fuzz_yamux(data: bytes) -> None:
    """Slices of a peer's, who has a substream of ours, are taken or end the session with a LinkProtocolError; what is
    held stays within windows and limits, and what is answered within what came."""
    session = YamuxSession(True, lambda: 0.0, "mallory", LIMITS)
    held: list[Substream] = [session.open()]
    held[0].write(SAID)
    said = len(b"".join(session.take_output()))
    try:
        for part in _pieces(data):
            for event in session.receive_untrusted(part):
                if isinstance(event, Offered):
                    held.append(event.substream)
                    said += 3 * HEADER_SIZE
                    if len(held) % 2:
                        event.substream.accept()
            for substream in held[::2]:
                if not substream.is_reset:
                    substream.read(7)
            assert session.substreams <= LIMITS.substreams_max + 1
            assert all(substream.readable <= WINDOW_SIZE for substream in held)
    except LinkProtocolError:
        with pytest.raises(SubstreamSessionOver):
            session.receive_untrusted(b"")
    except SubstreamSessionOver:
        assert session.cause
    assert len(b"".join(session.take_output(1 << 30))) <= said + len(data) + HEADER_SIZE


def fuzz_negotiation(data: bytes) -> None:
    """Slices, none beyond what may be read, are an agreement on something that was proposed and is served, its
    beginning, NegotiationFailed or LinkProtocolError, at either end. The first byte says at which."""
    if not data:
        return
    is_answerer = bool(data[0] & 1)
    core = Answerer(PROTOCOLS.__contains__) if is_answerer else Proposer(PROTOCOLS)
    rest = data[1:]
    said = len(core.take_output())
    try:
        while rest and core.missing:
            size = min(core.missing, (data[0] >> 1) or 1)
            part, rest = rest[:size], rest[size:]
            core.receive_untrusted(part)
            said += len(core.take_output())
    except (NegotiationFailed, LinkProtocolError):
        said += len(core.take_output())
    assert core.agreed is None or core.agreed in PROTOCOLS
    assert said <= negotiation.ROUNDS_MAX * (2 + max(len(one.encode()) for one in PROTOCOLS))


def fuzz_multiaddr(data: bytes) -> None:
    """Bytes are an address that encodes to bytes of the same address and is said by its text, or LinkProtocolError."""
    try:
        address = Multiaddr.decode_untrusted(data, "peer")
    except LinkProtocolError:
        return
    assert len(data) <= SIZE_MAX
    assert Multiaddr.decode_untrusted(address.encode()) == address
    assert Multiaddr.parse(str(address)) == address


def fuzz_multiaddr_text(data: bytes) -> None:
    """A text is an address that is read back from its bytes and its text, or ValueError."""
    try:
        address = Multiaddr.parse(data.decode("utf-8", "surrogateescape"))
    except ValueError:
        return
    assert Multiaddr.decode_untrusted(address.encode()) == address
    assert Multiaddr.parse(str(address)) == address


def fuzz_message_frame(data: bytes) -> None:
    """A length and what follows are a frame of messages that encodes to them again, or a LinkProtocolError."""
    if len(data) < LENGTH_SIZE:
        return
    length = int.from_bytes(data[:LENGTH_SIZE])
    try:
        messages.check_length_untrusted(length, BODY_SIZE_MAX, "peer")
        body = data[LENGTH_SIZE : LENGTH_SIZE + length]
        if len(body) < length:
            return
        frame = messages.decode_untrusted(body, "peer")
    except LinkProtocolError:
        return
    assert len(frame.body) <= BODY_SIZE_MAX
    assert b"".join(messages.encode(frame)) == data[: LENGTH_SIZE + length]


def fuzz_call_frame(data: bytes) -> None:
    """A length and what follows are a request and an answer that encode to them again, or a LinkProtocolError."""
    if len(data) < LENGTH_SIZE:
        return
    length = int.from_bytes(data[:LENGTH_SIZE])
    body = data[LENGTH_SIZE : LENGTH_SIZE + length]
    try:
        rpc.check_length_untrusted(length, BODY_SIZE_MAX, "peer")
    except LinkProtocolError:
        return
    if len(body) < length:
        return
    try:
        request = rpc.decode_request_untrusted(body, "peer")
    except LinkProtocolError:
        pass
    else:
        assert b"".join(rpc.encode_request(request)) == data[: LENGTH_SIZE + length]
    try:
        answer = rpc.decode_answer_untrusted(body, "peer")
    except LinkProtocolError:
        return
    if isinstance(answer, rpc.Item):
        assert b"".join(rpc.encode_item(answer)) == data[: LENGTH_SIZE + length]
    else:
        assert len(answer.message) <= rpc.MESSAGE_SIZE_MAX


def fuzz_bridge_head(data: bytes) -> None:
    """A body is a head that encodes to one that is equal, or a HeadError."""
    try:
        head = heads.decode_untrusted(data)
    except heads.HeadError:
        return
    assert heads.decode_untrusted(heads.encode(head)[heads.LENGTH_SIZE :]) == head


def fuzz_node_config(data: bytes) -> None:
    """A table [node] is a configuration with options that can be used, or a ConfigError that names what is wrong."""
    try:
        table = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        return
    try:
        config = read_node_table(table.get("node"))
    except ConfigError as error:
        if not (error.problems and str(error)):
            raise AssertionError("a refusal without a reason") from error
        return
    assert config.options.connections_max >= 1


# What honest peers and persons say.


def yamux() -> Iterator[bytes]:
    """An answer to our substream, substreams of the peer's, credit, a ping and a goodbye."""
    answer = encode_header(WINDOW_UPDATE, ACK, 1, 5)
    opening = encode_header(DATA, SYN, 2, 10) + bytes(10) + encode_header(DATA, FIN, 2, 3) + bytes(3)
    yield b"\xff" + answer + opening + encode_header(PING, SYN, 0, 7) + encode_header(GO_AWAY, 0, 0, 0)
    yield b"\x05" + answer + encode_header(DATA, 0, 1, 4) + b"data" + encode_header(WINDOW_UPDATE, FIN, 1, 0)
    yield b"\x40" + b"".join(encode_header(WINDOW_UPDATE, SYN, number, 0) for number in range(2, 16, 2))
    yield b"\xff" + answer + encode_header(WINDOW_UPDATE, RST, 1, 0) + encode_header(DATA, 0, 1, 9) + bytes(9)


def negotiations() -> Iterator[bytes]:
    """Proposals, and answers to ours."""
    yield b"\xff" + negotiation.encode(0, "/else/1") + negotiation.encode(0, PROTOCOLS[2])
    yield b"\x03" + negotiation.encode(negotiation.OPTIMISTIC | negotiation.TERMINATE, PROTOCOLS[0])
    yield b"\xfe" + negotiation.encode(negotiation.NOT_SUPPORTED) + negotiation.encode(0, PROTOCOLS[1])
    yield b"\x02" + negotiation.encode(negotiation.NOT_SUPPORTED | negotiation.TERMINATE)


ADDRESSES: Final = (
    "/ip4/10.0.0.1/tcp/7101",
    "/ip6zone/eth0/ip6/fe80::1/tcp/1",
    "/dns4/bob.example/tcp/443/tls/ws",
    "/unix/run/party.socket",
    "/memory/7",
    "/onion3/vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd:1234",
)


def addresses() -> Iterator[bytes]:
    """As bytes."""
    for text in ADDRESSES:
        yield Multiaddr.parse(text).encode()


def address_texts() -> Iterator[bytes]:
    """As persons write them."""
    for text in ADDRESSES:
        yield text.encode()


def message_frames() -> Iterator[bytes]:
    """A message and what is said to it."""
    yield b"".join(messages.encode(messages.Frame(messages.Kind.MESSAGE, bytes(16), b"hello")))
    yield b"".join(messages.encode(messages.Frame(messages.Kind.TAKEN, bytes(range(16)))))
    yield b"".join(messages.encode(messages.Frame(messages.Kind.REFUSED, bytes(range(16)))))


def call_frames() -> Iterator[bytes]:
    """A request and its answers."""
    yield b"".join(rpc.encode_request(rpc.Request(1, "method", 1000, b"payload")))
    yield b"".join(rpc.encode_item(rpc.Item(1, b"payload")))
    yield rpc.encode_end(rpc.End(1, rpc.RpcStatus.NOT_FOUND, "it is not there"))


def bridge_heads() -> Iterator[bytes]:
    """Of both ends."""
    note = heads.ConnectionNote(7, "dialled", "/ip4/127.0.0.1/tcp/7201", bytes(9))
    for head in (
        heads.Open(("/app/x/2", "/app/x/1"), "ab" * 13),
        heads.Ban("ab" * 13, "rude", math.inf),
        heads.Offer("/app/x/1", note, 5),
        heads.Failed("PeerNotReached", ("bob", 3, ("one", "two"))),
        heads.Standing((1, 2, 3), 4),
    ):
        yield heads.encode(head)[heads.LENGTH_SIZE :]


def node_configs() -> Iterator[bytes]:
    """A file with everything, and one with little."""
    yield b"""[node]
listen = ["/ip4/0.0.0.0/tcp/7300"]
advertise = "/dns4/alice.example/tcp/7300"
user_agent = "me"
features = 3
[node.peers]
ababababababababababababab = ["/dns4/bob.example/tcp/7300"]
[node.connections]
allowed = ["ababababababababababababab"]
dial_timeout_s = 1.5
[node.substreams]
keepalive_s = 20
[node.messages]
[node.rpc]
[node.socks]
address = "/ip4/127.0.0.1/tcp/9050"
[node.onion]
control = "/ip4/127.0.0.1/tcp/9051"
key_file = "onion.key"
port = 80
"""
    yield b'[node]\nlisten = "/memory/0"\n'
