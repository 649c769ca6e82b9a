"""Links of pools with their real processes: how they come up, what they carry, how they end, and who stays out."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import time
from contextlib import suppress

import numpy
import pytest

from partywire.engine.errors import HandshakeRejected, RejectCode
from partywire.engine.handshake import Role
from partywire.engine.pairing.meeting import INTRODUCTION_TAG, Introduction, Meeting
from partywire.engine.preamble import ConnectionClass, Preamble, SecurityMode
from partywire.workers.errors import AddressUnavailable, MessageTooLarge, PeerClosed, PeerLost
from partywire.workers.pool.pairs import PairLinks
from tests.support.pool_links import Ear, Rig, engine_pid, run
from tests.support.reserved_ports import reserved_ports

MIB = 1 << 20


def introduce(port: int, ours: Introduction, mode: SecurityMode = SecurityMode.PLAINTEXT) -> Introduction | None:
    """Introduce ourselves to the pool at a port of this host, without any pool; None if nothing is answered."""
    meeting = Meeting(Role.INITIATOR, "the pool", ours)
    with socket.create_connection(("127.0.0.1", port), 10.0) as sock:
        preamble = Preamble(ConnectionClass.INTRODUCTION, 0, INTRODUCTION_TAG, mode).encode()
        sock.sendall(preamble + meeting.data_to_send())
        while meeting.result is None:
            if not (data := sock.recv(4096)):
                return None
            meeting.receive_data(data)
    return meeting.result


def test_messages_of_all_sizes_arrive_whole_and_in_order() -> None:
    async def scenario(rig: Rig) -> None:
        (_, bob), (_, alice) = await rig.linked(message_size_max=8 * MIB)
        sizes = [0, 1, 100, 70_000, 300_000, 5 * MIB]
        for number, size in enumerate(sizes):
            data = bytes([number]) * size
            half = memoryview(bytearray(data))[: size // 2]
            await bob.channel.send([half, data[size // 2 :]], size, is_raw=False)
            alice.channel.try_send([b"small", b"er"], 7)
            assert await alice.next() == data
            assert await bob.next() == b"smaller"
        await bob.channel.send([bytes(MIB)], MIB)
        assert type(await alice.next()) is bytearray
        await bob.channel.send([bytes(MIB)], MIB, is_raw=True)
        assert type(await alice.next()) is bytes
        assert not bob.channel.try_send([bytes(MIB)], MIB)
        with pytest.raises(MessageTooLarge):
            bob.channel.check_size(8 * MIB + 1)
        bob.channel.check_size(8 * MIB)

    run(scenario)


def test_a_peer_may_come_late_and_be_added_late_and_then_be_waited_for() -> None:
    async def scenario(rig: Rig) -> None:
        alice = rig.links()
        with reserved_ports(1) as (port,):
            bob = Ear(alice.add_peer("bob", "127.0.0.1", port, None))
            await bob.says("127.0.0.1", str(port), "connection refused")
            late = rig.links()
            late.listen("127.0.0.1", port)
            our_port = alice.listen("127.0.0.1", 0)
            await bob.says("was not added as a peer")
            ear = Ear(late.add_peer("alice", "127.0.0.1", our_port, None))
            await bob.opened()
            await ear.opened()
            await bob.send(b"hello")
            assert await ear.next() == b"hello"

    run(scenario)


def test_a_pool_that_does_not_listen_dials_whatever_the_ids_say() -> None:
    async def scenario(rig: Rig) -> None:
        alice, bob = rig.links(), rig.links()
        port = alice.listen("127.0.0.1", 0)
        ears = [
            Ear(alice.add_peer("bob", "127.0.0.1", 9, None)),  # where nobody listens
            Ear(bob.add_peer("alice", "127.0.0.1", port, None)),
        ]
        for ear in ears:
            await ear.opened()
        await ears[0].send(b"hello")
        assert await ears[1].next() == b"hello"

    run(scenario)


def test_an_address_in_use_is_told_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        links = PairLinks()
        try:
            with pytest.raises(AddressUnavailable, match="address already in use"):
                links.listen("127.0.0.1", taken.getsockname()[1])
            assert links.listen("127.0.0.1", 0)
            with pytest.raises(RuntimeError, match="listens already"):
                links.listen("127.0.0.1", 0)
        finally:
            links.kill()
        with pytest.raises(RuntimeError, match="closed"):
            links.add_peer("bob", "127.0.0.1", 1, None)


def test_what_cannot_be_a_peer_is_refused_before_anything_starts() -> None:
    links = PairLinks()
    refused: list[tuple[str | None, int | None, str]] = [
        ("127.0.0.1", 0, "port 0"),
        ("127.0.0.1", None, "port None"),
        ("no host", 1, "not a host name"),
        (None, None, "needs an address or a certificate"),
    ]
    for host, port, message in refused:
        with pytest.raises(ValueError, match=message):
            links.add_peer("bob", host, port, None)
    with pytest.raises(ValueError, match="missing: cert"):
        PairLinks("k", None, "c")
    assert links._engine is None
    try:
        links.add_peer("bob", "127.0.0.1", 1, None)
        with pytest.raises(ValueError, match="is a peer already"):
            links.add_peer("bob", "127.0.0.1", 2, None)
        with pytest.raises(ValueError, match="of bob"):
            links.add_peer("carl", "127.0.0.1", 1, None)
    finally:
        links.kill()


def test_plaintext_is_warned_of_once_if_a_peer_is_not_on_this_host(caplog: pytest.LogCaptureFixture) -> None:
    links = PairLinks()
    try:
        links.listen("0.0.0.0", 0)
        links.add_peer("bob", "localhost", 1, None)
        assert not caplog.messages
        links.add_peer("carl", "192.0.2.1", 1, None)
        links.add_peer("dave", "192.0.2.2", 1, None)
        assert [message for message in caplog.messages if "plaintext" in message and "192.0.2.1" in message]
        assert len(caplog.messages) == 1
    finally:
        links.kill()


def test_the_death_of_an_engine_is_told_at_both_ends_at_once() -> None:
    async def scenario(rig: Rig) -> None:
        (_, bob), (bob_links, ear) = await rig.linked()
        os.kill(engine_pid(bob_links), signal.SIGKILL)  # the peer's
        ours = await bob.ended(1.0)
        assert isinstance(ours, PeerLost)
        assert re.match(r"the link to bob was lost \(link epoch 1\): .*\bbob\b", str(ours))  # by the name that we gave
        assert not re.search("[0-9a-f]{32}", f"{ours} {ours.__cause__} {bob.channel.why_not_open}")
        theirs = await ear.ended(1.0)  # its own
        assert isinstance(theirs, PeerLost)
        assert "pair engine" in theirs.cause
        assert "pair engine" in ear.channel.why_not_open
        with pytest.raises(PeerLost):
            ear.channel.try_send([b"x"], 1)
        with pytest.raises(PeerLost):
            bob.channel.try_send([b"x"], 1)

    run(scenario)


def test_a_restarted_peer_is_known_again_and_old_lives_stay_over() -> None:
    async def scenario(rig: Rig) -> None:
        with reserved_ports(2) as ports:

            def start(ours: int, theirs: int) -> tuple[PairLinks, Ear]:
                links = rig.links()
                links.listen("127.0.0.1", ports[ours])
                return links, Ear(links.add_peer("peer", "127.0.0.1", ports[theirs], None))

            _, alice = start(0, 1)
            for life, is_clean in ((1, False), (2, True), (3, True)):
                links, bob = start(1, 0)
                await bob.opened()
                if life > 1:
                    await bob.send(b"from the new one")  # kept until the other end has renewed
                    assert not alice.messages
                    alice.channel.renew()
                await alice.opened(life)
                if life > 1:
                    assert await alice.next() == b"from the new one"
                await alice.send(b"hello")
                assert await bob.next() == b"hello"
                await bob.send(b"last words")
                if is_clean:
                    await links.close(5.0)
                    assert await alice.next() == b"last words"
                else:
                    assert await alice.next() == b"last words"
                    links.kill()
                assert isinstance(await alice.ended(), PeerClosed if is_clean else PeerLost)

    run(scenario)


def test_either_end_gives_a_life_up_and_the_next_one_begins_on_the_same_link() -> None:
    async def scenario(rig: Rig) -> None:
        (_, bob), (_, alice) = await rig.linked()
        for life, (one, other) in enumerate([(bob, alice), (alice, bob)], 2):
            one.channel.end("tired of it")
            assert isinstance(await one.ended(), PeerLost)
            theirs = await other.ended()
            assert isinstance(theirs, PeerLost)
            assert "tired of it" in theirs.cause
            assert not one.channel.is_open
            one.channel.renew()
            await one.opened(life)
            await one.send(b"early")
            other.channel.renew()
            await other.opened(life)
            assert await other.next() == b"early"

        sending = asyncio.ensure_future(bob.channel.send([bytearray(64 * MIB)], 64 * MIB))
        alice.channel.pause_reading()
        await asyncio.sleep(0)
        await bob.until(lambda: bob.channel._worker.stalled != [])  # type: ignore[attr-defined]
        sending.cancel()  # half way
        assert isinstance(await bob.ended(), PeerLost)
        alice.channel.resume_reading()
        assert "cancelled" in str(await alice.ended())

    run(scenario)


def test_a_paused_reader_holds_its_peer_back_and_still_hears_of_its_loss() -> None:
    async def scenario(rig: Rig) -> None:
        (_, bob), (_, alice) = await rig.linked()
        alice.channel.pause_reading()
        sent = 0

        async def send_all() -> None:
            nonlocal sent
            for _ in range(100):
                await bob.send(bytes(MIB))
                sent += 1

        sending = asyncio.ensure_future(send_all())
        await bob.until(lambda: bob.channel._worker.stalled != [])  # type: ignore[attr-defined]
        held = sent
        assert held < 60
        assert not alice.messages
        alice.channel.resume_reading()
        await sending
        for _ in range(100):
            assert len(await alice.next()) == MIB
        alice.channel.pause_reading()
        await bob.send(b"unread")
        bob.channel.end("gone")
        await bob.ended()
        os.kill(engine_pid(rig.made[0]), signal.SIGKILL)
        assert isinstance(await alice.ended(5.0), PeerLost)
        assert not alice.messages

    run(scenario)


def test_strangers_are_bounded_and_take_the_place_of_nobody() -> None:
    async def scenario(rig: Rig) -> None:
        (alice, bob), (bob_links, ear) = await rig.linked()
        ports = [next(iter(links._addresses))[1] for links in (bob_links, alice)]  # alice's and bob's
        crowd = [socket.create_connection(("127.0.0.1", ports[0])) for _ in range(100)]
        try:
            for number, sock in enumerate(crowd):
                with suppress(ConnectionError):  # it is refused already
                    sock.send([b"GET / HTTP/1.1\r\n\r\n", b"\x93PtyWire", os.urandom(64), b""][number % 4])
                    if number % 5 == 0:
                        sock.send(Preamble(ConnectionClass.INTRODUCTION, 0, INTRODUCTION_TAG).encode() + b"\x07\xff")
            # Who says to be bob, at bob's host and port, while bob is there.
            for _ in range(3):
                with pytest.raises(HandshakeRejected) as refused:
                    await asyncio.to_thread(introduce, ports[0], Introduction(os.urandom(16), ports[1], True))
                assert refused.value.code is RejectCode.BUSY
            with pytest.raises(HandshakeRejected, match="was not added as a peer") as unknown:
                await asyncio.to_thread(introduce, ports[0], Introduction(os.urandom(16), 9, True))
            assert unknown.value.code is RejectCode.UNKNOWN_PEER
            with pytest.raises(HandshakeRejected, match="no TLS"):
                await asyncio.to_thread(
                    introduce, ports[0], Introduction(os.urandom(16), ports[1], True), SecurityMode.TLS
                )
            await bob.send(b"still there")
            assert await ear.next() == b"still there"
            carl = rig.links()
            port = carl.listen("127.0.0.1", 0)
            late = Ear(alice.add_peer("carl", "127.0.0.1", port, None))
            Ear(carl.add_peer("alice", "127.0.0.1", ports[0], None))
            await late.opened()
        finally:
            for sock in crowd:
                sock.close()

    run(scenario)


def test_who_comes_in_the_place_of_a_silent_peer_is_let_in_once_it_has_shown_to_be_silent() -> None:
    async def scenario(rig: Rig) -> None:
        (alice, bob), (bob_links, _) = await rig.linked()
        our_port, port = (next(iter(links._addresses))[1] for links in (bob_links, alice))
        os.kill(engine_pid(bob_links), signal.SIGSTOP)
        newcomer = Introduction(os.urandom(16), port, True)
        with pytest.raises(HandshakeRejected) as refused:
            await asyncio.to_thread(introduce, our_port, newcomer)
        assert refused.value.code is RejectCode.BUSY
        while True:
            try:
                assert await asyncio.to_thread(introduce, our_port, newcomer)
                break
            except HandshakeRejected as error:
                assert error.code is RejectCode.BUSY  # noqa: PT017 - until it is not
        assert "was started anew" in str(await bob.ended())

    run(scenario)


def test_the_engine_ends_with_its_opener_and_goes_without_a_trace() -> None:
    read, write = os.pipe()
    opener = os.fork()
    if opener == 0:
        links = PairLinks()
        links.listen("127.0.0.1", 0)
        links.add_peer("bob", "127.0.0.1", 9, None)
        os.write(write, str(engine_pid(links)).encode())
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(opener, 0)
    engine = int(os.read(read, 20))
    os.close(read)
    os.close(write)
    deadline = time.monotonic() + 20.0
    while os.path.exists(f"/proc/{engine}") and "Z" not in _state_of(engine):
        assert time.monotonic() < deadline, "the engine outlives its opener"
        time.sleep(0.01)


def _state_of(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_a_pool_that_is_garbage_takes_its_engine_along() -> None:
    links = PairLinks()
    links.add_peer("bob", "127.0.0.1", 9, None)
    pid = engine_pid(links)
    for channel in links._channels.values():
        channel.close()
    del links, channel
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_pool_that_was_never_started_closes_all_the_same() -> None:
    async def main() -> None:
        links = PairLinks()
        links.listen("localhost", 0)
        links.add_peer("bob", "127.0.0.1", 9, None)
        await links.close(5.0)
        await links.close(5.0)
        links.kill()

    asyncio.run(main())
    asyncio.run(PairLinks().close(1.0))


def test_a_pool_is_ended_also_after_its_loop() -> None:
    async def main() -> None:
        links.start(asyncio.get_running_loop())

    links = PairLinks()
    links.add_peer("bob", "127.0.0.1", 9, None)
    asyncio.run(main())
    links.kill()


def test_a_message_that_no_pool_sends_ends_the_life_and_no_more() -> None:
    async def scenario(rig: Rig) -> None:
        (_, bob), (_, alice) = await rig.linked()
        session = bob.channel._session  # type: ignore[attr-defined]
        await session.send(1, numpy.arange(3))
        assert "no pool sends" in str(await alice.ended())
        assert "no pool sends" in str(await bob.ended())
        assert alice.channel._worker.inbox_size == 0  # type: ignore[attr-defined]
        for ear in (alice, bob):
            ear.channel.renew()
            await ear.opened(2)

    run(scenario)
