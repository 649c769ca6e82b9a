"""What perf/pool.py measures, played by two processes of one library: python pool_cases.py LIBRARY ROLE ...

A program of its own without imports of this package, because tno.mpc.communication may be installed in another
environment. Alice prints one JSON object, {case: [samples]}. All times are Alice's: of a round trip from before her
`send` until `recv` has returned; of a stream from before the first `send` until the last one has returned, and so the
peer's pool has everything. Both libraries' `send` waits for that.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from typing import Any

import numpy as np

MIB = 1 << 20
PEER = {"alice": "bob", "bob": "alice"}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("library", choices=["partywire", "tno"])
    parser.add_argument("role", choices=list(PEER))
    parser.add_argument("port", type=int)
    parser.add_argument("peer_port", type=int)
    parser.add_argument("--certificates", help="a folder with NAME.key, NAME.crt and ca.crt")
    parser.add_argument("--small", action="store_true")
    return parser.parse_args()


class PartyWire:
    """Ours."""

    def __init__(self, options: argparse.Namespace) -> None:
        from partywire import Pool

        self.peer = PEER[options.role]
        self.pool: Any = Pool(**tls_files(options))
        self.pool.add_server("127.0.0.1", options.port)
        self.pool.add_client(self.peer, "127.0.0.1", options.peer_port)

    async def start(self) -> None:
        """Nothing is to be waited for."""

    async def send(self, value: Any, msg_id: str) -> None:
        await self.pool.send(self.peer, value, msg_id)

    async def recv(self, msg_id: str) -> Any:
        return await self.pool.recv(self.peer, msg_id)

    async def end(self) -> None:
        await self.pool.shutdown()


class Tno4(PartyWire):
    """tno.mpc.communication 4.x."""

    def __init__(self, options: argparse.Namespace) -> None:
        from tno.mpc.communication import Pool

        self.peer = PEER[options.role]
        self.pool = Pool(**tls_files(options))
        self.pool.add_http_server(options.port, "127.0.0.1")
        self.pool.add_http_client(self.peer, "127.0.0.1", options.peer_port)


class Tno5(PartyWire):
    """tno.mpc.communication 5.x."""

    def __init__(self, options: argparse.Namespace) -> None:
        from tno.mpc.communication import HttpCommunicator, HttpConnection, Pool

        contexts = tls_contexts(options)
        communicator = HttpCommunicator("127.0.0.1", options.port, *contexts, conn_retry_max=60)
        self.peer = PEER[options.role]
        self.pool = Pool(options.role, communicator, timeout=None)
        cert = f"{options.certificates}/{self.peer}.crt" if options.certificates else None
        self.pool.add_client(self.peer, HttpConnection("127.0.0.1", options.peer_port, cert))

    async def start(self) -> None:
        await self.pool.initialize()


def tls_files(options: argparse.Namespace) -> dict[str, Any]:
    folder = options.certificates
    if folder is None:
        return {}
    return {
        "key": f"{folder}/{options.role}.key",
        "cert": f"{folder}/{options.role}.crt",
        "ca_cert": f"{folder}/ca.crt",
    }


def tls_contexts(options: argparse.Namespace) -> list[Any]:
    """For both roles of a connection, as tno.mpc.communication 4.x makes them."""
    import ssl

    contexts = []
    files = tls_files(options)
    for purpose in (ssl.Purpose.SERVER_AUTH, ssl.Purpose.CLIENT_AUTH) if files else ():
        context = ssl.create_default_context(purpose, cafile=files["ca_cert"])
        context.load_cert_chain(files["cert"], files["key"])
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        contexts.append(context)
    return contexts


def library_of(options: argparse.Namespace) -> PartyWire:
    if options.library == "partywire":
        return PartyWire(options)
    from importlib import metadata

    return (Tno4 if metadata.version("tno.mpc.communication").startswith("4.") else Tno5)(options)


async def alice(net: PartyWire, small: bool) -> dict[str, list[float]]:
    samples: dict[str, list[float]] = {}
    rounds, warm_up = (20, 5) if small else (600, 100)
    message = b"x" * 100
    took = []
    for number in range(rounds):
        begun = time.perf_counter()
        await net.send(message, f"ping {number}")
        await net.recv(f"pong {number}")
        took.append(time.perf_counter() - begun)
    samples["ping-pong of 100 B"] = [statistics.median(took[warm_up:]) * 1e6]
    count = 100 if small else 1000
    begun = time.perf_counter()
    await asyncio.gather(*(net.send(message, f"small {number}") for number in range(count)))
    samples["1,000 of 100 B in flight"] = [count / (time.perf_counter() - begun)]
    for name, value, times in streams(small):
        await net.send(value, f"{name} warm-up")
        begun = time.perf_counter()
        for number in range(times):
            await net.send(value, f"{name} {number}")
        samples[name] = [size_of(value) * times / (time.perf_counter() - begun) / 1e6]
    await net.recv("end")
    return samples


async def bob(net: PartyWire, small: bool) -> None:
    rounds = 20 if small else 600
    for number in range(rounds):
        await net.send(await net.recv(f"ping {number}"), f"pong {number}")
    for number in range(100 if small else 1000):
        await net.recv(f"small {number}")
    for name, value, times in streams(small):
        await net.recv(f"{name} warm-up")
        for number in range(times):
            received = await net.recv(f"{name} {number}")
        assert len(received) == len(value)
    await net.send(1, "end")


def streams(small: bool) -> list[tuple[str, Any, int]]:
    """Name, value, how many of them."""
    times = (2, 1) if small else (24, 5)
    sizes = (MIB, MIB) if small else (MIB, 16 * MIB)
    return [
        ("1 MiB of bytes", b"y" * sizes[0], times[0]),
        ("16 MiB of bytes", b"y" * sizes[1], times[1]),
        ("1 MiB of numpy int64", np.arange(sizes[0] // 8), times[0]),
        ("16 MiB of numpy int64", np.arange(sizes[1] // 8), times[1]),
    ]


def size_of(value: Any) -> int:
    return len(value) if isinstance(value, bytes) else int(value.nbytes)


async def main(options: argparse.Namespace) -> None:
    net = library_of(options)
    await net.start()
    if options.role == "alice":
        print(json.dumps(await alice(net, options.small)), flush=True)
    else:
        await bob(net, options.small)
    await net.end()


if __name__ == "__main__":
    asyncio.run(main(parse()))
