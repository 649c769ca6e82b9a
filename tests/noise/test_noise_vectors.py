"""The published vectors of every protocol that we speak; vectors.json names their source and licence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from partywire.engine.noise import CIPHERS, HASHES, PATTERNS, HandshakeState, NoiseProtocol, PrivateKey, PublicKey, Turn
from partywire.engine.noise import cipher as cipher_module
from partywire.engine.noise.records import RecordOpener, RecordSealer
from tests.noise.noise_pair import open_all

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "vectors.json").read_text())["vectors"]


def make_end(vector: dict[str, Any], side: str) -> HandshakeState:
    remote = vector.get(f"{side}_remote_static")
    return HandshakeState(
        NoiseProtocol.parse(vector["protocol_name"]),
        side == "init",
        PrivateKey.from_bytes(bytes.fromhex(vector[f"{side}_static"])),
        prologue=bytes.fromhex(vector[f"{side}_prologue"]),
        remote_static=None if remote is None else PublicKey(bytes.fromhex(remote)),
    )


def play(vector: dict[str, Any]) -> None:
    """Both ends of the conversation, with every byte compared."""
    initiator, responder = make_end(vector, "init"), make_end(vector, "resp")
    ephemerals = [PrivateKey.from_bytes(bytes.fromhex(vector[f"{side}_ephemeral"])) for side in ("init", "resp")]
    messages = [(bytes.fromhex(m["payload"]), bytes.fromhex(m["ciphertext"])) for m in vector["messages"]]
    handshake_count = len(PATTERNS[initiator.protocol.pattern].messages)
    with mock.patch.object(PrivateKey, "generate", side_effect=ephemerals):
        for index, (payload, ciphertext) in enumerate(messages[:handshake_count]):
            writer, reader = (responder, initiator) if index % 2 else (initiator, responder)
            assert writer.write_message(payload) == ciphertext
            assert reader.read_message_untrusted(ciphertext) == payload
            if reader.turn is Turn.VERIFY:
                other = "resp" if index % 2 else "init"
                reader.verify_peer([PrivateKey.from_bytes(bytes.fromhex(vector[f"{other}_static"])).public])
    assert initiator.handshake_hash == responder.handshake_hash == bytes.fromhex(vector["handshake_hash"])
    ends = []
    for end in (initiator, responder):
        sending, receiving = end.split()
        ends.append((RecordSealer(sending), RecordOpener(receiving)))
    assert len(messages) > handshake_count + 1
    for index, (payload, ciphertext) in enumerate(messages[handshake_count:], handshake_count):
        sealed, _ = ends[index % 2][0].seal([payload])
        assert sealed[2:] == ciphertext
        assert open_all(ends[1 - index % 2][1], [bytes(sealed)]) == payload


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["protocol_name"])
def test_a_published_vector_is_met_byte_for_byte(vector: dict[str, Any]) -> None:
    play(vector)


def test_the_vectors_cover_every_protocol_that_we_speak() -> None:
    ours = {NoiseProtocol(p, c, h).name for p in PATTERNS for c in CIPHERS for h in HASHES}
    assert {vector["protocol_name"] for vector in VECTORS} == ours


@pytest.mark.parametrize("vector", VECTORS[:2] + VECTORS[-2:], ids=lambda vector: vector["protocol_name"])
def test_a_library_that_cannot_write_in_place_gives_the_same_bytes(
    vector: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_aead = cipher_module.make_aead
    wrapped = []

    def make_copying(cipher: str, key: bytes) -> cipher_module.Aead:
        aead = make_aead(cipher, key)
        assert isinstance(aead, AESGCM | ChaCha20Poly1305)
        wrapped.append(cipher_module.CopyingAead(aead))
        return wrapped[-1]

    monkeypatch.setattr(cipher_module, "make_aead", make_copying)
    play(vector)
    assert wrapped
