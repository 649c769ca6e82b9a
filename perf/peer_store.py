"""What a peer store costs: adding, looking up, searching, opening, with ten thousand peers in it.

One process, one folder; each sample is many calls, timed together. A durable add waits for the disk: that figure is the
disk's. What would make it lie: other load, a folder in memory (`--folder` chooses another disk than that of /tmp), and
records that are not like these, with three addresses and a claim of 400 bytes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from partywire.engine.multiaddr import Multiaddr
from partywire.engine.peer_store.known_address import KnownAddress, Source
from partywire.engine.peer_store.query import Order, PeerFilter
from partywire.engine.peer_store.record import PeerRecord
from partywire.engine.peer_store.store import PeerStore
from partywire.engine.peers.peer_id import PeerId
from partywire.perf.report import Figure, print_figures, warn_if_busy

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = 1_800_000_000.0


def peer(number: int) -> PeerRecord:
    addresses = [
        KnownAddress(Multiaddr.parse(f"/ip4/10.{number >> 8 & 255}.{number & 255}.{one}/tcp/7101"), Source.CLAIM)
        for one in range(1, 4)
    ]
    record = PeerRecord.of_key(number.to_bytes(32, "big"), NOW).with_addresses(addresses, NOW)
    return record.with_metadata(200, bytes(16)).seen(NOW + number)


def each(calls: int, repeats: int, call: Callable[[int], object], unit_s: float) -> tuple[float, ...]:
    """The time of one call, of so many in a row, in units."""
    samples = []
    for repeat in range(repeats):
        start = time.perf_counter()
        for number in range(repeat * calls, (repeat + 1) * calls):
            call(number)
        samples.append((time.perf_counter() - start) / calls / unit_s)
    return tuple(samples)


def measure(folder: Path, peers: int, repeats: int) -> list[Figure]:
    records = [peer(number) for number in range(peers)]
    targets = [PeerId.of_key(bytes(31) + bytes((number % 256,))) for number in range(1000)]
    with PeerStore(folder / "added") as store:
        batch = peers // repeats
        added = each(1, repeats, lambda one: store.add(*records[one * batch : (one + 1) * batch]), 1e-6 * batch)
        store.add(*records)
        single = each(10, repeats, lambda one: store.add(peer(peers + one)), 1e-3)
        got = each(100, repeats, lambda one: store.get(records[one % peers].peer_id), 1e-6)
        banned = each(100, repeats, lambda one: store.ban_of(records[one % peers].peer_id), 1e-6)
        closest = each(10, repeats, lambda one: store.closest(targets[one % 1000], 8), 1e-3)
        recent = each(1, repeats, lambda _: store.select(order=Order.SEEN, limit=8), 1e-3)
        drawn = each(1, repeats, lambda _: store.random(8), 1e-3)
        everybody = each(1, repeats, lambda _: store.select(PeerFilter(is_banned=None)), 1e-3)
    opened = each(1, repeats, lambda _: PeerStore(folder / "added").close(), 1e-3)
    return [
        Figure("add, of a batch", "us", added, None, True),
        Figure("add one, durable", "ms", single, None, True),
        Figure("get", "us", got, None, True),
        Figure("ban_of", "us", banned, None, True),
        Figure(f"closest 8 of {peers}", "ms", closest, None, True),
        Figure(f"the 8 seen last of {peers}", "ms", recent, None, True),
        Figure(f"8 of {peers} at random", "ms", drawn, None, True),
        Figure(f"all {peers}", "ms", everybody, None, True),
        Figure(f"open as a node, {peers} peers", "ms", opened, None, True),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m partywire.perf.peer_store", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--peers", type=int, default=10_000, help="in the store (10,000)")
    parser.add_argument("--repeats", type=int, default=5, help="samples (5)")
    parser.add_argument("--folder", type=Path, default=None, help="where to make the store; it is removed again")
    parser.add_argument("--json", action="store_true", help="JSON lines instead of a table")
    parser.add_argument("--smoke", action="store_true", help="tiny: does it run at all?")
    options = parser.parse_args()
    warn_if_busy()
    peers, repeats = (50, 1) if options.smoke else (options.peers, options.repeats)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        print_figures(measure(Path(folder), peers, repeats), json=options.json)


if __name__ == "__main__":
    main()
