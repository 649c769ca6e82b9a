"""Calls towards a peer that can never come as things are: who is not accepted, and a pool whose engine is gone."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import time
from typing import TYPE_CHECKING

import pytest

from partywire.workers.errors import ConnectFailed, PartyFailed, PeerLost
from partywire.workers.pool.errors import PeerRefused, PoolFailed, ReceiveTimeout
from partywire.workers.pool.pairs import PairLinks
from partywire.workers.pool.pool import Pool
from tests.pool.asyncio_run import run
from tests.support.pool_certificates import Files
from tests.support.pool_links import engine_pid
from tests.support.reserved_ports import reserved_ports

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator
    from pathlib import Path

    from tests.support.certificates import Issued

LIMIT_S = 300.0
"""The default for a peer that was never met, and ten times the deadline of these tests."""


class Duo:
    """Alice and Bob, who listen and dial each other. Each gives the certificate that it thinks the other has."""

    def __init__(self, alice: Pool, bob: Pool, bob_cert: str | None, alice_cert: str | None) -> None:
        self.alice, self.bob = alice, bob
        ports = alice.add_server("127.0.0.1", 0), bob.add_server("127.0.0.1", 0)
        alice.add_client("bob", "127.0.0.1", ports[1], bob_cert)
        bob.add_client("alice", "127.0.0.1", ports[0], alice_cert)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def made() -> Iterator[list[Pool]]:
    pools: list[Pool] = []
    try:
        yield pools
    finally:
        for pool in pools:
            pool.kill()


def copied(files: Files, issued: Issued, folder: Path) -> tuple[str, str, str]:
    """key, cert and ca_cert of a pool, which a test may exchange."""
    folder.mkdir(exist_ok=True)
    key, cert = str(folder / "pool.key"), str(folder / "pool.crt")
    shutil.copy(issued.key_path, key)
    shutil.copy(issued.certificate_path, cert)
    return key, cert, files.ca


@pytest.mark.parametrize(
    ("wrong", "at_alice", "at_bob"),
    [
        ("same_serial", "for bob is another one.*CN=bob, issuer CN=ca2, serial 8", "alice refused us.*CN=ca2"),
        ("same_names", "for bob is another one.*issuer CN=ca1,O=Org,C=NL, serial 8", "alice refused us"),
        ("unknown", "the certificate of bob is from an issuer that we do not know", "alice refused us.*ours.*CN=ca3"),
        ("expired", "the certificate of bob has expired", "alice refused us.*our certificate has expired"),
        ("missing", "bob refused us.*has no TLS.*give key, cert and ca_cert to both", "has TLS.*give key, cert and"),
    ],
)
def test_calls_end_at_once_at_both_ends_and_succeed_after_the_certificate_was_exchanged(
    files: Files, made: list[Pool], tmp_path: Path, wrong: str, at_alice: str, at_bob: str
) -> None:
    async def main() -> None:
        alice = Pool(*files.of(files.alice))
        made.append(alice)
        bob = Pool() if wrong == "missing" else Pool(*copied(files, getattr(files, wrong), tmp_path))
        made.append(bob)
        assert alice._shared.late_s == LIMIT_S
        alice_cert = None if wrong == "missing" else files.alice.certificate_path
        Duo(alice, bob, files.bob.certificate_path, alice_cert)
        sending: Awaitable[object] = alice.asend("bob", "lost")
        others = (alice.send("bob", "lost"), alice.recv("bob"), alice.recv_all(), alice.wait_connected())
        for call in (sending, *[asyncio.ensure_future(other) for other in others]):
            with pytest.raises(PeerRefused, match="(?s)no link with bob: .*" + at_alice) as caught:
                await call
            assert isinstance(caught.value, ConnectFailed)
            assert caught.value.peer == "bob"
            assert "Waiting will not help" in str(caught.value)
        with pytest.raises(PeerRefused, match=at_bob):
            await bob.recv("alice")
        with pytest.raises(PeerRefused, match=at_bob):
            await bob.reconnect("alice")
        if wrong != "missing":
            copied(files, files.bob, tmp_path)
            while True:
                try:
                    await bob.send("alice", "accepted")
                    break
                except PeerRefused:
                    pass  # of an attempt that began before
            assert await alice.recv("bob") == "accepted"

    run(main())


def test_a_peer_that_is_not_there_is_waited_for_whatever_strangers_dial(files: Files, made: list[Pool]) -> None:
    async def main() -> None:
        alice, stranger = Pool(*files.of(files.alice)), Pool(*files.of(files.unknown))
        made.extend((alice, stranger))
        with reserved_ports(1) as (port,):
            our_port = alice.add_server("127.0.0.1", 0)
            alice.add_client("bob", "127.0.0.1", port, files.bob.certificate_path)
            receiving = asyncio.create_task(alice.recv("bob"))
            stranger.add_client("alice", "127.0.0.1", our_port, files.alice.certificate_path)
            with pytest.raises(PeerRefused, match="alice refused us"):
                await stranger.recv("alice")
            assert not receiving.done()
            bob = Pool(*files.of(files.bob))
            made.append(bob)
            bob.add_server("127.0.0.1", port)
            bob.add_client("alice", "127.0.0.1", our_port, files.alice.certificate_path)
            await bob.send("alice", "late")
            assert await receiving == "late"

    run(main())


def test_who_waits_in_vain_hears_of_a_peer_that_only_dialled_with_a_wrong_certificate(
    files: Files, made: list[Pool]
) -> None:
    """It cannot be told from a stranger, so it ends no call."""

    async def main() -> None:
        alice, bob = Pool(*files.of(files.alice)), Pool(*files.of(files.same_serial))
        made.extend((alice, bob))
        with reserved_ports(1) as (port,):
            our_port = alice.add_server("127.0.0.1", 0)
            alice.add_client("bob", "127.0.0.1", port, files.bob.certificate_path)
            bob.add_client("alice", "127.0.0.1", our_port, files.alice.certificate_path)
            sending = asyncio.create_task(bob.send("alice", "hello"))
            said = ""
            while "turned away" not in said or "refused" not in said.partition("turned away")[0]:
                with pytest.raises(ReceiveTimeout) as caught:
                    await alice.recv("bob", timeout=0.05)
                said = str(caught.value)
            sending.cancel()
        turned_away = r"a caller was turned away (once|\d+ times): .*subject CN=bob, issuer CN=ca2, serial 8"
        assert re.search(f"connection refused.*; {turned_away}", said)

    run(main())


def test_who_dials_before_it_was_added_is_waited_for_beside_another_peer_of_its_host(
    files: Files, made: list[Pool]
) -> None:
    async def main() -> None:
        alice, carl = Pool(*files.of(files.alice)), Pool(*files.of(files.same_serial))
        made.extend((alice, carl))
        port = alice.add_server("127.0.0.1", 0)
        with reserved_ports(1) as (unused,):
            alice.add_client("bob", "127.0.0.1", unused, files.bob.certificate_path)
            carl.add_client("alice", "127.0.0.1", port, files.alice.certificate_path)
            sending = asyncio.create_task(carl.send("alice", "hello"))
            while "another certificate" not in carl._peer("alice").channel.why_not_open:
                with pytest.raises(ReceiveTimeout):
                    await carl.recv("alice", timeout=0.05)
            alice.add_client("carl", None, None, files.same_serial.certificate_path)
            assert await alice.recv("carl") == "hello"
            await sending

    run(main())


def test_a_pool_whose_engine_was_killed_says_so_in_every_later_call(made: list[Pool]) -> None:
    async def main() -> None:
        alice, bob = Pool(), Pool()
        made.extend((alice, bob))
        Duo(alice, bob, None, None)
        with reserved_ports(1) as (port,):
            alice.add_client("never met", "127.0.0.1", port)
        await bob.send("alice", "arrived")
        waiting = asyncio.create_task(alice.recv("bob", "never"))
        never = asyncio.create_task(alice.recv("never met"))
        await asyncio.sleep(0)
        links = alice._own_links
        assert isinstance(links, PairLinks)
        os.kill(engine_pid(links), signal.SIGKILL)
        with pytest.raises(PeerLost, match=r"pair engine.*has ended; make a new pool"):
            await waiting
        sentence = re.escape("the pool has failed: its pair engine, the process that serves its links, has ended")
        with pytest.raises(PoolFailed, match=sentence):
            await never
        assert await alice.recv("bob", 0) == "arrived"
        began = time.monotonic()
        for name in ("bob", "never met"):
            for call in (alice.recv(name), alice.send(name, 1), alice.reconnect(name), alice.wait_connected()):
                with pytest.raises(PoolFailed, match="make a new pool"):
                    await call
            with pytest.raises(PoolFailed):
                alice.asend(name, 1)
        with pytest.raises(PartyFailed, match="make a new pool"):
            alice.add_client("carl", "127.0.0.1", 1)
        assert alice.peers == ("bob", "never met")
        assert time.monotonic() - began < LIMIT_S
        with pytest.raises(PeerLost, match="alice"):
            await bob.recv("alice")
        await alice.shutdown()

    run(main())
