"""Our Noise against flynn/noise in Go: every protocol that we speak, in both roles, and peers' connections on top."""

from __future__ import annotations

import asyncio
import random
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from partywire.engine.errors import HandshakeRejected
from partywire.engine.noise import (
    CIPHERS,
    HASHES,
    PATTERNS,
    HandshakeState,
    NoiseHandshakeFailed,
    NoiseProtocol,
    PrivateKey,
    RecordOpener,
    RecordSealer,
    Turn,
)
from partywire.engine.noise.records import REKEY_RECORDS
from partywire.engine.peers.errors import UpgradeFailed
from partywire.engine.peers.options import NOISE_PATTERNS, PeerOptions
from partywire.engine.peers.upgrade import read_first_byte, secure_accepted, secure_dialled
from tests.interop import go_peer
from tests.interop.substream_peers import DEADLINE_S, dial, dialled, echo_to, exchange, run, running
from tests.noise.noise_pair import open_all, seal_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from partywire.engine.transport import Stream

pytestmark = pytest.mark.interop

PROLOGUE = b"what both ends must agree on"
PROTOCOLS = [NoiseProtocol(p, c, h) for p in PATTERNS for c in CIPHERS for h in HASHES]
ROLES = ["initiator", "responder"]


@pytest.fixture(scope="module")
def go(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(__file__).parent
    made = tmp_path_factory.mktemp("go")
    return go_peer.build(folder / "noise_peer.go", made, "flynn/noise", folder / "noise_channel.go")


# The protocol itself.


class Talk(NamedTuple):
    """Ours, behind a handshake with the Go program, which has its key."""

    process: subprocess.Popen[bytes]
    handshake: HandshakeState
    payloads: list[bytes]
    ours: PrivateKey
    theirs: PrivateKey


def read_frame(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    frame = b""
    while len(frame) < 2 or len(frame) < 2 + int.from_bytes(frame[:2]):
        size = 2 if len(frame) < 2 else 2 + int.from_bytes(frame[:2])
        part = process.stdout.read(size - len(frame))
        if not part:
            raise EOFError
        frame += part
    return frame[2:]


@contextmanager
def talking(go: Path, protocol: NoiseProtocol, role: str, prologue: bytes = PROLOGUE) -> Iterator[Talk]:
    """A handshake in which we have `role`, with a payload in each of our messages."""
    ours, theirs = PrivateKey.generate(), PrivateKey.generate()
    is_known = protocol.pattern == "KK"
    other = ROLES[role == "initiator"]
    peer = str(ours.public) if is_known else "-"
    process = subprocess.Popen(
        [go, "talk", protocol.name, other, PROLOGUE.hex(), theirs.secret_bytes().hex(), peer],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
    )  # fmt: skip
    try:
        handshake = HandshakeState(
            protocol, role == "initiator", ours, prologue=prologue, remote_static=theirs.public if is_known else None
        )
        talk = Talk(process, handshake, [], ours, theirs)
        assert process.stdin is not None
        while handshake.turn is not Turn.SPLIT:
            if handshake.turn is Turn.WRITE:
                message = handshake.write_message(b"from us")
                process.stdin.write(len(message).to_bytes(2) + message)
            elif handshake.turn is Turn.READ:
                talk.payloads.append(handshake.read_message_untrusted(read_frame(process)))
            else:
                handshake.verify_peer([theirs.public])
        yield talk
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
def test_handshake_and_records_with_flynn_noise(go: Path, protocol: NoiseProtocol, role: str) -> None:
    chance = random.Random(protocol.name + role)
    sent = chance.randbytes(300_000)
    with talking(go, protocol, role) as talk:
        binding = talk.handshake.handshake_hash
        sending, receiving = talk.handshake.split()
        sealer, opener = RecordSealer(sending), RecordOpener(receiving)
        stream = seal_all(sealer, [sent[:1], sent[1:65_520], sent[65_520:]]) + sealer.seal_end()
        answer, said = talk.process.communicate(stream, DEADLINE_S)
        assert talk.process.returncode == 0, said
        cuts = sorted(chance.sample(range(len(answer)), 20))
        slices = [answer[start:end] for start, end in zip([0, *cuts], [*cuts, len(answer)], strict=True)]
        assert open_all(opener, slices) == sent
        assert opener.is_ended
        payloads = ",".join(["from us"] * (len(PATTERNS[protocol.pattern].messages) - len(talk.payloads)))
        assert said.decode() == f"{binding.hex()} {talk.ours.public} {payloads}\n"
        first = 1 if role == "responder" else 2
        assert talk.payloads == [b"from go %d" % (first + 2 * index) for index in range(len(talk.payloads))]


@pytest.mark.parametrize("cipher", CIPHERS)
def test_both_take_new_keys_at_the_same_record(go: Path, cipher: str) -> None:
    with talking(go, NoiseProtocol("XX", cipher, "BLAKE2s"), "initiator") as talk:
        sending, receiving = talk.handshake.split()
        sealer, opener = RecordSealer(sending), RecordOpener(receiving)
        stream = bytearray()
        for index in range(REKEY_RECORDS + 3):
            stream += sealer.seal([index.to_bytes(4)])[0]
        answer, said = talk.process.communicate(bytes(stream) + sealer.seal_end(), DEADLINE_S)
        assert talk.process.returncode == 0, said
        assert open_all(opener, [answer]) == b"".join(index.to_bytes(4) for index in range(REKEY_RECORDS + 3))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_another_prologue_ends_the_handshake(go: Path, pattern: str) -> None:
    protocol = NoiseProtocol(pattern, "ChaChaPoly", "SHA256")
    refused = EOFError if pattern == "KK" else NoiseHandshakeFailed  # the first message of KK is sealed
    with pytest.raises(refused), talking(go, protocol, "initiator", b"other"):
        pass
    try:
        with talking(go, protocol, "responder", b"other") as talk:  # the last message of IX is ours
            _, said = talk.process.communicate(timeout=DEADLINE_S)
            assert talk.process.returncode == 1
            assert said.startswith(b"error: ")
    except NoiseHandshakeFailed:
        assert pattern == "KK"
    except EOFError:
        assert pattern == "XX"


# A peer's connection: network byte, Noise, yamux.


def arguments_of(options: PeerOptions, key: PrivateKey, prologue: bytes = b"partywire peer 1") -> list[str]:
    network = bytes((options.network_byte,))
    return [options.noise.name, (prologue + network).hex(), key.secret_bytes().hex(), network.hex()]


@pytest.mark.parametrize("cipher", CIPHERS)
@pytest.mark.parametrize("pattern", NOISE_PATTERNS)
def test_substreams_with_a_go_peer_that_we_dial(go: Path, pattern: str, cipher: str) -> None:
    options = PeerOptions(network_byte=0x10, noise_pattern=pattern, noise_cipher=cipher)
    ours, theirs = PrivateKey.generate(), PrivateKey.generate()

    async def scenario() -> None:
        async with running(go, "serve", *arguments_of(options, theirs)) as process:
            secured, shown = await secure_dialled(await dial(process), "go", ours, options, theirs.public)
            assert shown == theirs.public
            connection = dialled(secured, "go")
            async with asyncio.TaskGroup() as group:
                for seed in range(5):
                    group.create_task(exchange(connection, seed))
            assert process.stdout is not None
            assert (await process.stdout.readline()).decode().strip() == str(ours.public)
            await connection.aclose()
            assert (await process.stdout.readline()).startswith(b"over:")

    run(scenario())


@pytest.mark.parametrize("cipher", CIPHERS)
@pytest.mark.parametrize("pattern", NOISE_PATTERNS)
def test_substreams_with_a_go_peer_that_dials_us(go: Path, pattern: str, cipher: str) -> None:
    options = PeerOptions(network_byte=0xC9, noise_pattern=pattern, noise_cipher=cipher)
    ours, theirs = PrivateKey.generate(), PrivateKey.generate()

    async def upgrade(stream: Stream) -> Stream:
        assert not await read_first_byte(stream, "go", options)
        secured, shown = await secure_accepted(stream, "go", ours, options)
        assert shown == theirs.public
        return secured

    async def scenario() -> None:
        command: list[str | Path] = [go, "dial", *arguments_of(options, theirs)]
        assert await echo_to("go", lambda port: [*command, str(port)], upgrade) == b"ok\n"

    run(scenario())


def test_a_go_peer_with_another_prologue_is_no_peer(go: Path) -> None:
    options = PeerOptions()

    async def scenario() -> None:
        arguments = arguments_of(options, PrivateKey.generate(), b"partywire peer 2")
        async with running(go, "serve", *arguments) as process:
            stream = await dial(process)
            with pytest.raises((UpgradeFailed, HandshakeRejected)):
                await secure_dialled(stream, "go", PrivateKey.generate(), options, None)

    run(scenario())
