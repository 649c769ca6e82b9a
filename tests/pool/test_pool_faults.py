"""Each fault found in tno.mpc.communication, as something a Pool does not do; and what it does after a loss."""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import TYPE_CHECKING, Any

import pytest

from partywire.workers.errors import ConnectFailed, PeerClosed, PeerLost
from partywire.workers.objects.errors import ObjectDecodeError, ObjectEncodeError
from partywire.workers.objects.registry import ObjectRegistry
from partywire.workers.pool.errors import OutboxFull, PoolClosed, PoolInboxFull, ReceiveTimeout, SendTimeout
from partywire.workers.pool.memory_links import MemoryNetwork
from partywire.workers.pool.pool import Pool
from tests.pool.asyncio_run import run, turns

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20


class Pair:
    """Alice and Bob over links in memory, and what can happen to them."""

    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self.made: list[Pool] = []
        self.alice = self.start("alice", "bob")
        self.bob = self.start("bob", "alice")

    def start(self, name: str, *peers: str, **settings: Any) -> Pool:
        pool = Pool(links=self.network.links(name), **settings)
        for peer in peers:
            pool.add_client(peer)
        self.made.append(pool)
        return pool


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    try:
        yield pair
    finally:
        for pool in pair.made:
            pool.kill()


# Matching.


def test_messages_of_one_id_are_all_received_in_order(pair: Pair) -> None:
    async def main() -> None:
        for k in range(3):
            await pair.alice.send("bob", k, "id")
        assert [await pair.bob.recv("alice", "id") for _ in range(3)] == [0, 1, 2]

    run(main())


def test_none_arrives_before_and_after_it_is_asked_for(pair: Pair) -> None:
    async def main() -> None:
        await pair.alice.send("bob", None)
        assert await pair.bob.recv("alice", timeout=5) is None
        waiting = asyncio.create_task(pair.bob.recv("alice", timeout=5))
        await turns()
        await pair.alice.send("bob", None)
        assert await waiting is None

    run(main())


def test_two_receives_of_one_id_get_one_message_each_in_the_order_of_the_calls(pair: Pair) -> None:
    async def main() -> None:
        first, second = (asyncio.create_task(pair.bob.recv("alice", "id")) for _ in range(2))
        await turns()
        await pair.alice.send("bob", 1, "id")
        assert await first == 1
        assert not second.done()
        await pair.alice.send("bob", 2, "id")
        assert await second == 2

    run(main())


def test_a_timed_out_receive_loses_no_message_and_takes_no_id(pair: Pair) -> None:
    async def main() -> None:
        for msg_id in (None, "id"):
            with pytest.raises(TimeoutError):
                await pair.bob.recv("alice", msg_id, timeout=0.01)
            await pair.alice.send("bob", "late", msg_id)
            assert await pair.bob.recv("alice", msg_id, timeout=5) == "late"
        await pair.alice.send("bob", "next")
        assert await pair.bob.recv("alice", timeout=5) == "next"

    run(main())


def test_a_timeout_of_zero_takes_what_is_there(pair: Pair) -> None:
    async def main() -> None:
        await pair.bob.wait_connected()
        with pytest.raises(ReceiveTimeout, match=r"no message with the id 0 came from alice within 0 s$"):
            await pair.bob.recv("alice", timeout=0)
        pair.alice.asend("bob", "there")
        await turns()
        assert await pair.bob.recv("alice", timeout=0) == "there"

    run(main())


def test_a_cancelled_receive_loses_no_message_even_in_the_turn_in_which_it_came(pair: Pair) -> None:
    async def main() -> None:
        first = asyncio.create_task(pair.bob.recv("alice"))
        second = asyncio.create_task(pair.bob.recv("alice", "id"))
        await turns()
        first.cancel()
        await turns()
        await pair.alice.send("bob", "kept")
        inbox = pair.bob._peer("alice").inbox
        put = inbox.put

        def put_and_cancel(*arguments: Any) -> bool:
            was_waited_for = put(*arguments)
            second.cancel()  # it has its message and has not gone on
            return was_waited_for

        inbox.put = put_and_cancel  # type: ignore[assignment]
        await pair.alice.send("bob", "kept too", "id")
        with pytest.raises(asyncio.CancelledError):
            await second
        assert await pair.bob.recv("alice") == "kept"
        assert await pair.bob.recv("alice", "id") == "kept too"

    run(main())


def test_a_cancelled_future_of_arecv_loses_no_message(pair: Pair) -> None:
    async def main() -> None:
        future = pair.bob.arecv("alice")
        future.cancel()
        await turns()
        await pair.alice.send("bob", "kept")
        assert pair.bob.arecv("alice") == "kept"

    run(main())


# Sends that fail.


def test_a_failed_send_raises_and_takes_no_id(pair: Pair) -> None:
    async def main() -> None:
        with pytest.raises(ObjectEncodeError):
            await pair.alice.send("bob", object())
        with pytest.raises(ObjectEncodeError):
            pair.alice.asend("bob", [object()])
        with pytest.raises(TypeError):
            await pair.alice.send("bob", 1, ["not", "hashable"])  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="5000 bytes; 4096"):
            await pair.alice.send("bob", 1, "x" * 5000)
        await pair.alice.send("bob", "first")
        assert await pair.bob.recv("alice") == "first"

    run(main())


def test_a_call_with_a_timeout_that_is_no_number_does_nothing(pair: Pair) -> None:
    async def main() -> None:
        wrong: Any = "5 s"
        with pytest.raises((TypeError, ValueError)):
            await pair.bob.recv("alice", timeout=wrong)
        with pytest.raises((TypeError, ValueError)):
            await pair.bob.recv_all(timeout=wrong)
        with pytest.raises(ValueError, match="5 s"):
            await pair.alice.send("bob", 1, timeout=wrong)
        with pytest.raises(ValueError, match="5 s"):
            await pair.alice.broadcast(1, timeout=wrong)
        with pytest.raises(ValueError, match="5 s"):
            pair.alice.asend("bob", 1, timeout=wrong)
        with pytest.raises(ValueError, match="5 s"):
            pair.alice.async_broadcast(1, timeout=wrong)
        await pair.alice.send("bob", "kept")
        assert await pair.bob.recv("alice", timeout=5) == "kept"

    run(main())


@pytest.mark.parametrize(("name", "port"), [(5, 1), ("", 1), ("bob", "61002"), ("bob", True)])
def test_a_name_is_text_and_a_port_a_number(name: Any, port: Any) -> None:
    pool = Pool()
    with pytest.raises(ValueError, match=r"name of a peer|port of bob"):
        pool.add_client(name, "127.0.0.1", port)
    assert pool.peers == ()
    pool.kill()


def test_a_peer_that_never_comes_fails_sends_and_receives_with_its_name_and_the_reason() -> None:
    network = MemoryNetwork()
    alice = Pool(links=network.links("alice"), timeout=0.05)
    alice.add_client("bob")
    sentence = "could not connect within 0.05 s to bob: no pool bob of this process has added alice yet"

    async def main() -> None:
        with pytest.raises(ConnectFailed, match=sentence):
            await alice.send("bob", "lost")
        with pytest.raises(ConnectFailed, match=sentence):
            await alice.recv("bob")
        with pytest.raises(ConnectFailed, match=r"within 0\.01 s to bob"):
            await alice.send("bob", "lost", timeout=0.01)
        with pytest.raises(ReceiveTimeout, match="bob has not been met yet: no pool bob"):
            await alice.recv("bob", timeout=0.01)
        bob = Pool(links=network.links("bob"))
        bob.add_client("alice")
        await alice.send("bob", "here")
        assert await bob.recv("alice") == "here"
        await asyncio.gather(alice.shutdown(), bob.shutdown())

    run(main())


def test_a_late_peer_gets_everything_that_was_sent_in_order() -> None:
    network = MemoryNetwork()
    alice = Pool(links=network.links("alice"))
    alice.add_client("bob")

    async def main() -> None:
        array = bytearray(b"before")
        sendings = [alice.asend("bob", array), *(alice.asend("bob", k) for k in range(100))]
        array[:] = b"behind"
        waiting = asyncio.create_task(alice.send("bob", b"large" * 100_000))
        cancelled = asyncio.create_task(alice.send("bob", "never"))
        await turns()
        cancelled.cancel()
        await turns()
        bob = Pool(links=network.links("bob"))
        bob.add_client("alice")
        assert await bob.recv("alice") == bytearray(b"before")
        assert [await bob.recv("alice") for _ in range(100)] == list(range(100))
        assert await bob.recv("alice") == b"large" * 100_000
        await asyncio.gather(waiting, *sendings)
        await alice.send("bob", "next")
        assert await bob.recv("alice") == "next"
        await asyncio.gather(alice.shutdown(), bob.shutdown())

    run(main())


def test_max_retries_is_worth_a_second_each() -> None:
    assert Pool(timeout=300, max_retries=2)._shared.late_s == 2
    assert Pool(timeout=1, max_retries=2)._shared.late_s == 1
    assert Pool(timeout=None)._shared.late_s is None

    class ClientTimeout:
        total = 7

    assert Pool(timeout=ClientTimeout())._shared.late_s == 7


def test_the_error_of_an_asend_is_raised_by_the_next_call_or_by_shutdown(pair: Pair) -> None:
    async def main() -> None:
        await pair.alice.wait_connected()
        pair.alice.asend("bob", "lost")
        pair.network.cut("alice", "bob")
        await turns()
        with pytest.raises(PeerLost):
            pair.alice.asend("bob", "never sent")
        await pair.alice.shutdown()  # it was raised once

    run(main())


def test_a_killed_pool_says_nothing_of_what_it_was_sending(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        alice = Pool(links=MemoryNetwork().links("alice"))
        alice.add_client("bob")
        alice.asend("bob", 1)
        alice.kill()
        await turns()
        del alice
        gc.collect()  # asyncio tells of errors that nobody looked at when their futures go

    run(main())
    assert not caplog.messages


def test_shutdown_raises_the_error_of_an_asend_that_nobody_looked_at(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        network = MemoryNetwork()
        alice = Pool(links=network.links("alice"), timeout=0.01)
        alice.add_client("bob")
        looked_at = alice.asend("bob", 1)
        alice.asend("bob", 2)
        alice.asend("bob", 3)
        with pytest.raises(ConnectFailed):
            await looked_at
        with caplog.at_level(logging.WARNING, "partywire.pool"), pytest.raises(ConnectFailed):
            await alice.shutdown()
        assert caplog.text.count("another asend failed") == 1
        network.links("alice")  # it has ended all the same

    run(main())


def test_a_send_times_out_when_the_peer_does_not_take_it(pair: Pair) -> None:
    async def main() -> None:
        bob = pair.start("slow", "alice", inbox_mib=1)
        pair.alice.add_client("slow")
        await pair.alice.send("slow", b"x" * 2 * MIB)
        for _ in range(4):
            pair.alice.asend("slow", b"x" * 2 * MIB)
        with pytest.raises(SendTimeout, match=r"slow has not taken a message within 0\.02 s; it was not sent"):
            await pair.alice.send("slow", b"x" * 2 * MIB, timeout=0.02)
        for _ in range(5):
            assert len(await bob.recv("alice")) == 2 * MIB
        await pair.alice.send("slow", "next", timeout=5)
        assert await bob.recv("alice") == "next"

    run(main())


# Losses.


def test_a_lost_peer_ends_receives_and_sends_at_once_and_what_had_arrived_can_be_received(pair: Pair) -> None:
    async def main() -> None:
        await pair.alice.send("bob", "arrived")
        waiting = [asyncio.create_task(pair.bob.recv("alice", msg_id)) for msg_id in ("a", "b")]
        future = pair.bob.arecv("alice", "c")
        await turns()
        sending = asyncio.create_task(pair.alice.send("bob", "too late"))
        await asyncio.sleep(0)
        pair.network.kill("alice")
        for call in (*waiting, future):
            with pytest.raises(PeerLost, match="alice"):
                await call
        with pytest.raises(PeerLost, match="bob"):
            await sending
        assert await pair.bob.recv("alice", 0) == "arrived"
        for _ in range(2):
            with pytest.raises(PeerLost):
                await pair.bob.recv("alice")
            with pytest.raises(PeerLost):
                await pair.bob.send("alice", 1)

    run(main())


def test_a_peer_that_shuts_down_delivers_first_and_then_is_closed(pair: Pair) -> None:
    async def main() -> None:
        waiting = asyncio.create_task(pair.bob.recv("alice", "never"))
        pair.alice.asend("bob", "last words")
        await pair.alice.shutdown()
        with pytest.raises(PeerClosed, match="alice has closed"):
            await waiting
        assert await pair.bob.recv("alice", 0) == "last words"
        with pytest.raises(PeerClosed):
            await pair.bob.send("alice", 1)

    run(main())


def test_shutdown_ends_everything_that_waits(pair: Pair) -> None:
    async def main() -> None:
        receiving = asyncio.create_task(pair.alice.recv("bob"))
        future = pair.alice.arecv("bob", "id")
        await turns()
        await pair.alice.shutdown()
        with pytest.raises(PoolClosed, match="the pool was shut down"):
            await receiving
        with pytest.raises(PoolClosed):
            await future

    run(main())


def test_a_restarted_peer_is_met_again_by_reconnect_only_and_nothing_of_its_old_life_is_left(pair: Pair) -> None:
    async def main() -> None:
        await pair.alice.send("bob", "unread")
        await pair.alice.send("bob", "explicit", "id")
        pair.network.kill("alice")
        with pytest.raises(PeerLost):
            await pair.bob.recv("alice", "never")
        alice = pair.start("alice", "bob")
        sending = asyncio.create_task(alice.send("bob", "new life"))
        await turns()
        with pytest.raises(PeerLost):
            await pair.bob.recv("alice", 5)
        with pytest.raises(PeerLost):
            await pair.bob.send("alice", 5)
        await pair.bob.reconnect("alice")
        assert await pair.bob.recv("alice") == "new life"
        await sending
        await pair.bob.send("alice", "answer")
        assert await alice.recv("bob") == "answer"

    run(main())


def test_reconnect_after_a_cut_needs_both_ends_and_may_be_asked_again(pair: Pair) -> None:
    async def main() -> None:
        await pair.alice.send("bob", "before")
        pair.network.cut("alice", "bob")
        await turns()
        with pytest.raises(ConnectFailed):
            await pair.bob.reconnect("alice", timeout=0.01)
        again = asyncio.create_task(pair.bob.reconnect("alice"))
        await turns()
        assert not again.done()
        await pair.alice.reconnect("bob")
        await again
        await pair.alice.send("bob", "behind")
        assert await pair.bob.recv("alice") == "behind"

    run(main())


# Bounds.


def test_unread_messages_are_bounded_and_a_receive_behind_them_raises(pair: Pair) -> None:
    async def main() -> None:
        bob = pair.start("small", "alice", inbox_mib=1)
        pair.alice.add_client("small")
        waiting = asyncio.create_task(bob.recv("alice", "behind"))
        sendings = [pair.alice.asend("small", b"x" * MIB, "large") for _ in range(8)]
        last = pair.alice.asend("small", "here", "behind")
        sentence = "the message 'behind' of alice cannot arrive: [0-9]+ bytes that nobody has received"
        with pytest.raises(PoolInboxFull, match=sentence):
            await waiting
        with pytest.raises(PoolInboxFull):
            await bob.recv("alice", "behind")
        assert bob.stat().total.bytes_unread < 3 * MIB
        assert not last.done()
        for _ in sendings:
            assert len(await bob.recv("alice", "large")) == MIB
        assert await bob.recv("alice", "behind") == "here"
        await asyncio.gather(*sendings, last)

    run(main())


def test_what_waits_to_be_sent_is_bounded() -> None:
    network = MemoryNetwork()
    alice = Pool(links=network.links("alice"), outbox_mib=1)
    alice.add_client("bob")

    async def main() -> None:
        sending = alice.asend("bob", b"x" * (MIB - 10))
        with pytest.raises(OutboxFull, match="wait to be sent to bob"):
            alice.asend("bob", b"x" * 11)
        alice.asend("bob", b"x" * 10).cancel()
        sending.cancel()

    run(main())
    alice.kill()


# A peer that breaks the protocol, and classes.


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x" * 16,
        bytes(15),
        b"\x01" + bytes(15) + b"tail",  # an id of no bytes
        b"\x02" + bytes(7) + (99).to_bytes(8, "little"),  # acknowledges what was never sent
        b"\x02" + bytes(16),
        b"\x03\x00\x00\x00\x08\x00\x00\x00" + bytes(8 + 16) + b"behind",
        b"\x01\x01\x00\x00\x01\x00\x00\x00" + bytes(8) + b"\xff" + bytes(15),  # no text
        b"\x01\x02\x00\x00\x01\x00\x00\x00" + bytes(8) + b"\xff" + bytes(15),  # no object
        b"\x01\x01\x00\x00\xff\xff\xff\xff" + bytes(8),  # longer than it is
        b"\x01\x00\x00\x00\x08\x00\x00\x00" + bytes(8) + bytes(8) + b"padding?",
    ],
)
def test_a_message_that_is_none_ends_the_channel(pair: Pair, data: bytes) -> None:
    async def main() -> None:
        await pair.bob.wait_connected()
        channel: Any = pair.alice._peer("bob").channel
        channel.try_send((data,), len(data))
        with pytest.raises(PeerLost, match="broke the wire protocol"):
            await pair.bob.recv("alice")

    run(main())


class Sealed:
    """Its deserialize refuses."""

    def serialize(self, **_: Any) -> str:
        return "sealed"

    @staticmethod
    def deserialize(obj: str, **_: Any) -> Sealed:
        raise KeyError(obj)


def test_a_message_that_cannot_be_decoded_fails_its_own_receive_only(pair: Pair) -> None:
    registry = ObjectRegistry()
    registry.add_class(Sealed)

    async def main() -> None:
        charlie = pair.start("charlie", "bob", registry=registry)
        pair.bob.add_client("charlie")
        await charlie.send("bob", Sealed(), "unknown here")
        await charlie.send("bob", "good")
        assert await pair.bob.recv("charlie", 1) == "good"
        with pytest.raises(ObjectDecodeError, match="Sealed"):
            await pair.bob.recv("charlie", "unknown here")
        dave = pair.start("dave", "charlie", registry=registry)
        charlie.add_client("dave")
        waiting = asyncio.create_task(charlie.recv("dave"))
        await turns()
        await dave.send("charlie", Sealed())
        with pytest.raises(ObjectDecodeError, match="raised KeyError"):
            await waiting
        await dave.send("charlie", "next")
        assert await charlie.recv("dave") == "next"

    run(main())


def test_an_asend_that_times_out_leaves_the_line_and_is_raised_later() -> None:
    network = MemoryNetwork()
    alice = Pool(links=network.links("alice"))
    alice.add_client("bob")

    async def main() -> None:
        sending = alice.asend("bob", b"x" * MIB, timeout=0.01)
        await asyncio.wait([sending])
        assert alice._peer("bob").outbox.size == 0
        with pytest.raises(ConnectFailed):
            await alice.recv("bob")
        await alice.shutdown()

    run(main())


def test_the_log_says_once_whom_a_pool_waits_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("partywire.workers.pool.late.HINT_S", 0.01)
    network = MemoryNetwork()
    alice = Pool(links=network.links("alice"), timeout=0.05)
    alice.add_client("bob")

    async def main() -> None:
        for _ in range(2):
            with pytest.raises(ConnectFailed):
                await alice.send("bob", 1)
        await alice.shutdown()

    run(main())
    assert caplog.messages == ["still waiting for bob: no pool bob of this process has added alice yet"]
