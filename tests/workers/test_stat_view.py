"""What figures mean together: rates, stalls, what is not known; the JSON schema, and the tables."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from partywire.engine.stat_figures import FIGURES, TEXTS
from partywire.engine.stat_page import Publication, Value, Words
from partywire.workers.cli_stat import views_json
from partywire.workers.stat_process import ProcessUse
from partywire.workers.stat_reader import PartySnapshot
from partywire.workers.stat_table import attention, duration_text, party_lines, plain_lines
from partywire.workers.stat_view import (
    SCHEMA,
    STALL_PEER,
    STALL_WORKER,
    LaneView,
    LinkView,
    PartyView,
    ProcessView,
    Rated,
    RingView,
    WorkerView,
    doorbells_of,
    party_view,
    summed,
)

DOCS = Path(__file__).resolve().parent.parent.parent / "docs" / "operations.md"
SECOND = 1_000_000_000


def ring(direction: str, *, depth: int = 0, full: int = 0, stalled: int = 0, total: int = 0) -> list[Value]:
    labels = (("peer", "bob"), ("connection", "0"), ("worker", "0"), ("direction", direction))
    return [
        Value("ring_capacity_bytes", labels, 1000),
        Value("ring_depth_bytes", labels, depth),
        Value("ring_depth_max_bytes", labels, depth),
        Value("ring_bytes_total", labels, total),
        Value("ring_records_total", labels, total // 10),
        Value("ring_full_total", labels, full),
        Value("ring_stalled", labels, stalled),
        Value("ring_bells_total", labels, 0),
    ]


def lane(sent: int) -> list[Value]:
    labels = (("peer", "bob"), ("connection", "0"), ("worker", "0"))
    return [
        Value("lane_sent_bytes_total", labels, sent),
        Value("lane_received_bytes_total", labels, 2 * sent),
        Value("lane_received_messages_total", labels, 10),
        Value("lane_sessions", labels, 3),
        Value("lane_waiting_senders", labels, 1),
    ]


def worker(inbox: int = 10) -> list[Value]:
    labels = (("worker", "0"),)
    return [
        Value("sessions", labels, 3),
        Value("inbox_bytes", labels, inbox),
        Value("inbox_limit_bytes", labels, 100),
        Value("parked_frames_total", labels, 1),
        Value("dropped_stale_frames_total", labels, 2),
        Value("dropped_unknown_frames_total", labels, 0),
        Value("worker_late_wakeups_total", labels, 0),
    ]


def link(up: int = 1, cause: str = "") -> tuple[list[Value], list[Words]]:
    labels = (("peer", "bob"),)
    values = [
        Value("link_up", labels, up),
        Value("link_epoch", labels, 7),
        Value("link_losses_total", labels, 1 - up),
        Value("process_asleep", (("process", "link 1"),), 1),
        Value("process_sleeps_total", (("process", "link 1"),), 4),
        Value("refused_connections_total", (("reason", "silent"),), 0),
        Value("worker_losses_total", (), 0),
        Value("gateway_restarts_total", (), 0),
    ]
    return values, [Words("link_state", labels, "up" if up else "lost"), Words("link_cause", labels, cause)]


def snapshot(
    at_s: float,
    rings: list[Value],
    *,
    lanes: list[Value] | None = None,
    workers: list[Value] | None = None,
    published_s: float | None = None,
    up: int = 1,
    cause: str = "",
    cpu_s: float = 1.0,
) -> PartySnapshot:
    at_ns = int(at_s * SECOND)
    values, words = link(up, cause)
    heard = [Value("link_heartbeat_age_seconds", (("peer", "bob"),), at_ns - SECOND // 2)]
    publications = {
        "supervisor": Publication(10, at_ns, tuple(values + rings), tuple(words), 0),
        "link 1": Publication(12, at_ns, tuple(heard), (), 0),
    }
    if lanes is not None:
        own_ns = at_ns if published_s is None else int(published_s * SECOND)
        publications["worker 0"] = Publication(11, own_ns, tuple(lanes + (workers or worker())), (), 0)
    pids = {"supervisor": 10, "worker 0": 11, "link 1": 12, "gateway": 13}
    uses = {"link 1": ProcessUse(cpu_s, int(cpu_s * 100), 4096, 1)}
    return PartySnapshot("alice", ("alice", "bob"), SECOND, at_ns, pids, publications, uses)


QUIET = ring("tx") + ring("rx")


def test_rates_are_over_the_time_between_publications() -> None:
    before = snapshot(100, QUIET, lanes=lane(1000))
    now = snapshot(102, ring("tx", total=500) + ring("rx"), lanes=lane(3000), published_s=101, cpu_s=1.5)
    view = party_view(now, before)
    assert view.interval_s == pytest.approx(2)
    [seen] = view.links
    assert seen.bytes_sent == Rated(3000, 2000.0)  # published one second apart
    assert seen.bytes_received == Rated(6000, 4000.0)
    assert seen.lanes[0].tx is not None
    assert seen.lanes[0].tx.bytes == Rated(500, 250.0)
    [process] = [process for process in view.processes if process.role == "link 1"]
    assert process.cpu_percent == pytest.approx(25)
    assert process.wakeups == Rated(150, 25.0)
    assert (process.is_asleep, process.is_running) == (True, True)
    assert seen.heartbeat_age_s == pytest.approx(0.5)


def test_what_is_not_known_is_none_and_a_dash() -> None:
    view = party_view(snapshot(100, QUIET))
    [seen] = view.links
    assert seen.bytes_sent == Rated(None, None)
    assert view.interval_s is None
    assert view.workers[0] == WorkerView(
        0, None, None, None, None, Rated(None, None), Rated(None, None), Rated(None, None), None, None
    )
    assert "has not answered yet" in attention(view)[0]
    text = "\n".join(party_lines(view))
    assert "None" not in text
    assert " - " in text


def test_a_worker_that_has_not_published_since_has_no_rate() -> None:
    before = snapshot(100, QUIET, lanes=lane(1000))
    now = snapshot(102, QUIET, lanes=lane(1000), published_s=100)
    [seen] = party_view(now, before).links
    assert seen.bytes_sent == Rated(1000, None)


def test_a_counter_that_begins_again_has_no_rate() -> None:
    before = snapshot(100, QUIET, lanes=lane(1000))
    [seen] = party_view(snapshot(101, QUIET, lanes=lane(10)), before).links
    assert seen.bytes_sent == Rated(10, None)


@pytest.mark.parametrize(
    ("rings", "stall"),
    [
        (QUIET, ""),
        (ring("tx", depth=900) + ring("rx", depth=900), ""),
        (ring("tx", depth=900, stalled=1) + ring("rx"), STALL_PEER),
        (ring("tx", full=3) + ring("rx"), STALL_PEER),
        (ring("tx") + ring("rx", stalled=1), STALL_WORKER),
        (ring("tx") + ring("rx", full=1), STALL_WORKER),
        (ring("tx", stalled=1) + ring("rx", stalled=1), STALL_WORKER),
    ],
)
def test_a_stall_names_who_holds_the_lane_up(rings: list[Value], stall: str) -> None:
    before = snapshot(100, QUIET, lanes=lane(1000))
    view = party_view(snapshot(101, rings, lanes=lane(1000)), before)
    assert view.links[0].stall == stall
    said = "\n".join(attention(view))
    assert ("worker 0 is slow" in said) == (stall == STALL_WORKER)
    assert ("bob or the network is slow" in said) == (stall == STALL_PEER)


def test_a_full_ring_of_long_ago_is_no_stall() -> None:
    before = snapshot(100, ring("tx", full=9) + ring("rx"), lanes=lane(1))
    assert party_view(snapshot(101, ring("tx", full=9) + ring("rx"), lanes=lane(1)), before).links[0].stall == ""


def test_a_lost_link_says_why() -> None:
    view = party_view(snapshot(100, [], lanes=[], up=0, cause="bob has been silent for 5.0 s"))
    [seen] = view.links
    assert (seen.state, seen.is_up, seen.losses, seen.lanes) == ("lost", False, 1, ())
    assert "bob: bob has been silent for 5.0 s" in attention(view)
    assert plain_lines(view) == [
        "alice bob lost sent=- received=- messages=- tx=- rx=- heard=0.5 s cause='bob has been silent for 5.0 s'"
    ]


@pytest.mark.parametrize(("inbox", "is_said"), [(49, False), (50, True)])
def test_a_filling_inbox_is_said(inbox: int, is_said: bool) -> None:
    view = party_view(snapshot(100, QUIET, lanes=lane(1), workers=worker(inbox)))
    assert any("limits.inbox_mib" in said for said in attention(view)) == is_said


def test_a_worker_that_answers_no_more_is_said() -> None:
    view = party_view(snapshot(100, QUIET, lanes=lane(1), published_s=90))
    assert any("worker 0 last answered 10.0 s ago" in said for said in attention(view))


def test_a_sum_has_a_rate_only_if_every_part_has() -> None:
    assert summed([]) == Rated(None, None)
    assert summed([Rated(1, 1.0), Rated(2, None)]) == Rated(3, None)
    assert summed([Rated(1, 1.0), Rated(2, 0.5)]) == Rated(3, 1.5)
    assert summed([Rated(1, 1.0), Rated(None, None)]) == Rated(1, None)


def test_an_io_process_has_a_doorbell_for_each_link() -> None:
    assert doorbells_of("link 1") == ["link 1"]
    assert doorbells_of("links 1, 2") == ["link 1", "link 2"]
    assert doorbells_of("worker 0") == ["worker 0"]


def test_the_peers_of_a_node_stand_in_a_line_of_their_own() -> None:
    found = snapshot(100, QUIET)
    assert party_view(found).node is None
    values = (Value("node_connections", (), 2), Value("node_events_total", (("event", "inbound_failed"),), 3),
              Value("node_events_total", (("event", "bans"),), 0))  # fmt: skip
    found.publications["node"] = Publication(14, 100 * SECOND, values, (), 0)
    view = party_view(found)
    assert view.node == {"connections": 2, "inbound_failed": 3, "bans": 0}
    assert "  node: 2 peers connected (3 inbound failed)" in party_lines(view)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3661, "1 h 1 min"), (90000, "1 d 1 h")]
)
def test_durations_have_two_units(seconds: int, text: str) -> None:
    assert duration_text(seconds) == text


# The schema.

PARTS = (PartyView, LinkView, LaneView, RingView, WorkerView, ProcessView, Rated)


def documented_fields() -> dict[str, set[str]]:
    """Object -> its fields, as the schema's table in docs/operations.md lists them."""
    rows = re.findall(r"^\| `(\w+)` \| (`.*`) \|$", DOCS.read_text(), re.MULTILINE)
    return {name: set(re.findall(r"`(\w+)`", fields)) for name, fields in rows}


def test_the_json_object_has_exactly_the_documented_fields() -> None:
    before = snapshot(100, QUIET, lanes=lane(1000))
    document = orjson.loads(views_json([party_view(snapshot(101, QUIET, lanes=lane(2000)), before)]))
    assert document["schema"] == SCHEMA
    [party] = document["parties"]
    documented = documented_fields()
    assert {part.__name__.removesuffix("View").lower() for part in PARTS} == set(documented)
    for part in PARTS:
        name = part.__name__.removesuffix("View").lower()
        assert {field.name for field in dataclasses.fields(part)} == documented[name], name
    seen: dict[str, dict[str, Any]] = {"party": party, "link": party["links"][0]}
    seen["lane"] = seen["link"]["lanes"][0]
    seen |= {"ring": seen["lane"]["tx"], "worker": party["workers"][0], "process": party["processes"][0]}
    seen["rated"] = seen["link"]["bytes_sent"]
    assert {name: set(found) for name, found in seen.items()} == documented


def test_every_figure_is_explained_where_operators_look() -> None:
    text = DOCS.read_text()
    missing = [name for name in (*FIGURES, *TEXTS) if f"`{name}`" not in text]
    assert not missing
