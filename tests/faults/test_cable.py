"""Three parties in network namespaces, and the cable between two of them really pulled."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.namespaces import Network, why_not
from tests.support.processes import wait_until_gone

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = ("alice", "bob", "charlie")
PORT = 7100
HEARTBEAT_S = 0.8
DEADLINE_S = 40.0
TOLD_S = 10.0
"""From the pulled cable until it is told: the heartbeat time-out, and room for a busy machine."""

pytestmark = pytest.mark.timeout(120)


class Roamer:
    """One party's program, and what it has said so far."""

    def __init__(self, network: Network, name: str, stack: ExitStack) -> None:
        parties = [
            f"{other}={network.address(other, name) if other != name else '127.0.0.1'}:{PORT}" for other in NAMES
        ]
        command = [sys.executable, "-m", "tests.faults.roamer", str(HEARTBEAT_S), name, *parties]
        self.name = name
        self.said: list[dict[str, Any]] = []
        self._process = subprocess.Popen(
            network.command(name, command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        stack.callback(self._end)
        self._unread = b""

    def listen(self, timeout_s: float) -> None:
        assert self._process.stdout is not None
        fd = self._process.stdout.fileno()
        if select.select([fd], [], [], timeout_s)[0]:
            data = os.read(fd, 65_536)
            assert data, f"{self.name} ended; it said {self.said}"
            *lines, self._unread = (self._unread + data).split(b"\n")
            self.said += [json.loads(line) for line in lines]

    def heard(self, since: float, **fields: object) -> list[dict[str, Any]]:
        """What it said after `since` with these fields."""
        return [said for said in self.said if said["at"] >= since and fields.items() <= said.items()]

    def steady(self, since: float) -> bool:
        return any("steady" in said for said in self.said if said["at"] >= since)

    def _end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def wait(roamers: list[Roamer], what: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not what():
        assert time.monotonic() < deadline, {roamer.name: roamer.said for roamer in roamers}
        for roamer in roamers:
            roamer.listen(0.01)


def test_a_pulled_cable_is_found_on_both_sides_and_the_parties_meet_again_when_it_is_back() -> None:
    if reason := why_not():
        pytest.skip(reason)
    with Network(NAMES) as network:
        with ExitStack() as stack:
            alice, bob, charlie = roamers = [Roamer(network, name, stack) for name in NAMES]
            wait(roamers, lambda: all(roamer.steady(0) for roamer in roamers))
            pids = [pid for roamer in roamers for said in roamer.said for pid in said.get("pids", {}).values()]
            pulled_at = time.monotonic()
            network.pull("alice", "bob")
            wait(
                roamers,
                lambda: alice.heard(pulled_at, event="closed", peer="bob")
                and bob.heard(pulled_at, event="closed", peer="alice"),
            )
            for roamer, peer in ((alice, "bob"), (bob, "alice")):
                [lost, *_] = roamer.heard(pulled_at, event="closed", peer=peer)
                assert lost["at"] - pulled_at < TOLD_S
                print(f"{roamer.name} lost {peer} after {lost['at'] - pulled_at:.2f} s: {lost['cause']}")
            wait(roamers, lambda: all([said for said in roamer.said if "error" in said] for roamer in roamers))
            # The links to charlie stand: nobody said anything of them.
            assert not charlie.heard(pulled_at, event="closed")
            assert not [said for side in (alice, bob) for said in side.heard(pulled_at, event="closed", peer="charlie")]
            back_at = time.monotonic()
            network.plug_in("alice", "bob")
            wait(roamers, lambda: all(roamer.steady(back_at) for roamer in roamers))
            print(f"they met again after {max(r.said[-1]['at'] for r in roamers) - back_at:.2f} s")
            assert not charlie.heard(pulled_at, event="closed")
        wait_until_gone(pids)
