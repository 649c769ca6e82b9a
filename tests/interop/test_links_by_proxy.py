"""Whole parties whose link goes through programs of others: microsocks, and a real onion service of Tor."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from partywire import Party, PartyConfig, Ring64
from partywire.workers.socks_config import SocksConfig
from tests.interop.tor_network import tor_network
from tests.interop.tor_programs import needs, running, wait_for_port
from tests.support.reserved_ports import reserved_ports

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.interop

TIMEOUT_S = 240.0


def meet(parties: dict[str, str], port: int, proxy: SocksConfig, **timeouts: float) -> None:
    """Alice listens at `port` of loopback, bob dials her by the proxy; both send and receive."""
    settings: dict[str, Any] = {"parties": parties, "insecure": True, **timeouts}
    configs = [
        PartyConfig(name="alice", listen=f"/ip4/127.0.0.1/tcp/{port}", **settings),
        PartyConfig(name="bob", socks=proxy, **settings),
    ]

    async def talk(party: Party) -> None:
        [session] = await party.make_sessions(1, timeout=TIMEOUT_S)
        assert await session.gather(Ring64(party.index), timeout=TIMEOUT_S) == [Ring64(0), Ring64(1)]
        await session.broadcast(bytes(range(250)) * 4000, timeout=TIMEOUT_S)
        heard = await session.recv_all(timeout=TIMEOUT_S)
        assert [message for message in heard if message is not None] == [bytes(range(250)) * 4000]
        await party.barrier(timeout=TIMEOUT_S)

    async def everybody() -> None:
        async with AsyncExitStack() as stack:
            opened = await asyncio.gather(*(stack.enter_async_context(Party(config)) for config in configs))
            await asyncio.gather(*(talk(party) for party in opened))
            await asyncio.gather(*(party.close() for party in opened))

    asyncio.run(everybody())


def test_a_link_goes_through_microsocks_with_a_password(tmp_path: Path) -> None:
    needs("microsocks", "microsocks")
    path = tmp_path / "password"
    path.write_text("s3 cret\n")
    path.chmod(0o600)
    with reserved_ports(3) as (port, own, proxy):
        command = ["microsocks", "-i", "127.0.0.1", "-p", str(proxy), "-u", "us", "-P", "s3 cret"]
        with running(command) as (process,):
            wait_for_port(proxy, process)
            parties = {"alice": f"/dns4/localhost/tcp/{port}", "bob": f"127.0.0.1:{own}"}
            socks = SocksConfig(address=f"127.0.0.1:{proxy}", scope="all", username="us", password_file=str(path))
            meet(parties, port, socks)


def test_a_party_is_an_onion_service_by_a_line_of_torrc(tmp_path: Path) -> None:
    needs("tor", "tor", "tor-gencert")
    with reserved_ports(2) as (port, own):
        served = tmp_path / "served"
        lines = f"HiddenServiceDir {served}\nHiddenServicePort 7101 127.0.0.1:{port}\n"
        with tor_network(tmp_path, lines) as network:
            name = (served / "hostname").read_text().strip().removesuffix(".onion")
            parties = {"alice": f"/onion3/{name}:7101", "bob": f"127.0.0.1:{own}"}
            socks = SocksConfig(address=f"/ip4/127.0.0.1/tcp/{network.client_socks}")
            meet(parties, port, socks, connect_s=TIMEOUT_S, heartbeat_s=60)
