"""How a service finds its peers: which failures another attempt follows, and when nobody need wait any longer."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from partywire.engine.errors import SetupAborted, SetupMismatch
from partywire.engine.restarts import STAYS_AWAY
from partywire.workers import serve_meeting
from partywire.workers.errors import PeerClosed, PeerLost, RendezvousTimeout, WorkerDied
from partywire.workers.link_life import LinkLife
from partywire.workers.peer_link import PeerLink
from partywire.workers.serve_meeting import LinkWatch, Meeting, ServiceFailed
from partywire.workers.waiting import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable

    from partywire.engine.errors import PartyWireError

PATIENCE_S = 8.0


class Played:
    """Alice's party: its common steps fail as they are told, and time passes only in `until`."""

    def __init__(self, *failures: PartyWireError) -> None:
        self.failures = list(failures)
        self.met = 0
        self.now = 100.0
        self.links = {index: PeerLink(index, name) for index, name in ((1, "bob"), (2, "charlie"))}
        for link in self.links.values():
            link.connection_count = 1
        self.lost_workers: dict[int, WorkerDied] = {}
        self.on_notify: Callable[[], None] = lambda: None
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.worker = self
        self.config = SimpleNamespace(connect_s=30.0)

    def clock(self) -> float:
        return self.now

    async def until(self, condition: Callable[[], bool], deadline: float = NEVER) -> bool:
        while not condition():
            if not self.later or self.later[0][0] > deadline:
                assert deadline < NEVER, "it waits for what never comes"
                self.now = deadline
                return False
            self.now, happens = self.later.pop(0)
            happens()
            self.on_notify()
        return True

    async def rendezvous(self, kind: str, fields: object, *, equal: bool) -> None:
        assert (kind, equal) == ("serve", True)
        self.met += 1
        if self.failures:
            raise self.failures.pop(0)

    async def make_sessions(self, count: int, *, timeout: float) -> list[str]:
        return ["session"] * count

    # What a test does.

    def watch(self) -> LinkWatch:
        return LinkWatch(cast("Any", self), lambda: None)

    def lose(self, index: int, cause: str) -> None:
        self.links[index].cause = cause
        self.on_notify()

    def find(self, index: int) -> None:
        self.links[index].cause = ""


def hold(party: Played, watch: LinkWatch, times: int = 1) -> tuple[list[dict[str, str]], list[PartyWireError]]:
    """What was given up, and which failures another attempt followed."""
    meeting = Meeting(cast("Any", party), watch, {}, PATIENCE_S)
    given_up: list[dict[str, str]] = []
    failures: list[PartyWireError] = []

    async def hold_all() -> None:
        for _ in range(times):
            assert await meeting.hold(given_up.append, failures.append) == cast("Any", "session")

    asyncio.run(hold_all())
    return given_up, failures


AT_WORK = SetupMismatch(3, "kind", "serve", "batch", "bob")
ENDS = SetupMismatch(3, "kind", "serve", "the end of the batch", "bob")
ELSEWHERE = SetupMismatch(3, "kind", "serve", "run", "bob")
OTHER_SETTINGS = SetupMismatch(3, "retries", 2, 0, "bob")


def test_what_is_lost_on_the_way_is_tried_again_until_all_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_meeting, "PAUSE_MAX_S", 0.001)
    lost = PeerLost("bob", None, 1, "it broke")
    failures: list[PartyWireError] = [
        AT_WORK,
        ENDS,
        lost,
        PeerClosed("bob", None, 1),
        SetupAborted(3, "bob", "lost"),
        RendezvousTimeout("serve", ("bob",), 1.0),
    ]
    party = Played(*failures)
    assert hold(party, party.watch()) == ([], failures)
    assert party.met == len(failures) + 1


@pytest.mark.parametrize("failure", [ELSEWHERE, OTHER_SETTINGS])
def test_another_program_or_setting_ends_a_service_that_starts_and_none_that_has_served(failure: SetupMismatch) -> None:
    party = Played(failure)
    with pytest.raises(SetupMismatch):
        hold(party, party.watch())
    party = Played()
    watch = party.watch()
    meeting = Meeting(cast("Any", party), watch, {}, PATIENCE_S)
    noted: list[PartyWireError] = []

    async def twice() -> None:
        await meeting.hold(lambda _: None, noted.append)
        party.failures.append(failure)
        await meeting.hold(lambda _: None, noted.append)

    asyncio.run(twice())
    assert noted == [failure]


def test_who_is_away_for_too_long_is_named_once_and_still_waited_for() -> None:
    party = Played()
    watch = party.watch()
    party.lose(1, "connection reset")
    party.now += 3  # a job ran meanwhile
    party.later = [
        (103.5, lambda: party.lose(2, "silence")),
        (104.0, lambda: party.find(2)),
        (109.0, lambda: party.lose(2, "silence")),
        (149.0, lambda: party.find(1)),
        (150.0, lambda: party.find(2)),
    ]
    assert watch.cause() == "bob is away: connection reset"
    given_up, failures = hold(party, watch)
    assert given_up == [{"bob": "bob did not come back within 8 s: connection reset"}]
    assert (failures, party.now, watch.away, watch.away_since) == ([], 150.0, {}, NEVER)


def test_who_is_back_in_time_is_not_named() -> None:
    party = Played()
    watch = party.watch()
    for index in (1, 2):
        party.lose(index, "connection reset")
    party.later = [(104.0, lambda: party.find(1)), (107.9, lambda: party.find(2))]
    assert hold(party, watch) == ([], [])
    assert party.now == 107.9


def test_a_process_of_ours_that_stays_away_ends_the_service() -> None:
    party = Played()
    watch = party.watch()
    party.lost_workers[1] = WorkerDied("alice", 1, "was killed by SIGKILL" + STAYS_AWAY)
    party.on_notify()
    with pytest.raises(ServiceFailed, match=r"worker 1: was killed by SIGKILL; .* start the service again"):
        hold(party, watch)
    assert party.met == 0


def test_that_an_io_process_stays_away_is_known_though_its_link_was_lost_before() -> None:
    link = PeerLink(1, "bob")
    life = LinkLife(cast("Any", SimpleNamespace(notify=lambda: None)), [], cast("Any", None))
    for cause, known in (("reset", "reset"), ("again", "reset"), ("killed" + STAYS_AWAY, "killed" + STAYS_AWAY)):
        life.lose_link(link, cause)
        assert link.cause == known
