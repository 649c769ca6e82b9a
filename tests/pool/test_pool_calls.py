"""What the README of tno.mpc.communication promises of a Pool, over links in memory."""

from __future__ import annotations

import asyncio
import inspect
import logging
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from partywire.workers.errors import UnknownPeer
from partywire.workers.objects.registry import ObjectRegistry
from partywire.workers.pool.errors import PoolClosed, ReceiveTimeout
from partywire.workers.pool.memory_links import MemoryNetwork
from partywire.workers.pool.pool import Pool
from tests.pool.asyncio_run import run, turns

if TYPE_CHECKING:
    from collections.abc import Callable

Duo = tuple[Pool, Pool]
Trio = tuple[Pool, Pool, Pool]


def test_a_message_arrives_whether_it_is_asked_for_before_or_after(pool_duo: Duo) -> None:
    async def main() -> None:
        alice, bob = pool_duo
        early = asyncio.create_task(bob.recv("local0"))
        await turns()
        await alice.send("local1", "first")
        assert await early == "first"
        await alice.send("local1", "second")
        await alice.send("local1", "third")
        assert [await bob.recv("local0"), await bob.recv("local0")] == ["second", "third"]

    run(main())


def test_both_directions_count_their_ids_apart(pool_duo: Duo) -> None:
    async def main() -> None:
        alice, bob = pool_duo
        await asyncio.gather(*(alice.send("local1", k) for k in range(3)))
        await bob.send("local0", "answer")
        assert await alice.recv("local1") == "answer"
        assert [await bob.recv("local0") for _ in range(3)] == [0, 1, 2]

    run(main())


def test_asend_does_not_wait_and_arecv_returns_a_future_or_the_value(pool_duo: Duo) -> None:
    async def main() -> None:
        alice, bob = pool_duo
        future = bob.arecv("local0")
        assert isinstance(future, asyncio.Future)
        sending = alice.asend("local1", "hello")
        assert not sending.done()
        assert await future == "hello"
        await sending
        await alice.send("local1", "there already")
        assert bob.arecv("local0") == "there already"

    run(main())


def test_ids_choose_messages_out_of_order(pool_duo: Duo) -> None:
    async def main() -> None:
        alice, bob = pool_duo
        ids: list[Any] = ["text", 5, "5", ("layer", 3), b"bytes", -1, 2**80, frozenset({1, 2}), 1.5]
        for msg_id in ids:
            await alice.send("local1", f"for {msg_id!r}", msg_id)
        for msg_id in reversed(ids):
            assert await bob.recv("local0", msg_id) == f"for {msg_id!r}"

    run(main())


def test_explicit_ids_advance_the_count_of_automatic_ones_at_both_ends(pool_duo: Duo) -> None:
    async def main() -> None:
        alice, bob = pool_duo
        await alice.send("local1", "explicit", "id")
        await alice.send("local1", "automatic")
        assert await bob.recv("local0", 1) == "automatic"
        assert await bob.recv("local0", "id") == "explicit"
        await alice.send("local1", "next")
        assert await bob.recv("local0") == "next"

    run(main())


def test_a_prefix_is_put_before_every_id_at_both_ends(pool_duo: Duo) -> None:
    async def main() -> None:
        alice, bob = pool_duo
        for pool in pool_duo:
            pool.update_msg_prefix("run-1-")
        await alice.send("local1", "automatic")
        await alice.send("local1", "explicit", 7)
        bob.update_msg_prefix(None)
        assert await bob.recv("local0", "run-1-0") == "automatic"
        assert await bob.recv("local0", "run-1-7") == "explicit"

    run(main())


def test_a_broadcast_reaches_all_peers_or_those_that_are_named(pool_trio: Trio) -> None:
    async def main() -> None:
        alice, bob, charlie = pool_trio
        await alice.broadcast("all", "id")
        await alice.broadcast("one", "id 2", ["local2"])
        alice.async_broadcast("later", "id 3")
        assert await bob.recv("local0", "id") == await charlie.recv("local0", "id") == "all"
        assert await charlie.recv("local0", "id 2") == "one"
        assert await bob.recv("local0", "id 3") == await charlie.recv("local0", "id 3") == "later"
        with pytest.raises(ReceiveTimeout):
            await bob.recv("local0", "id 2", timeout=0)

    run(main())


def test_a_broadcast_to_peers_of_different_prefixes_is_refused(pool_trio: Trio) -> None:
    async def main() -> None:
        alice = pool_trio[0]
        alice._peer("local1").prefix = "other"
        with pytest.raises(ValueError, match="prefixes"):
            await alice.broadcast("all", "id")

    run(main())


def test_recv_all_returns_names_and_values_in_the_order_of_the_peers(pool_trio: Trio) -> None:
    async def main() -> None:
        alice, bob, charlie = pool_trio
        await charlie.send("local0", "from charlie")
        waiting = asyncio.create_task(alice.recv_all())
        await turns()
        await bob.send("local0", "from bob")
        assert await waiting == [("local1", "from bob"), ("local2", "from charlie")]
        await bob.send("local0", 2)
        await charlie.send("local0", 3)
        first, second = alice.arecv_all(["local2", "local1"])
        assert first == ("local2", 3)
        assert second == ("local1", 2)

    run(main())


def test_recv_all_that_fails_gives_everything_back(pool_trio: Trio) -> None:
    async def main() -> None:
        alice, bob, charlie = pool_trio
        await bob.send("local0", "from bob")
        with pytest.raises(ReceiveTimeout):
            await alice.recv_all(timeout=0.01)
        await charlie.send("local0", "from charlie")
        assert await alice.recv_all() == [("local1", "from bob"), ("local2", "from charlie")]

    run(main())


def test_an_unknown_peer_is_named_at_once(pool_duo: Duo) -> None:
    async def main() -> None:
        alice = pool_duo[0]
        for call in (alice.send, alice.asend, alice.recv, alice.arecv):
            arguments = ("nobody", 1) if "send" in call.__name__ else ("nobody",)
            with pytest.raises(UnknownPeer, match="'nobody' is not a peer; the peers are local1"):
                await call(*arguments)
        with pytest.raises(UnknownPeer):
            await alice.broadcast(1, "id", ["nobody"])

    run(main())


class Colour(Enum):
    RED = auto()


@dataclass
class Point:
    x: int
    y: int


def test_values_come_back_equal_and_of_the_same_type() -> None:
    registry = ObjectRegistry()
    registry.add_class(Colour)
    registry.add_class(Point)
    network = MemoryNetwork()
    alice, bob = (Pool(links=network.links(name), registry=registry) for name in ("alice", "bob"))
    alice.add_client("bob")
    bob.add_client("alice")
    values: list[Any] = [
        None, True, 0, -(2**200), 1.5, 2 + 3j, "text", b"bytes", b"", b"x" * 100_000, [1, [2, (3,)]], {"type": "tuple"},
        {1: {2, 3}}, Colour.RED, Point(1, 2),
    ]  # fmt: skip

    async def main() -> None:
        async with alice, bob:
            for value in values:
                alice.asend("bob", value)
            for value in values:
                received = await bob.recv("alice")
                assert received == value
                assert type(received) is type(value)
            for array in (np.arange(6, dtype=">i4").reshape(2, 3), np.zeros(100_000), np.array(5)):
                await alice.send("bob", array)
                received = await bob.recv("alice")
                assert received.dtype == array.dtype
                assert received.shape == array.shape
                assert (received == array).all()
                assert received.flags.writeable

    run(main())


class Counted:
    """A class with logic of its own that wants to know who gets and who sent it."""

    seen: list[tuple[str, Any]] = []  # noqa: RUF012

    def serialize(self, **kwargs: Any) -> int:
        self.seen.append(("to", kwargs["destination"]))
        return 1

    @staticmethod
    def deserialize(obj: int, **kwargs: Any) -> Counted:
        Counted.seen.append(("from", kwargs["origin"]))
        return Counted()


def test_classes_are_told_the_destination_and_the_origin() -> None:
    registry = ObjectRegistry()
    registry.add_class(Counted)
    network = MemoryNetwork()
    pools = [Pool(links=network.links(name), registry=registry) for name in ("alice", "bob", "charlie")]
    alice, bob, charlie = pools
    for pool, others in ((alice, ("bob", "charlie")), (bob, ("alice",)), (charlie, ("alice",))):
        for other in others:
            pool.add_client(other)

    async def main() -> None:
        await alice.send("bob", Counted())
        assert [(what, client.name) for what, client in Counted.seen] == [("to", "bob"), ("from", "alice")]
        Counted.seen.clear()
        await alice.broadcast(Counted(), "id")
        what, clients = Counted.seen[0]
        assert (what, [client.name for client in clients]) == ("to", ["bob", "charlie"])
        for pool in pools:
            await pool.shutdown()

    run(main())


def test_statistics_count_messages_and_bytes_of_each_direction(pool_duo: Duo, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        alice, bob = pool_duo
        await alice.send("local1", b"x" * 1000)
        await alice.send("local1", b"x" * 100_000)
        sent = alice.stat().peers["local1"]
        received = bob.stat().peers["local0"]
        assert sent.messages_sent == received.messages_received == 2
        assert sent.bytes_sent == received.bytes_received > 101_000
        assert received.bytes_unread > 101_000
        await bob.recv("local0")
        await bob.recv("local0")
        assert bob.stat().total.bytes_unread == 0
        with caplog.at_level(logging.INFO, "partywire.pool"):
            await alice.shutdown()
        assert f"sent {sent.bytes_sent} bytes in 2 messages, received 0 bytes in 0 messages" in caplog.text

    run(main())


def test_every_signature_of_the_readme_is_there() -> None:
    def names(call: Callable[..., Any]) -> list[str]:
        return [name for name in inspect.signature(call).parameters if name != "self"]

    assert names(Pool.__init__)[:5] == ["key", "cert", "ca_cert", "timeout", "max_retries"]
    assert names(Pool.add_http_server) == ["port", "addr", "external_port"]
    assert names(Pool.add_http_client) == ["name", "addr", "port", "cert", "cert_kwargs"]
    assert names(Pool.send) == names(Pool.asend) == ["handler_name", "message", "msg_id", "timeout", "max_retries"]
    assert names(Pool.broadcast) == ["message", "msg_id", "handler_names", "timeout", "max_retries"]
    assert names(Pool.recv) == ["handler_name", "msg_id", "timeout"]
    assert names(Pool.recv_all) == ["handler_names", "msg_id", "timeout"]
    assert names(Pool.arecv) == ["handler_name", "msg_id"]


def test_a_pool_is_used_in_one_loop_only(pool_duo: Duo) -> None:
    run(pool_duo[0].send("local1", 1))
    with pytest.raises(RuntimeError, match="belongs to the event loop"):
        run(pool_duo[0].send("local1", 1))
    run(pool_duo[0].shutdown())
    run(pool_duo[0].shutdown())
    with pytest.raises(PoolClosed):
        pool_duo[0].add_client("another")


def test_calls_after_shutdown_are_refused_and_a_second_shutdown_is_not() -> None:
    async def main() -> None:
        network = MemoryNetwork()
        pool = Pool(links=network.links("alice"))
        pool.add_client("bob")
        await asyncio.gather(pool.shutdown(), pool.shutdown())
        await pool.shutdown()
        with pytest.raises(PoolClosed):
            await pool.send("bob", 1)
        with pytest.raises(PoolClosed):
            pool.add_client("charlie")

    run(main())


def test_a_pool_that_is_dropped_is_ended_with_a_warning() -> None:
    network = MemoryNetwork()
    pool = Pool(links=network.links("alice"))
    pool.add_client("bob")
    with pytest.warns(ResourceWarning, match=r"Pool\(bob\) was not shut down"):
        del pool
    network.links("alice")  # the name is free again


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="belong together"):
        Pool(key="key.pem", cert="cert.pem")
    with pytest.raises(ValueError, match="at least 1"):
        Pool(inbox_mib=0)
    network = MemoryNetwork()
    pool = Pool(links=network.links("alice"))
    pool.add_client("bob")
    with pytest.raises(ValueError, match="client bob already"):
        pool.add_client("bob")
    with pytest.raises(ValueError, match="PEM"):
        pool.add_http_client("charlie", "127.0.0.1", type=2)
    pool.kill()


def test_a_pool_is_used_outside_a_loop_that_runs_later(pool_duo: Duo) -> None:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        alice, bob = pool_duo
        future = bob.arecv("local0")
        sending = alice.asend("local1", "hello")
        assert loop.run_until_complete(asyncio.wait_for(future, 10)) == "hello"
        loop.run_until_complete(sending)
        loop.run_until_complete(asyncio.gather(alice.shutdown(), bob.shutdown()))
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def test_pools_without_links_yet_are_left_alone_by_those_that_start() -> None:
    network = MemoryNetwork()
    alice = Pool(links=network.links("alice"))
    alice.add_client("bob")
    other = Pool(key="no such file", cert="no such file", ca_cert="no such file")

    async def main() -> None:
        async with alice:
            pass

    run(main())
    assert other._own_links is None
