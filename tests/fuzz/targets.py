"""What is fuzzed: one function for each parser. It takes bytes, and returns unless its invariant is broken.

Every target's docstring is its invariant; the exceptions that it may swallow are those it names in its `except`. Any
other exception, also an AssertionError, is a finding. Where the way in which bytes are cut matters, the first byte of
the input says how (`_cut`).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import pytest

from partywire.engine import commands, control, frames, http_records, records
from partywire.engine.antechamber import origin_of
from partywire.engine.channel.channel import ClearRefusal
from partywire.engine.errors import FrameTooLarge, HandshakeRejected, LinkProtocolError, PartyWireError
from partywire.engine.frame_buffer import FrameBuffer
from partywire.engine.handshake import Attach, Conversation, Handshake, HandshakeState, Role
from partywire.engine.handshake_messages import Hello
from partywire.engine.http_connection import HttpConnection, Refused, RequestReceived
from partywire.engine.http_options import HttpOptions
from partywire.engine.iris_frame_buffer import IrisFrameBuffer
from partywire.engine.iris_handshake import Introducing
from partywire.engine.limits import FRAME_SIZE_MAX
from partywire.engine.noise import HandshakeState as NoiseHandshake
from partywire.engine.noise import NoiseProtocol, PrivateKey, RecordOpener, Turn
from partywire.engine.noise.cipher import CipherState
from partywire.engine.noise.errors import NoiseError
from partywire.engine.pairing.meeting import Introduction, Meeting, we_dial
from partywire.engine.preamble import PREAMBLE_SIZE, Preamble
from partywire.engine.probe import Probe
from partywire.engine.stat_page import StatPageError, decode_text
from partywire.shm import Bell, Doorbell, RingReader, Segment, ShmError, probe
from partywire.shm.counters import WORD_TAIL
from partywire.workers import serve_words, value_codec
from partywire.workers.config import parse_config, write_config
from partywire.workers.errors import ConfigError
from tests.fuzz.object_targets import fuzz_format4 as fuzz_format4
from tests.fuzz.object_targets import fuzz_object_tokens as fuzz_object_tokens
from tests.fuzz.object_targets import fuzz_objects as fuzz_objects
from tests.fuzz.peer_store_targets import fuzz_peer_ban as fuzz_peer_ban
from tests.fuzz.peer_store_targets import fuzz_peer_record as fuzz_peer_record
from tests.fuzz.peer_targets import fuzz_identity_message as fuzz_identity_message
from tests.fuzz.peer_targets import fuzz_link_identity as fuzz_link_identity
from tests.fuzz.peer_targets import fuzz_liveness as fuzz_liveness
from tests.fuzz.peer_targets import fuzz_peer_claim as fuzz_peer_claim
from tests.fuzz.substream_targets import fuzz_bridge_head as fuzz_bridge_head
from tests.fuzz.substream_targets import fuzz_call_frame as fuzz_call_frame
from tests.fuzz.substream_targets import fuzz_message_frame as fuzz_message_frame
from tests.fuzz.substream_targets import fuzz_multiaddr as fuzz_multiaddr
from tests.fuzz.substream_targets import fuzz_multiaddr_text as fuzz_multiaddr_text
from tests.fuzz.substream_targets import fuzz_negotiation as fuzz_negotiation
from tests.fuzz.substream_targets import fuzz_node_config as fuzz_node_config
from tests.fuzz.substream_targets import fuzz_yamux as fuzz_yamux
from tests.fuzz.transport_targets import fuzz_socks as fuzz_socks
from tests.fuzz.transport_targets import fuzz_tor_lines as fuzz_tor_lines
from tests.fuzz.transport_targets import fuzz_websocket as fuzz_websocket
from tests.fuzz.transport_targets import fuzz_websocket_answer as fuzz_websocket_answer
from tests.fuzz.transport_targets import fuzz_websocket_frames as fuzz_websocket_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FRAME_MAX: Final = 4096
RING_SIZE: Final = 1024
_FENCE: Final = probe()
_STATIC: Final = PrivateKey.from_bytes(bytes(range(1, 33)))
_PEER_STATIC: Final = PrivateKey.from_bytes(bytes(range(101, 133)))
_NOISE: Final = [
    NoiseProtocol(pattern, cipher, "BLAKE2s") for pattern in ("XX", "IX", "KK") for cipher in ("ChaChaPoly", "AESGCM")
]


def _cut(data: bytes) -> Iterator[bytes]:
    """What follows the first byte, whole or in slices of the size that it says."""
    rest = data[1:]
    size = data[0] or len(rest) if data else 1
    for start in range(0, len(rest), max(1, size)):
        yield rest[start : start + size]


def fuzz_frames(data: bytes) -> None:
    """Slices never give anything but frames or a LinkProtocolError, hold no more than a frame, and stay dead after it;
    the body of every frame that comes out is decoded or refused in the same way."""
    buffer = FrameBuffer(FRAME_MAX, "peer")
    out: list[tuple[int, int, int, bytes]] = []
    try:
        for part in _cut(data):
            out += [(*frame[:3], bytes(frame[3])) for frame in buffer.split(memoryview(part))]
            assert buffer.pending_size <= FRAME_MAX + 16
    except LinkProtocolError as error:
        with pytest.raises(LinkProtocolError) as again:
            buffer.split(memoryview(b"\0"))
        assert again.value.args == error.args  # noqa: PT017 - the first error is what is expected of the second
    for _, descriptor, length, body in out:
        _decode_frame(descriptor, length, body)


def _decode_frame(descriptor: int, length: int, body: bytes) -> None:
    try:
        match descriptor:
            case frames.Descriptor.RESET:
                frames.decode_reset_untrusted(body)
            case frames.Descriptor.JOB_END:
                frames.decode_job_end_untrusted(body)
            case frames.Descriptor.GOODBYE:
                assert frames.decode_goodbye_untrusted(body).isprintable()
            case frames.Descriptor.PING | frames.Descriptor.PONG:
                frames.decode_token_untrusted(body)
            case frames.Descriptor.CONTROL:
                control.decode_control_untrusted(body)
            case frames.Descriptor.FRAGMENT_BEGIN | frames.Descriptor.FRAGMENT:
                pass
            case _:
                value_codec.decode(descriptor, length, body, "peer")
    except LinkProtocolError:
        pass


def fuzz_values(data: bytes) -> None:
    """A body under any descriptor is a value or a LinkProtocolError."""
    if not data:
        return
    body = data[1:]
    try:
        descriptor = frames.Descriptor(data[0])
        if frames.body_size(descriptor, len(body)) != len(body):
            return  # the frame buffer gives no such pair
    except (ValueError, KeyError, LinkProtocolError):
        return
    _decode_frame(descriptor, len(body), body)


def fuzz_iris_frames(data: bytes) -> None:
    """As `frames`, in the dialect of the iris protocol."""
    buffer = IrisFrameBuffer(FRAME_SIZE_MAX, "peer")
    try:
        for part in _cut(data):
            buffer.split(memoryview(part))
    except LinkProtocolError:
        pass


def fuzz_iris_introduction(data: bytes) -> None:
    """Slices, none beyond what may be read, are an introduction, its beginning, or a LinkProtocolError."""
    core = Introducing()
    rest = data
    try:
        while rest:
            size = core.missing
            assert size > 0
            part, rest = rest[:size], rest[size:]
            core.receive_data(part)
            if core.result is not None:
                return
    except LinkProtocolError:
        pass


def fuzz_preamble(data: bytes) -> None:
    """32 bytes are a preamble that encodes to themselves, or are refused; fewer of them are never a preamble, and what
    is refused early is refused whole."""
    try:
        preamble = Preamble.decode_untrusted(data)
    except LinkProtocolError:
        return
    assert (preamble is None) == (len(data) < PREAMBLE_SIZE)
    if preamble is not None:
        assert preamble.encode() == data[:PREAMBLE_SIZE]
        for size in range(PREAMBLE_SIZE):
            assert Preamble.decode_untrusted(data[:size]) is None


def _hello(name: str, peer: str) -> Hello:
    return Hello(name, peer, bytes(32), party_set=("alice", "bob"))


def _converse(core: Conversation, data: bytes) -> None:
    said = 0
    try:
        for part in _cut(data):
            core.receive_data(part)
            said += len(core.data_to_send())
            if core.state is HandshakeState.DONE:
                return
        core.receive_eof()
    except (HandshakeRejected, LinkProtocolError):
        said += len(core.data_to_send())
        assert core.state is HandshakeState.FAILED
    assert said <= 16 * 1024


def fuzz_handshake(data: bytes) -> None:
    """Either role takes any bytes, and ends in DONE or FAILED or waits for more; it answers with little."""
    responder = Handshake(Role.RESPONDER, _hello("alice", "bob"), b"preamble")
    _converse(responder, data)
    initiator = Handshake(Role.INITIATOR, _hello("bob", "alice"), b"preamble")
    initiator.data_to_send()
    _converse(initiator, data)


def fuzz_attach(data: bytes) -> None:
    """As `handshake`. Nobody attaches who does not know the secret."""
    for role in Role:
        core = Attach(role, "alice", "bob", 1, os.urandom(32), 0)
        core.data_to_send()
        _converse(core, data)
        assert core.result is None


def fuzz_probe(data: bytes) -> None:
    """As `handshake`."""
    _converse(Probe(Role.RESPONDER, _hello("alice", "bob")), data)
    prober = Probe(Role.INITIATOR, _hello("bob", "alice"))
    prober.data_to_send()
    _converse(prober, data)


def fuzz_introduction(data: bytes) -> None:
    """As `handshake`. Who was heard can be heard again: what it said encodes to what was read."""
    ours = Introduction(bytes(16), 4001, True)
    for meeting in (Meeting(Role.RESPONDER, "peer", answer=lambda _: ours), Meeting(Role.INITIATOR, "peer", ours)):
        meeting.data_to_send()
        _converse(meeting, data)
        if meeting.result is not None:
            assert meeting.result.encode() in data[1:]
            assert we_dial(ours, meeting.result) is not we_dial(meeting.result, ours) or meeting.result.id == ours.id


def fuzz_control(data: bytes) -> None:
    """A control message decodes to one that encodes to an equal one, or is a LinkProtocolError."""
    try:
        message = control.decode_control_untrusted(data, "peer")
    except LinkProtocolError:
        return
    assert control.decode_control_untrusted(control.encode_control(message)) == message


def fuzz_commands(data: bytes) -> None:
    """A message on a control socket decodes to one that encodes to an equal one, or is a CommandError."""
    try:
        message = commands.decode(data)
    except commands.CommandError:
        return
    try:
        encoded = commands.encode(message)
    except commands.CommandError:
        return  # in its own words it is too long
    assert commands.decode(encoded) == message


def fuzz_records(data: bytes) -> None:
    """The end of a stream is one, or a PartyWireError or ValueError."""
    try:
        records.decode_stream_end(data)
    except (PartyWireError, ValueError):
        pass


def fuzz_ring(data: bytes) -> None:
    """Whatever a producer leaves in a ring and says of it, what the reader gives out lies in it; else a ShmError."""
    segment = Segment.create(RING_SIZE, ring_id=7)
    doorbell = Doorbell.create(_FENCE)
    bell = Bell.from_fds(*(os.dup(fd) for fd in doorbell.fds))
    reader = RingReader(segment, _FENCE, bell)
    try:
        content = data[1 : RING_SIZE + 1]
        memory = segment.data
        memory[: len(content)] = content
        memory = None  # type: ignore[assignment]
        segment.words[WORD_TAIL] = (data[0] if data else 0) * 32
        given = 0
        while found := reader.poll():
            given += sum(len(record.payload) for record in found)
            assert given <= RING_SIZE
            found.clear()
            reader.release_all()
    except ShmError:
        pass
    finally:
        reader.close()
        bell.close()
        doorbell.close()


def fuzz_http(data: bytes) -> None:
    """Bytes of a client are requests within the limits, or a refusal that has a status of an error."""
    options = HttpOptions(head_size_max=2048, body_size_max=4096)
    connection = HttpConnection(options)
    for part in _cut(data):
        connection.receive(part)
        for _ in range(4):
            event = connection.next_event()
            if isinstance(event, Refused):
                assert 400 <= event.status < 600
                assert connection.refuse(event.status, event.detail).startswith(b"HTTP/1.1 ")
                return
            if isinstance(event, RequestReceived):
                assert len(event.body) <= options.body_size_max
                connection.answer(200, (), b"ok", close=False)
            if event is None:
                break
        assert connection.body_size <= options.body_size_max


def fuzz_http_records(data: bytes) -> None:
    """Records of a ring between front and worker are requests and answers, or an HttpRecordError."""
    for assembler in (http_records.RequestAssembler(4096), http_records.AnswerAssembler(4096)):
        try:
            for part in _cut(data):
                assembler.take_untrusted(part[0] % 8, memoryview(part[1:]))
        except http_records.HttpRecordError:
            pass


def fuzz_stat_text(data: bytes) -> None:
    """The text of a stat page is names and words, or a StatPageError."""
    try:
        decode_text(data)
    except StatPageError:
        pass


def fuzz_config(data: bytes) -> None:
    """A file is a configuration that is written and read back equal, or a ConfigError that names what is wrong."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return  # told by load_config
    try:
        config = parse_config(text)
    except ConfigError as error:
        if not (error.problems and str(error)):
            raise AssertionError("a refusal without a reason") from error
        return
    assert parse_config(write_config(config)) == config


def fuzz_serve_order(data: bytes) -> None:
    """What the orderer of a service says is a message, or a LinkProtocolError."""
    try:
        serve_words.decode_untrusted(data, "peer")
    except (LinkProtocolError, FrameTooLarge):
        pass


def fuzz_noise_handshake(data: bytes) -> None:
    """No message that nobody made with a key is accepted beyond what the pattern says in the clear; a NoiseError."""
    protocol = _NOISE[(data[0] if data else 0) % len(_NOISE)]
    known = _PEER_STATIC.public if protocol.pattern == "KK" else None
    for is_initiator in (False, True):
        core = NoiseHandshake(protocol, is_initiator, _STATIC, remote_static=known, peer="peer")
        if core.turn is Turn.WRITE:
            core.write_message()
        try:
            core.read_message_untrusted(data[1:])
        except NoiseError:
            continue
        assert not is_initiator, "an answer was accepted that nobody could make"


def fuzz_noise_records(data: bytes) -> None:
    """Bytes that were not sealed are never opened: a NoiseError, or more bytes are awaited."""
    opener = RecordOpener(CipherState("AESGCM", bytes(32)), "peer")
    room = memoryview(bytearray(65_536))
    try:
        for part in _cut(data):
            opener.feed(part)
            while opener.has_more:
                assert not opener.open_into(room), "bytes came out of a record that nobody sealed"
        opener.receive_end_of_file()
    except NoiseError:
        pass


def fuzz_clear_refusal(data: bytes) -> None:
    """What may be the clear refusal of a secure link is one or none, or a HandshakeRejected or LinkProtocolError."""
    core = ClearRefusal("peer")
    try:
        for part in _cut(data):
            if not core.look_at(part):
                return
    except (HandshakeRejected, LinkProtocolError):
        pass


def fuzz_origin(data: bytes) -> None:
    """Any text has an origin."""
    origin_of(data.decode("latin-1"))


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    name.removeprefix("fuzz_"): function for name, function in list(globals().items()) if name.startswith("fuzz_")
}
