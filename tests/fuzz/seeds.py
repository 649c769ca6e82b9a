"""Inputs to begin with: for each target what an honest peer, process or user would write, made by our own encoders."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from partywire.engine import commands, control, frames, http_records, records
from partywire.engine.channel.channel import encode_refusal
from partywire.engine.errors import RejectCode
from partywire.engine.handshake import Attach, Handshake, Role
from partywire.engine.handshake_messages import Hello, MessageType, encode_message
from partywire.engine.iris_handshake import dialling
from partywire.engine.iris_options import IrisOptions
from partywire.engine.limits import REASON_SIZE_MAX
from partywire.engine.noise import HandshakeState, NoiseProtocol, PrivateKey
from partywire.engine.pairing.meeting import Introduction
from partywire.engine.preamble import ConnectionClass, Preamble
from partywire.engine.probe import Probe
from partywire.engine.stat_page import Value, Words, encode_text
from partywire.engine.topology import PartySpec, PeerSpec, routing_tag
from partywire.shm.record import RECORD_HEADER
from partywire.workers import serve_words, value_codec, values
from partywire.workers.config import PartyConfig, write_config
from tests.fuzz import object_targets, peer_store_targets, peer_targets, substream_targets, transport_targets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CORPUS: Final = Path(__file__).parent / "corpus"
"""A folder for each target, with inputs that once broke it."""

IRIS: Final = IrisOptions()
WHOLE: Final = b"\0"
"""Before an input that targets cut: not at all."""


def _frames() -> Iterator[bytes]:
    stream = b""
    for value in (b"bytes", np.arange(5, dtype=np.uint32), values.Ring32(7), values.NetworkVec([values.Bit(1), b"x"])):
        descriptor, length, head, body = value_codec.encode(value)
        frame = frames.encode_frame(3, descriptor, head + bytes(body), length)
        stream += frame
        yield WHOLE + frame
    yield WHOLE + frames.encode_reset(1, frames.ResetCode.ABORTED, "why")
    yield WHOLE + frames.encode_job_end(1, 2, frames.JobStatus.DONE, "")
    yield WHOLE + frames.encode_goodbye("enough") + frames.encode_ping(7) + frames.encode_pong(7)
    yield WHOLE + frames.fragment_begin_header(1, frames.Descriptor.BYTES, 20, 10) + bytes(10)
    yield b"\x01" + stream
    yield b"\x07" + stream


def _values() -> Iterator[bytes]:
    for seed in list(_frames())[:4]:
        yield bytes((seed[5],)) + seed[10:]


def _preambles() -> Iterator[bytes]:
    for class_ in ConnectionClass:
        yield Preamble(class_, 3, routing_tag("alice", "bob")).encode()


def _handshakes() -> Iterator[bytes]:
    hello = Hello("bob", "alice", b"n" * 32, party_set=("alice", "bob"))
    core = Handshake(Role.INITIATOR, hello, b"preamble")
    yield WHOLE + core.data_to_send() + encode_message(MessageType.ACCEPT, bytes(32))
    yield b"\x05" + encode_refusal(RejectCode.BUSY, "later")
    yield WHOLE + encode_refusal(RejectCode.PARAMETERS, "x" * REASON_SIZE_MAX)


def _attaches() -> Iterator[bytes]:
    yield WHOLE + Attach(Role.INITIATOR, "bob", "alice", 1, b"s" * 32, 0).data_to_send()


def _probes() -> Iterator[bytes]:
    yield WHOLE + Probe(Role.INITIATOR, Hello("bob", "alice", b"n" * 32, party_set=("alice", "bob"))).data_to_send()


def _introductions() -> Iterator[bytes]:
    introduction = Introduction(bytes(range(16)), 4002, True)
    for type_ in (MessageType.INTRODUCE, MessageType.INTRODUCED):
        yield WHOLE + encode_message(type_, introduction.encode())


def _control() -> Iterator[bytes]:
    yield control.encode_control(control.Rendezvous(1, "barrier"))
    yield control.encode_control(control.Rendezvous(2, "x", {"a": [1, "b"]}))
    yield control.encode_control(control.Abort(3, "y"))
    yield control.encode_control(control.Resume(4, "life", (1, 2)))


def _commands() -> Iterator[bytes]:
    party = PartySpec("a", 0, (PeerSpec("a", 0, "::1", 1), PeerSpec("b", 1, "unix:/x", 0)))
    for message in (
        commands.Start(party, ("[::1]:1",)),
        commands.OpenLinks(party, [1], 2),
        commands.Accepted(bytes(32), "127.0.0.1:1"),
        commands.Refused(1, 2, 3, 4),
        commands.Close(),
        commands.LinkNews(1, "closed", "", "why"),
    ):
        yield commands.encode(message)


def _ring() -> Iterator[bytes]:
    for size in (0, 5, 100):
        total = -(-(RECORD_HEADER.size + size) // 32) * 32
        yield bytes((total // 32,)) + bytes(total)
    yield b"\x20" + bytes(1024)


def _http() -> Iterator[bytes]:
    yield WHOLE + b"GET /jobs?x=%20 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    yield b"\x03" + (
        b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}GET / HTTP/1.1\r\nHost: h\r\n\r\n"
    )
    yield WHOLE + (
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
        b"3;x=y\r\nabc\r\n0\r\nt: v\r\n\r\n"
    )


def _http_records() -> Iterator[bytes]:
    request = http_records.Request(1, b"GET", b"/", ((b"host", b"h"),), b"body")
    for kind, parts in http_records.request_records(request, 1024):
        yield WHOLE + bytes((kind,)) + b"".join(bytes(part) for part in parts)
    for kind, parts in http_records.answer_records(http_records.Answer(1, 200, ((b"a", b"b"),), b"body"), 1024):
        yield WHOLE + bytes((kind,)) + b"".join(bytes(part) for part in parts)


def _config() -> Iterator[bytes]:
    parties = {"alice": "127.0.0.1:7001", "bob": "[::1]:7002", "carl": "unix:/tmp/c"}
    yield write_config(PartyConfig(name="alice", parties=parties)).encode()
    full = PartyConfig(name="bob", parties=parties, workers=2, listen=["*:7"], insecure=True, parameters={"a": 1})
    yield write_config(full).encode()


def _noise() -> Iterator[bytes]:
    for index, (pattern, cipher) in enumerate((p, c) for p in ("XX", "IX") for c in ("ChaChaPoly", "AESGCM")):
        core = HandshakeState(
            NoiseProtocol(pattern, cipher, "BLAKE2s"), True, PrivateKey.from_bytes(bytes(range(33, 65))), peer="x"
        )
        yield bytes((index,)) + core.write_message(b"")


_MAKERS: Final[dict[str, Callable[[], Iterator[bytes]]]] = {
    "frames": _frames,
    "values": _values,
    "iris_frames": _frames,
    "iris_introduction": lambda: iter([bytes(4) + b"\0\0\0\x05alice", dialling("b", "a", 0, IRIS).data_to_send()]),
    "preamble": _preambles,
    "handshake": _handshakes,
    "attach": _attaches,
    "probe": _probes,
    "introduction": _introductions,
    "control": _control,
    "commands": _commands,
    "records": lambda: iter([records.encode_stream_end(records.StreamEnd(False, "why"))]),
    "ring": _ring,
    "http": _http,
    "http_records": _http_records,
    "stat_text": lambda: iter([encode_text([Value("link_up", (("peer", "b"),), 1)], [Words("link_state", (), "up")])]),
    "config": _config,
    "objects": object_targets.objects,
    "peer_claim": peer_targets.bodies,
    "identity_message": peer_targets.messages,
    "link_identity": peer_targets.link_messages,
    "liveness": peer_targets.echoes,
    "peer_record": peer_store_targets.records,
    "peer_ban": peer_store_targets.bans,
    "yamux": substream_targets.yamux,
    "negotiation": substream_targets.negotiations,
    "multiaddr": substream_targets.addresses,
    "multiaddr_text": substream_targets.address_texts,
    "message_frame": substream_targets.message_frames,
    "call_frame": substream_targets.call_frames,
    "bridge_head": substream_targets.bridge_heads,
    "node_config": substream_targets.node_configs,
    "object_tokens": object_targets.object_tokens,
    "format4": object_targets.format4,
    "socks": transport_targets.socks,
    "tor_lines": transport_targets.tor_lines,
    "websocket": transport_targets.websocket,
    "websocket_frames": transport_targets.websocket_frames,
    "websocket_answer": transport_targets.websocket_answer,
    "serve_order": lambda: iter([serve_words.encode(serve_words.Submit("0123456789abcdef", "sum", {"a": 1}))]),
    "noise_handshake": _noise,
    "noise_records": lambda: iter([WHOLE + b"\0\x14" + bytes(20) + b"\0\x11" + bytes(17)]),
    "clear_refusal": lambda: iter([WHOLE + encode_refusal(RejectCode.SECURITY, "tls here")]),
    "origin": lambda: iter([b"127.0.0.1:1", b"[fe80::1%eth0]:2", b"a unix socket"]),
}


@cache
def seeds_of(target: str) -> tuple[bytes, ...]:
    """What to begin with: honest inputs, and those that once broke the target."""
    found = sorted((CORPUS / target).glob("*")) if (CORPUS / target).is_dir() else []
    return (*_MAKERS[target](), *(path.read_bytes() for path in found))
