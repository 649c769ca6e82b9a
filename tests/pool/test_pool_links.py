"""A pool over links of its own (TCP, TLS) and over sessions of parties: what pools in memory cannot show."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from partywire.workers.batch import BatchRunner
from partywire.workers.config import PartyConfig
from partywire.workers.errors import AddressUnavailable, ConnectFailed, PeerClosed, PeerLost, UnknownPeer
from partywire.workers.party import Party
from partywire.workers.pool.errors import PoolClosed, PoolFailed, PoolInboxFull, ReceiveTimeout
from partywire.workers.pool.pool import Pool
from tests.pool.asyncio_run import run, turns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from partywire.workers.session import Session

Duo = tuple[Pool, Pool]
MIB = 1 << 20
DEADLINE_S = 60


async def talk(alice: Pool, bob: Pool, to_bob: str, to_alice: str) -> None:
    """Everything of every size in both directions, many at once, and acknowledgements under back-pressure."""
    await asyncio.gather(alice.send(to_bob, "hello"), bob.send(to_alice, None))
    assert await bob.recv(to_alice) == "hello"
    assert await alice.recv(to_bob) is None
    array = np.arange(3 * MIB).reshape(3, MIB)
    large = bytes(range(256)) * 65536
    sendings = [alice.asend(to_bob, large, "bytes"), alice.asend(to_bob, {"nested": [array, 1]}, "nested")]
    sendings += [alice.asend(to_bob, k, ("many", k)) for k in range(1000)]
    sendings += [bob.asend(to_alice, array, "back")]
    assert [await bob.recv(to_alice, ("many", k)) for k in reversed(range(1000))] == list(reversed(range(1000)))
    assert await bob.recv(to_alice, "bytes") == large
    assert ((await bob.recv(to_alice, "nested"))["nested"][0] == array).all()
    received = await alice.recv(to_bob, "back")
    assert (received == array).all()
    assert received.flags.writeable
    await asyncio.gather(*sendings)
    mutable = np.zeros(MIB)
    await alice.send(to_bob, mutable, "mutable")
    mutable[:] = 1
    assert not (await bob.recv(to_alice, "mutable")).any()


@pytest.mark.parametrize("pool_links", ["tcp", "tls"])
def test_pools_talk_over_links_of_their_own_and_close_in_good_order(pool_duo: Duo) -> None:
    async def main() -> None:
        alice, bob = pool_duo
        await talk(alice, bob, "local1", "local0")
        waiting = asyncio.create_task(bob.recv("local0", "never"))
        alice.asend("local1", "last words", "last")
        await alice.shutdown()
        with pytest.raises(PeerClosed):
            await waiting
        assert await bob.recv("local0", "last") == "last words"
        await bob.shutdown()

    run(main())


@pytest.mark.parametrize("pool_links", ["tcp"])
def test_five_pools_know_each_other(pool_group_factory: Callable[[int], tuple[Pool, ...]]) -> None:
    async def main() -> None:
        pools = pool_group_factory(5)
        await asyncio.gather(*(pool.broadcast(f"from {index}", "id") for index, pool in enumerate(pools)))
        for index, pool in enumerate(pools):
            others = [other for other in range(5) if other != index]
            expected = [(f"local{other}", f"from {other}") for other in others]
            assert sorted(await pool.recv_all(msg_id="id")) == expected

    run(main())


def test_a_port_that_is_taken_is_an_error_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        pool = Pool()
        with pytest.raises(AddressUnavailable, match="cannot listen on"):
            pool.add_http_server(taken.getsockname()[1], "127.0.0.1")
        pool.kill()


def test_a_peer_that_nobody_started_is_named_with_the_reason() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]

    async def main() -> None:
        async with Pool() as pool:
            pool.add_http_client("Bob", "127.0.0.1", port)
            while "refused" not in pool._peer("Bob").channel.why_not_open:
                with pytest.raises(ReceiveTimeout, match="Bob has not been met yet"):
                    await pool.recv("Bob", timeout=0.1)
            with pytest.raises(ConnectFailed, match=rf"within 0\.01 s to Bob: .*127\.0\.0\.1:{port}.*refused"):
                await pool.send("Bob", "lost", timeout=0.01)

    run(main())


VICTIM = """
import asyncio, sys
from partywire import Pool

async def main(own, peer, says):
    async with Pool() as pool:
        pool.add_server("127.0.0.1", int(own))
        pool.add_client("alice", "127.0.0.1", int(peer))
        await pool.send("alice", says)
        print("said", flush=True)
        await pool.recv("alice", "end")

asyncio.run(main(*sys.argv[1:]))
"""


def test_a_killed_peer_is_lost_at_once_and_met_again_when_it_is_restarted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        bob_port = free.getsockname()[1]
    started: list[subprocess.Popen[str]] = []

    async def start(port: int, says: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", VICTIM, str(bob_port), str(port), says]
        process = await asyncio.to_thread(subprocess.Popen, command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == "said\n"
        return process

    async def main() -> None:
        async with Pool() as alice:
            port = alice.add_server("127.0.0.1", 0)
            alice.add_client("bob", "127.0.0.1", bob_port)
            bob = await start(port, "first life")
            waiting = asyncio.create_task(alice.recv("bob", "never"))
            await turns()
            bob.kill()
            with pytest.raises(PeerLost, match="bob"):
                await waiting
            assert await alice.recv("bob", 0) == "first life"
            reconnecting = asyncio.create_task(alice.reconnect("bob"))
            bob = await start(port, "second life")
            await reconnecting
            assert await alice.recv("bob") == "second life"
            await alice.send("bob", "well done", "end")
            assert await asyncio.to_thread(bob.wait, DEADLINE_S) == 0

    try:
        run(main())
    finally:
        for process in started:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def test_a_peer_that_is_not_read_is_held_back_by_the_links(
    pool_group_factory: Callable[[int], tuple[Pool, ...]],
) -> None:
    async def main() -> None:
        async with Pool(inbox_mib=4) as bob, Pool() as alice:
            for pool in (alice, bob):
                pool.add_server("127.0.0.1", 0)
            assert alice.port is not None
            alice.add_client("bob", "127.0.0.1", bob.port)
            bob.add_client("alice", "127.0.0.1", alice.port)
            sendings = [alice.asend("bob", b"x" * MIB, "large") for _ in range(40)]
            with pytest.raises(PoolInboxFull):
                await bob.recv("alice", "behind")
            assert not sendings[-1].done()
            assert bob.stat().total.bytes_unread < 6 * MIB
            for _ in sendings:
                assert len(await bob.recv("alice", "large")) == MIB
            await asyncio.gather(*sendings)

    run(main())


# Over a session.


async def two_parties() -> AsyncIterator[tuple[Party, Party]]:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        parties = {"alice": first.getsockname()[:2], "bob": second.getsockname()[:2]}
        alice = Party(PartyConfig(name="alice", parties=parties), first)
        bob = Party(PartyConfig(name="bob", parties=parties), second)
        await asyncio.gather(alice.open(), bob.open())
        try:
            yield alice, bob
        finally:
            await asyncio.gather(alice.close(), bob.close())


def test_pools_over_a_session_talk_end_apart_from_it_and_begin_again_with_it() -> None:
    async def main() -> None:
        async for alice_party, bob_party in two_parties():
            alice, bob = await asyncio.gather(Pool.of_party(alice_party), Pool.of_party(bob_party))
            assert alice.peers == ("bob",)
            with pytest.raises(UnknownPeer):
                alice.add_client("charlie")
            with pytest.raises(RuntimeError, match="needs no server"):
                alice.add_server()
            await talk(alice, bob, "bob", "alice")
            session: Any = alice._own_links
            session.session.abort("on purpose")
            for pool, peer in ((alice, "bob"), (bob, "alice")):
                with pytest.raises(PeerLost, match="on purpose"):
                    await pool.recv(peer)
            await asyncio.gather(alice.reconnect("bob"), bob.reconnect("alice"))
            await alice.send("bob", "new life")
            assert await bob.recv("alice") == "new life"
            waiting = asyncio.create_task(bob.recv("alice"))
            await alice.send("bob", "kept", "id")
            await alice.shutdown()
            with pytest.raises(PeerClosed, match="alice"):
                await waiting
            assert await bob.recv("alice", "id") == "kept"
            await bob.shutdown()
            with pytest.raises(PoolClosed):
                await bob.recv("alice")
            await asyncio.gather(alice_party.barrier(), bob_party.barrier())  # the parties have other sessions

    run(main())


def test_a_pool_whose_party_has_failed_says_so_instead_of_waiting_to_begin_again() -> None:
    async def main() -> None:
        async for alice_party, bob_party in two_parties():
            alice, bob = await asyncio.gather(Pool.of_party(alice_party), Pool.of_party(bob_party))
            await alice.wait_connected()
            alice_party.worker.fail("its supervisor is gone")
            sentence = "party alice failed: its supervisor is gone"
            with pytest.raises(PeerLost, match=sentence):
                await alice.recv("bob")
            with pytest.raises(PoolFailed, match=sentence):
                await alice.reconnect("bob")
            with pytest.raises(PoolFailed, match=sentence):
                await alice.send("bob", 1)
            for pool in (alice, bob):
                pool.kill()

    run(main())


async def pool_job(session: Session, value: int) -> list[Any]:
    """A job of a batch that speaks through a pool."""
    async with Pool.over(session) as pool:
        await pool.broadcast(value, "value")
        if session.party_index:
            await asyncio.sleep(0.01)  # the other one has ended its pool by then
        return await pool.recv_all(msg_id="value")


async def reconnecting_job(session: Session, value: int) -> None:
    """One party's job ends without its pool, the other's looks for it."""
    if session.party_index:
        return
    pool = Pool.over(session)
    try:
        with pytest.raises(PeerLost):
            await pool.recv("bob")
        with pytest.raises(PeerLost) as caught:
            await pool.reconnect("bob")
        raise RuntimeError(f"looked for bob in vain: {caught.value}")
    finally:
        pool.kill()


def test_a_pool_in_a_job_of_a_batch_cannot_begin_again_and_says_so() -> None:
    async def main() -> None:
        async for parties in two_parties():
            runners = [BatchRunner(party, sessions=1, retries=0) for party in parties]
            ours, _ = await asyncio.gather(
                *(runner.amap(reconnecting_job, [0]) for runner in runners), return_exceptions=True
            )
            assert re.search("looked for bob in vain: .*the batch runs it again on another session", str(ours))

    run(main())


def test_a_job_of_a_batch_can_use_a_pool() -> None:
    async def main() -> None:
        async for parties in two_parties():
            runners = [BatchRunner(party, sessions=2) for party in parties]
            ours, theirs = await asyncio.gather(
                runners[0].amap(pool_job, range(6)), runners[1].amap(pool_job, range(10, 16))
            )
            assert ours == [[("bob", value)] for value in range(10, 16)]
            assert theirs == [[("alice", value)] for value in range(6)]

    run(main())
