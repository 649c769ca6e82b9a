"""Whole parties over every kind of address: unix sockets, IPv6, a list of addresses to listen on, one to dial from, a
proxy on the way."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import pytest

from partywire import LinkEvent, LinkEventKind, Party, PartyConfig, Ring64
from partywire.workers.errors import AddressUnavailable
from partywire.workers.socks_config import SocksConfig
from tests.support.ipv6 import needs_ipv6
from tests.support.reserved_ports import reserved_ports
from tests.support.scripted_tor import onion_id
from tests.support.socks_proxy import CONNECT, SmallProxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

TIMEOUT_S = 60.0


def play(
    configs: list[PartyConfig],
    meanwhile: Callable[[], object] = int,
    behind: Callable[[], AbstractAsyncContextManager[object]] = nullcontext,
) -> dict[str, list[LinkEvent]]:
    """Open all parties, let each hear from each, look, and close; returns what each heard of its links. `behind` is
    entered around all of it."""
    events: dict[str, list[LinkEvent]] = {config.name: [] for config in configs}

    async def everybody() -> None:
        async with behind(), AsyncExitStack() as stack:
            parties = [Party(config, on_event=events[config.name].append) for config in configs]
            await asyncio.gather(*(stack.enter_async_context(party) for party in parties))

            async def talk(party: Party) -> None:
                [session] = await party.make_sessions(1, timeout=TIMEOUT_S)
                values = await session.gather(Ring64(party.index), timeout=TIMEOUT_S)
                assert values == [Ring64(index) for index in range(len(configs))]
                await session.broadcast(b"x" * 1_000_000, timeout=TIMEOUT_S)
                heard = await session.recv_all(timeout=TIMEOUT_S)
                assert [len(message) for message in heard if message is not None] == [1_000_000] * (len(configs) - 1)
                await party.barrier(timeout=TIMEOUT_S)

            await asyncio.gather(*(talk(party) for party in parties))
            meanwhile()
            await asyncio.gather(*(party.close() for party in parties))

    asyncio.run(everybody())
    return events


def of_kind(events: list[LinkEvent], kind: LinkEventKind) -> list[str]:
    return [event.address for event in events if event.kind is kind]


def accepted(events: list[LinkEvent]) -> list[str]:
    return of_kind(events, LinkEventKind.ACCEPTED)


def test_three_parties_on_unix_sockets_leave_no_file(tmp_path: Path) -> None:
    parties = {name: f"unix:{tmp_path}/{name}.sock" for name in ("alice", "bob")}
    parties["charlie"] = f"/unix{tmp_path}/charlie.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{tmp_path}/bob.sock")  # a party that was killed left its file

    def look() -> None:
        for name in parties:
            assert stat.S_IMODE(os.lstat(tmp_path / f"{name}.sock").st_mode) == 0o600
        with pytest.raises(AddressUnavailable, match=r"alice\.sock.*in use"):
            Party(PartyConfig(name="alice", parties=parties))._start()

    configs = [PartyConfig(name=name, parties=parties) for name in parties]
    assert all(config.is_loopback and config.insecure is None for config in configs)
    events = play(configs, look)
    assert accepted(events["alice"]) == ["a unix socket"] * 2
    assert list(tmp_path.iterdir()) == []


@needs_ipv6
def test_parties_meet_by_ipv6_and_on_several_addresses() -> None:
    with reserved_ports(3) as ports, socket.socket(socket.AF_INET6) as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("::1", 0))
        six = holder.getsockname()[1]
        addresses: dict[str, Any] = {"alice": f"[::1]:{six}", "bob": f"127.0.0.1:{ports[1]}"}
        alice = PartyConfig(name="alice", parties=addresses, listen=[f"127.0.0.1:{ports[0]}", f"[::1]:{six}"])
        bob = PartyConfig(name="bob", parties=addresses, client_host="::1")

        def look() -> None:
            for address in (("127.0.0.1", ports[0]), ("::1", six)):
                socket.create_connection(address, 10).close()

        events = play([alice, bob], look)
    [address] = accepted(events["alice"])
    assert address.startswith("[::1]:")


def test_the_peer_sees_the_address_that_a_party_dials_from() -> None:
    with reserved_ports(2) as ports:
        parties = {name: f"127.0.0.1:{port}" for name, port in zip(("alice", "bob"), ports, strict=True)}
        bob = PartyConfig(name="bob", parties=parties, client_host="127.0.0.9")
        events = play([PartyConfig(name="alice", parties=parties), bob])
    [address] = accepted(events["alice"])
    assert address.startswith("127.0.0.9:")


def test_parties_meet_by_way_of_a_proxy_at_an_onion_service() -> None:
    """The proxy of the test stands for Tor: it knows where the service is. Listening is no different from any other."""
    onion = f"/onion3/{onion_id(6)}:7101"
    with reserved_ports(3) as ports:
        proxies: list[SmallProxy] = []

        @asynccontextmanager
        async def proxy() -> AsyncIterator[None]:
            targets = {f"{onion_id(6)}.onion": ("127.0.0.1", ports[0])}
            proxies.append(SmallProxy(asyncio.get_running_loop(), targets=targets, port=ports[2]))
            try:
                yield
            finally:
                await proxies[0].aclose()

        parties = {"alice": onion, "bob": f"/ip4/127.0.0.1/tcp/{ports[1]}"}
        alice = PartyConfig(name="alice", parties=parties, insecure=True, listen=("127.0.0.1", ports[0]))
        socks = SocksConfig(address=f"127.0.0.1:{ports[2]}")
        bob = PartyConfig(name="bob", parties=parties, insecure=True, socks=socks, client_host="127.0.0.9")
        events = play([alice, bob], behind=proxy)
    assert of_kind(events["bob"], LinkEventKind.CONNECTED) == [onion]
    assert accepted(events["alice"])[0].startswith("127.0.0.1:")
    # The control connection, and that of the sessions.
    assert proxies[0].requests == [(CONNECT, f"{onion_id(6)}.onion", 7101)] * 2
