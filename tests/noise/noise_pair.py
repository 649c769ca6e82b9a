"""Two ends of one Noise connection in one process."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from partywire.engine.noise import HandshakeState, NoiseProtocol, PrivateKey, RecordOpener, RecordSealer, Turn
from partywire.engine.noise.cipher import CipherState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ALICE = PrivateKey.from_bytes(bytes(range(1, 33)))
BOB = PrivateKey.from_bytes(bytes(range(101, 133)))
MALLORY = PrivateKey.from_bytes(bytes(range(201, 233)))

XX = NoiseProtocol("XX", "ChaChaPoly", "BLAKE2s")
IX = NoiseProtocol("IX", "AESGCM", "SHA256")
KK = NoiseProtocol("KK", "ChaChaPoly", "SHA512")
PROTOCOLS = (XX, IX, KK)


@dataclass
class Ends:
    """A handshake of Alice, who is the initiator, with Bob."""

    protocol: NoiseProtocol
    prologue: bytes = b"the prologue"
    alice: HandshakeState = field(init=False)
    bob: HandshakeState = field(init=False)

    def __post_init__(self) -> None:
        knows = self.protocol.pattern == "KK"
        self.alice = HandshakeState(
            self.protocol, True, ALICE, prologue=self.prologue, remote_static=BOB.public if knows else None, peer="bob"
        )
        self.bob = HandshakeState(
            self.protocol, False, BOB, prologue=self.prologue, remote_static=ALICE.public if knows else None
        )

    def run(self, stages: int | None = None) -> Ends:
        """Carry messages until both may split, or only the first `stages` of them."""
        drive(self.alice, self.bob, stages)
        return self


def drive(initiator: HandshakeState, responder: HandshakeState, stages: int | None = None) -> None:
    """Carry messages, each end accepting Alice and Bob, until nobody is to write or after `stages` messages."""
    writer, reader = initiator, responder
    carried = 0
    while writer.turn is Turn.WRITE and carried != stages:
        reader.read_message_untrusted(writer.write_message())
        if reader.turn is Turn.VERIFY:
            reader.verify_peer({ALICE.public, BOB.public})
        writer, reader = reader, writer
        carried += 1


def record_pair(cipher: str = "AESGCM") -> tuple[RecordSealer, RecordOpener]:
    """Both ends of one direction, under a fixed key."""
    return RecordSealer(CipherState(cipher, bytes(32))), RecordOpener(CipherState(cipher, bytes(32)), "bob")


def records_of(sealed: bytes) -> list[bytes]:
    """A stream cut into its records."""
    found = []
    while sealed:
        size = 2 + int.from_bytes(sealed[:2])
        found.append(sealed[:size])
        sealed = sealed[size:]
    return found


def seal_all(sealer: RecordSealer, views: Sequence[bytes]) -> bytes:
    """Everything in `views`, in as many calls as it takes."""
    stream = bytearray()
    rest = b"".join(views)
    while rest:
        sealed, count = sealer.seal([rest])
        stream += sealed
        rest = rest[count:]
    return bytes(stream)


def open_all(opener: RecordOpener, slices: Iterable[bytes], room: int = 100_000) -> bytes:
    """Feed the slices and collect what comes out, until the last one or the end of the stream."""
    collected = bytearray()
    collect(opener, slices, collected, room)
    return bytes(collected)


def collect(opener: RecordOpener, slices: Iterable[bytes], collected: bytearray, room: int = 100_000) -> None:
    """As `open_all`, into a buffer that shows what had been delivered when an error came."""
    view = memoryview(bytearray(room))
    for piece in slices:
        opener.feed(piece)
        while opener.has_more:
            count = opener.open_into(view)
            assert count is not None
            collected += view[:count]
