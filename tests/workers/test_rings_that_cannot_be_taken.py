"""A worker whose process has no descriptors or memory for the rings of a link that is made anew."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from partywire import Party
from partywire.engine.commands import RemakeLink
from partywire.shm.errors import SegmentError
from partywire.workers.config import write_config
from partywire.workers.errors import PeerLost, RendezvousTimeout, SessionError
from partywire.workers.local import make_local_parties
from tests.workers.harness import Table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from partywire.workers.worker import Worker

pytestmark = pytest.mark.timeout(120)

DEADLINE_S = 60.0
EPOCHS = 4
"""More than an I/O process begins before a worker has taken the rings of one of them."""

MAPS = ("partywire.shm.doorbell.map_page", "partywire.shm.segment.map_whole")


def refuse(*_: object, **__: object) -> NoReturn:
    raise SegmentError("a segment cannot be mapped") from OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


def count_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class Shortage:
    """Of one worker: while it takes rings, the mapping `at`, counted from 0, fails, and every one behind it."""

    def __init__(self, worker: Worker, monkeypatch: pytest.MonkeyPatch, at: int = 0) -> None:
        self.is_over = False
        self.failed = 0
        self.kept = 0
        """Descriptors that were not given back, in all."""
        self._monkeypatch = monkeypatch
        self._at = at
        for name in ("add_lanes", "add_bulk_lane"):
            setattr(worker.link_life, name, self._short(getattr(worker.link_life, name)))

    def _short(self, take: Callable[[Any, list[int]], None]) -> Callable[[Any, list[int]], None]:
        def short(message: Any, fds: list[int]) -> None:
            if self.is_over:
                take(message, fds)
                return
            before = count_descriptors() - len(fds)
            with self._monkeypatch.context() as patch:
                maps = 0

                def counted(whole: Callable[..., Any]) -> Callable[..., Any]:
                    def map_it(*arguments: Any, **options: Any) -> Any:
                        nonlocal maps
                        maps += 1
                        return whole(*arguments, **options) if maps <= self._at else refuse()

                    return map_it

                for name in MAPS:
                    module, _, function = name.rpartition(".")
                    patch.setattr(name, counted(getattr(sys.modules[module], function)))
                take(message, fds)
            self.failed += 1
            self.kept += count_descriptors() - before

        return short


@pytest.mark.parametrize("at", range(5))
def test_whichever_ring_cannot_be_taken_the_link_is_lost_and_asked_for_and_nothing_is_kept(
    monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    asked: list[Any] = []
    with Table(2, ring_size=1 << 16) as table:
        worker = table.workers[0]
        monkeypatch.setattr(worker.commands, "ask", asked.append)
        link = worker.links[1]
        worker.link_life.drop_lanes(link, "it is over")
        before = table._ends[0, 1]
        shortage = Shortage(worker, monkeypatch, at)
        table._seat(0, 1, (1, 1), 1 << 16, 1 << 20, 8)
        assert (shortage.failed, shortage.kept) == (1, 0)
        assert not link.is_up
        assert (link.lanes, link.control, link.bell) == ({}, None, None)
        assert "alice cannot map the rings of the link: a segment cannot be mapped; the kernel has no" in link.cause
        assert asked == [RemakeLink(0, 1, 8, link.cause)]
        with pytest.raises(PeerLost, match="the kernel has no memory"):
            worker.make_session(0)
        # The I/O process makes no further epochs for a worker that has not come to those before.
        assert {end.writer.peer_state for end in table._ends[0, 1]} <= {"open", "closed"}
        for end in before:
            end.writer.close()
            end.reader.close()


def test_a_bulk_lane_that_cannot_be_taken_costs_the_link(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    with Table(2, ring_size=1 << 16) as table:
        worker = table.workers[0]
        monkeypatch.setattr(worker.commands, "ask", asked.append)
        [session, _] = table.sessions(0)[0]
        shortage = Shortage(worker, monkeypatch, 1)
        table.add_bulk(ring_size=1 << 16)
        assert shortage.failed == 1
        assert isinstance(session.failure, PeerLost)
        assert worker.links[1].lanes == {}
        assert [type(message) for message in asked] == [RemakeLink]
        assert shortage.kept < 0  # the other rings of the link were given back, too


def test_a_link_whose_rings_could_not_be_taken_comes_back_when_they_can(monkeypatch: pytest.MonkeyPatch) -> None:
    async def until(what: Callable[[], object]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not what():
            assert time.monotonic() < deadline, "the condition never came true"
            await asyncio.sleep(0.01)

    async def scenario(alice: Party, bob: Party) -> None:
        [[ours], [theirs]] = await asyncio.gather(alice.make_sessions(1), bob.make_sessions(1))
        before = count_descriptors()
        shortage = Shortage(alice.worker, monkeypatch)
        os.kill(alice.pids["link 1"], signal.SIGKILL)
        await until(lambda: shortage.failed == EPOCHS)
        for session in (ours, theirs):
            assert isinstance(session.failure, SessionError)
        with pytest.raises(PeerLost, match=r"alice cannot map the rings of the link: .*; the kernel has no memory"):
            await alice.barrier()
        with pytest.raises((PeerLost, RendezvousTimeout)):
            await bob.barrier(timeout=0.5)
        shortage.is_over = True
        await asyncio.gather(alice.wait_for_links(DEADLINE_S), bob.wait_for_links(DEADLINE_S))
        [[ours], [theirs]] = await asyncio.gather(alice.make_sessions(1), bob.make_sessions(1))
        await ours.send("bob", b"as before")
        assert await theirs.recv("alice", timeout=DEADLINE_S) == b"as before"
        await until(lambda: count_descriptors() == before)

    async def main() -> None:
        with make_local_parties(2) as local:
            configs = [replace(config, ring_mib=1, reconnect_s=0.3) for config in local.configs]
            parties = [Party(config, listener) for config, listener in zip(configs, local.listeners, strict=True)]
            try:
                await asyncio.gather(*(party.open() for party in parties))
                await scenario(*parties)
            finally:
                await asyncio.gather(*(party.close() for party in parties))

    asyncio.run(main())


PROGRAM = """
import os, resource, signal, sys
from partywire import BlockingParty

def say_what_it_raises(party):
    try:
        while True:  # the loss is noticed a moment later
            party.barrier()
    except Exception as error:
        print(type(error).__name__, error, flush=True)

before = len(os.listdir("/proc/self/fd"))
with BlockingParty(sys.argv[1]) as party:
    party.barrier()
    with open("passed", "r" if party.name == "alice" else "w"):  # a pipe: either waits until the other has come here
        pass
    if party.name == "alice":
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (4, hard))
        os.kill(party.pids["link 1"], signal.SIGKILL)
    say_what_it_raises(party)
    say_what_it_raises(party)
    if party.name == "alice":
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
print("kept", len(os.listdir("/proc/self/fd")) - before)
"""


PROGRAM_WITHOUT_ROOM = """
import os, resource, signal, sys
from partywire import BlockingParty
from partywire.workers.waiting import run_blocking

with BlockingParty(sys.argv[1]) as party:
    party.barrier()
    [link] = party.worker.links.values()
    if party.name == "alice":
        most = max(map(int, os.listdir("/proc/self/fd")))
        resource.setrlimit(resource.RLIMIT_NOFILE, (most + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        try:
            while True:
                os.dup(0)
        except OSError:
            os.kill(party.pids["link 1"], signal.SIGKILL)
    run_blocking(party.worker, party.worker.until(lambda: link.epoch > 1 and link.is_up))
    party.barrier()
print("done")
"""


def test_an_opener_with_no_descriptor_to_spare_makes_do_with_those_of_the_lost_link(tmp_path: Path) -> None:
    assert run_pair(PROGRAM_WITHOUT_ROOM, tmp_path, (DEADLINE_S, DEADLINE_S)) == [["done"], ["done"]]


def run_pair(program: str, folder: Path, reconnect_s: tuple[float, float]) -> list[list[str]]:
    """What alice and bob print, each in a process of its own."""
    with make_local_parties(2) as local:
        paths = [folder / f"{config.name}.toml" for config in local.configs]
        for config, path, seconds in zip(local.configs, paths, reconnect_s, strict=True):
            path.write_text(write_config(replace(config, ring_mib=1, reconnect_s=seconds)))
    commands = [[sys.executable, "-c", program, str(path)] for path in paths]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder) for command in commands]
    try:
        return [process.communicate(timeout=DEADLINE_S)[0].splitlines() for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()


def test_an_opener_without_descriptors_for_a_link_is_a_failed_party_and_says_what_to_raise(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "passed")
    ours, theirs = run_pair(PROGRAM, tmp_path, (DEADLINE_S, 1.0))
    failed = "PartyFailed party alice failed: no descriptor is left for what its supervisor sends: too many open files"
    assert [line[: len(failed)] for line in ours] == [failed, failed, "kept 0"]
    assert "raise the limit of open files of a process (`ulimit -n`, now 4)" in ours[0]
    assert [line.partition(" ")[0] for line in theirs] == ["PeerLost", "PeerLost", "kept"]
