"""Where pools listen and dial: hosts and ports, multiaddresses, families of addresses, and one peer under two names."""

from __future__ import annotations

import socket

import pytest

from partywire.workers.pool.place import place_of_pool
from partywire.workers.pool.pool import Pool
from tests.pool.asyncio_run import run
from tests.support.ipv6 import needs_ipv6
from tests.support.scripted_tor import onion_id


def test_a_multiaddress_has_a_port_of_its_own_or_takes_the_one_beside_it() -> None:
    assert place_of_pool("10.0.0.1", None, 80) == place_of_pool("/ip4/10.0.0.1", None, 80) == ("10.0.0.1", 80)
    assert place_of_pool("bob", 5, 80) == place_of_pool("/dns/bob", 5, 80) == place_of_pool("/dns/bob/tcp/5", None, 80)
    assert place_of_pool("/dns6/bob/tcp/5", None, 80) == ("/dns6/bob", 5)
    assert place_of_pool("/ip4/0.0.0.0/tcp/0", None, 80, listening=True) == ("0.0.0.0", 0)


@pytest.mark.parametrize(
    ("addr", "port", "what"),
    [
        ("/ip4/10.0.0.1/tcp/5", 5, "has a port of its own; leave the other one, 5, out"),
        ("/ip4/10.0.0.1/tcp/0", None, "between 1 and 65535"),
        ("/unix/run/a.sock", None, "find each other over TCP, at a host and a port, not by /unix"),
        (f"/onion3/{onion_id(1)}:80", None, "not by /onion3"),
        ("/memory/1", None, "within one process"),
        ("/nowhere", 5, "not a protocol"),
    ],
)
def test_what_no_pool_can_use_is_refused_with_a_sentence(addr: str, port: int | None, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        place_of_pool(addr, port, 80)


def test_pools_meet_by_multiaddresses_and_no_peer_is_added_under_two_names_of_one_host() -> None:
    async def main() -> None:
        alice, bob = Pool(), Pool()
        try:
            ports = alice.add_server("/ip4/127.0.0.1/tcp/0"), bob.add_server("/dns4/localhost", 0)
            alice.add_client("bob", f"/ip4/127.0.0.1/tcp/{ports[1]}")
            bob.add_client("alice", "/dns4/localhost", ports[0])
            for again in ("localhost", "127.0.0.1", "/dns4/localhost"):
                with pytest.raises(ValueError, match=rf"carol has the address .*:?/?{ports[1]} of bob"):
                    alice.add_client("carol", again, ports[1])
            with pytest.raises(ValueError, match="a unix socket"):
                alice.add_client("carol", "unix:/run/a.sock", 1)
            await alice.send("bob", "hello")
            assert await bob.recv("alice") == "hello"
            await alice.shutdown()
            await bob.shutdown()
        finally:
            alice.kill()
            bob.kill()

    run(main())


@needs_ipv6
def test_a_pool_takes_the_families_that_it_was_told_to() -> None:
    six, both = Pool(), Pool()
    try:
        port = six.add_server("::", 0)
        socket.create_connection(("::1", port), 10).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 10)
        port = both.add_server("*", 0)
        for host in ("::1", "127.0.0.1"):
            socket.create_connection((host, port), 10).close()
    finally:
        six.kill()
        both.kill()
