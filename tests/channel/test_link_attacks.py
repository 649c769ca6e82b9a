"""Attacks on the connections of a link: by strangers, by who sits on the way, by a peer that is proven but hostile."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from partywire.engine import limits
from partywire.engine.channel.channel import encode_refusal
from partywire.engine.channel.credentials import read_file, tls_context, tls_pin
from partywire.engine.channel.errors import CredentialError
from partywire.engine.channel.maker import ChannelMaker
from partywire.engine.channel.tls import ANSWERS_SIZE_MAX, EMPTY_SIZE_MAX, TlsChannel
from partywire.engine.errors import HandshakeRejected, LinkProtocolError, RejectCode
from partywire.engine.exchange import receive_some
from partywire.engine.greeting import FAREWELL_SIZE_MAX, dismiss
from partywire.engine.handshake import Role
from partywire.engine.memory import MemoryStream, memory_pair
from partywire.engine.preamble import PREAMBLE_SIZE, SecurityMode
from partywire.engine.secure_stream import SecureStream
from partywire.engine.transport import Stream
from tests.support.certificates import issue, noise_links, tls_link
from tests.support.channels import carry, open_all, shake
from tests.support.link_rig import LinkRig

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from partywire.engine.channel.link_security import LinkSecurity
    from partywire.engine.transport import Buffer

Ends = tuple["LinkSecurity", "LinkSecurity"]


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Ends:
    """Alice, and bob, who dials."""
    folder = tmp_path_factory.mktemp("tls")
    ca = issue("ca", is_ca=True).write(folder, "ca")
    alice, bob = (tls_link(issue(name, ca).write(folder, name), ca=ca) for name in ("alice", "bob"))
    return alice, bob


def channels(tls: Ends) -> tuple[TlsChannel, TlsChannel]:
    """Bob's and alice's, whose handshake is done."""
    bob = TlsChannel(tls_context(tls[1], accepts=False), Role.INITIATOR, "alice", tls_pin(tls[1], "alice"))
    alice = TlsChannel(tls_context(tls[0], accepts=True), Role.RESPONDER, "bob", tls_pin(tls[0], "bob"))
    shake(bob, alice)
    return bob, alice


def lingers(stream: Stream) -> bool:
    return stream.is_lingering


class Flood(Stream):
    """The other end sends faster than we receive, for ever: there is always more."""

    peer_address = "flood:1"

    def __init__(self) -> None:
        self.received = 0
        self.is_closed = False

    def try_send(self, views: Sequence[Buffer]) -> int | None:
        return sum(map(len, views))

    def try_recv_into(self, view: memoryview) -> int | None:
        assert self.received < 100 << 20, "the event loop never had a turn"
        self.received += len(view)
        return len(view)

    def shutdown_write(self) -> None:
        pass

    def on_readable(self, callback: Callable[[], object] | None) -> None:
        pass

    def on_writable(self, callback: Callable[[], object] | None) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = True


def test_who_is_refused_and_floods_us_does_not_hold_up_the_event_loop() -> None:
    """Receiving what is always there never waits, so no deadline of the loop would end it."""
    stream = Flood()
    asyncio.run(dismiss(stream, b"no"))
    assert stream.is_closed
    assert stream.received <= FAREWELL_SIZE_MAX + 4096


class KeyUpdates:
    """What a TLS 1.3 client seals with the secret of its traffic: requests that both ends take new keys."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def _expand(self, label: bytes, size: int) -> bytes:
        label = b"tls13 " + label
        info = size.to_bytes(2, "big") + bytes((len(label),)) + label + b"\0"
        return HKDFExpand(hashes.SHA384(), size, info).derive(self._secret)

    def next(self) -> bytes:
        """One record, the first under its keys."""
        header = b"\x17\x03\x03" + (6 + 16).to_bytes(2, "big")
        message = b"\x18\0\0\x01\x01" + b"\x16"  # KeyUpdate, update_requested; a record of the handshake
        record = header + AESGCM(self._expand(b"key", 32)).encrypt(self._expand(b"iv", 12), message, header)
        self._secret = self._expand(b"traffic upd", 48)
        return record


def test_a_peer_that_takes_new_keys_without_end_cannot_fill_our_memory(tls: Ends, tmp_path: Path) -> None:
    """OpenSSL answers each time, into memory, and we may have nothing to send that would take the answers along."""
    keys = tmp_path / "keys"
    context = tls_context(tls[1], accepts=False)
    context.keylog_filename = str(keys)
    bob = TlsChannel(context, Role.INITIATOR, "alice", tls_pin(tls[1], "alice"))
    alice = TlsChannel(tls_context(tls[0], accepts=True), Role.RESPONDER, "bob", tls_pin(tls[0], "bob"))
    shake(bob, alice)
    updates = KeyUpdates(
        next(bytes.fromhex(line.split()[2]) for line in keys.read_text().splitlines() if "CLIENT_TRAFFIC" in line)
    )
    alice.feed(updates.next())
    assert open_all(alice) == b""
    assert carry(alice, bob, [b"with the answer"]) == b"with the answer"  # one is nothing bad

    def flood() -> None:
        for _ in range(2 * ANSWERS_SIZE_MAX // 27):
            alice.feed(updates.next())
            assert open_all(alice) == b""

    with pytest.raises(LinkProtocolError, match="new keys"):
        flood()


def test_a_peer_that_sends_tickets_without_end_does_not_keep_us_busy(tls: Ends) -> None:
    """They are of no use here, never asked for, and each costs a derivation of keys."""
    context = tls_context(tls[0], accepts=True)
    context.num_tickets = 2000  # as alice, who is proven, might choose
    bob = TlsChannel(tls_context(tls[1], accepts=False), Role.INITIATOR, "alice", tls_pin(tls[1], "alice"))
    alice = TlsChannel(context, Role.RESPONDER, "bob", tls_pin(tls[0], "bob"))
    alice.receive_data(bob.data_to_send())
    bob.receive_data(alice.data_to_send())
    alice.receive_data(bob.data_to_send())
    flood = alice.data_to_send()
    assert len(flood) > 2 * EMPTY_SIZE_MAX
    step = 1000

    def receive() -> None:
        for start in range(0, len(flood), step):
            bob.feed(flood[start : start + step])
            assert open_all(bob) == b""

    with pytest.raises(LinkProtocolError, match="hold nothing") as caught:
        receive()
    assert EMPTY_SIZE_MAX < int(str(caught.value.seen)) <= EMPTY_SIZE_MAX + step


def test_the_largest_records_byte_by_byte_are_no_such_flood(tls: Ends) -> None:
    bob, alice = channels(tls)
    data = os.urandom(5 * 16 * 1024)
    sealed = bytes(bob.seal([data], len(data))[0])
    opened = b""
    for start in range(0, len(sealed), 16):
        alice.feed(sealed[start : start + 16])
        opened += open_all(alice)
    assert opened == data


@pytest.mark.parametrize("code", RejectCode)
@pytest.mark.parametrize("kind", ["tls", "noise"])
def test_a_refusal_in_the_clear_is_final_only_for_what_can_be_known_in_the_clear(
    tls: Ends, tmp_path: Path, kind: str, code: RejectCode
) -> None:
    """Whoever can write to the first connection could else end the whole party by pretending that versions differ."""
    security = tls[1] if kind == "tls" else noise_links(tmp_path, SecurityMode.NOISE_XX_AES)[1]
    bob = ChannelMaker("bob", "alice", security).make(Role.INITIATOR, bytes(PREAMBLE_SIZE))
    is_known = code in (RejectCode.SECURITY, RejectCode.CREDENTIALS, RejectCode.BUSY)
    with pytest.raises(HandshakeRejected if is_known else LinkProtocolError) as caught:
        bob.receive_data(encode_refusal(code, "because"))
    assert isinstance(caught.value, HandshakeRejected) == is_known
    assert "because" in str(caught.value)
    assert code.name in str(caught.value)


def test_a_certificate_with_thousands_of_names_and_escapes_ends_in_one_short_sentence(
    tls: Ends, tmp_path: Path
) -> None:
    """It comes from our issuer, who may sign whatever it is asked to; the sentence goes to logs and other processes."""
    ca = issue("ca", is_ca=True).write(tmp_path, "ca")
    names = ["charlie\n\x1b[2Jbob", "x" * 5000, *(f"host{number}" for number in range(3000))]
    charlie = issue("charlie", ca, names=names).write(tmp_path, "charlie")
    bob, alice = tls_link(charlie, ca=ca), tls_link(issue("alice", ca).write(tmp_path, "alice"), ca=ca)
    dialler = TlsChannel(tls_context(bob, accepts=False), Role.INITIATOR, "alice", tls_pin(bob, "alice"))
    acceptor = TlsChannel(tls_context(alice, accepts=True), Role.RESPONDER, "bob", tls_pin(alice, "bob"))
    with pytest.raises(HandshakeRejected, match=r"belongs to charlie.* and 2998 more") as caught:
        shake(dialler, acceptor)
    assert len(caught.value.detail) < 400
    assert caught.value.detail.isprintable()


ALTERNATIVES = {
    "bytes that are no text": b"\x30\x09\x82\x03bob\x82\x02\xff\xfe",
    "an address that is none": b"\x30\x05\x87\x03\1\2\3",
    "a URI that is no text": b"\x30\x04\x86\x02\xff\xfe",
    "our peer's name and more": b"\x30\x0a\x82\x08bob\0evil",
    "a wildcard": b"\x30\x03\x82\x01*",
    "our peer's name as a URI": b"\x30\x05\x86\x03bob",
    "our peer's name as that of a mailbox": b"\x30\x05\x81\x03bob",
    "another case": b"\x30\x05\x82\x03Bob",
    "none": b"\x30\x00",
}


@pytest.mark.parametrize("kind", ALTERNATIVES)
def test_no_name_but_the_peers_own_is_accepted_and_a_broken_one_is_no_crash(kind: str, tmp_path: Path) -> None:
    """Whoever can have such a certificate signed is some party, and must not reach further than its own links. The
    common name of each is the peer's."""
    ca = issue("ca", is_ca=True).write(tmp_path, "ca")
    mallory = issue("bob", ca, raw_names=ALTERNATIVES[kind]).write(tmp_path, "mallory")
    bob, alice = tls_link(mallory, ca=ca), tls_link(issue("alice", ca).write(tmp_path, "alice"), ca=ca)
    dialler = TlsChannel(tls_context(bob, accepts=False), Role.INITIATOR, "alice", tls_pin(bob, "alice"))
    acceptor = TlsChannel(tls_context(alice, accepts=True), Role.RESPONDER, "bob", tls_pin(alice, "bob"))
    with pytest.raises(HandshakeRejected, match="belongs to"):
        shake(dialler, acceptor)
    assert acceptor.result is None


def test_a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "ca.crt"
    os.mkfifo(path)
    with pytest.raises(CredentialError, match="is not a file"):
        read_file(str(path))


def test_a_reader_that_had_no_room_is_called_again_though_the_socket_is_silent(tls: Ends) -> None:
    """As a pump whose ring was full when it looked, and had room when it asked to be told."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        below = memory_pair(loop, 1 << 16)
        bob, alice = (SecureStream(*ends, loop) for ends in zip(below, channels(tls), strict=True))
        assert bob.try_send([b"0123456789"]) == 10
        taken = bytearray()
        calls = 0
        done = asyncio.Event()

        def read() -> None:
            nonlocal calls
            calls += 1
            if calls in (2, 3):
                return  # no room
            room = memoryview(bytearray(4))
            taken.extend(room[: alice.try_recv_into(room) or 0])
            if len(taken) == 10:
                done.set()

        alice.on_readable(read)
        await asyncio.wait_for(done.wait(), 5)
        assert taken == b"0123456789"
        for stream in (bob, alice):
            stream.close()

    asyncio.run(scenario())


def test_the_end_reaches_the_peer_though_there_was_no_room_for_it_before_the_close(tls: Ends) -> None:
    """Else a link that is closed behind much data would look cut off, as if somebody had been at it."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        below = memory_pair(loop, 1000)
        bob, alice = (SecureStream(*ends, loop) for ends in zip(below, channels(tls), strict=True))
        size = 1000 - 22  # of one record, which leaves no room
        assert bob.try_send([bytes(size)]) == size
        bob.shutdown_write()
        bob.close()
        with pytest.raises(OSError, match="closed"):
            bob.try_recv_into(memoryview(bytearray(1)))
        assert lingers(bob)
        received = b""
        while data := await asyncio.wait_for(receive_some(alice), 5):
            received += data
        assert received == bytes(size)
        with pytest.raises(OSError, match="closed"):
            below[0].try_recv_into(memoryview(bytearray(1)))
        assert not lingers(bob)
        alice.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("how", ["time", "abort"])
def test_an_end_for_which_there_is_never_room_is_given_up(tls: Ends, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CLOSE_TIMEOUT_S", 0.05)

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        below = memory_pair(loop, 1000)
        bob, alice = (SecureStream(*ends, loop) for ends in zip(below, channels(tls), strict=True))
        assert bob.try_send([bytes(1000 - 22)])
        bob.shutdown_write()
        bob.close()
        bob.close()
        assert lingers(bob)
        if how == "abort":
            bob.abort()
        deadline = loop.time() + 5
        while lingers(bob):
            assert loop.time() < deadline
            await asyncio.sleep(0.01)
        assert await asyncio.wait_for(receive_some(alice), 5) == bytes(1000 - 22)
        with pytest.raises(OSError, match=r"cut off|reset"):
            await asyncio.wait_for(receive_some(alice), 5)
        alice.close()

    asyncio.run(scenario())


def test_a_link_is_over_only_when_closed_streams_have_told_the_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process may end behind that, and the end of the stream with it."""
    rig = LinkRig()
    try:
        rig.up()
        lingering = True
        monkeypatch.setattr(MemoryStream, "is_lingering", property(lambda stream: lingering))
        rig.alice.finish_all()
        rig.bob.finish_all()
        rig.wait(lambda: all(side.lanes[0].end for side in (rig.alice, rig.bob)), rig.read_both)
        rig.turns()
        assert rig.alice.ended is rig.bob.ended is None
        lingering = False
        rig.wait(lambda: rig.alice.ended and rig.bob.ended)
        for side in (rig.alice, rig.bob):
            assert side.ended is not None
            assert side.ended[0]  # clean
    finally:
        rig.close()
