"""Log lines: their fields, what never gets into them, and who configures what."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import types
from typing import TYPE_CHECKING, Any

import pytest

from partywire.engine.commands import LinkNews, Refused, Started, Stopped, WorkerLost
from partywire.workers.channel import Channel
from partywire.workers.errors import PartyFailed, WorkerDied
from partywire.workers.http_worker import whose
from partywire.workers.launcher import Order
from partywire.workers.log_lines import LogLines
from partywire.workers.logs import (
    MESSAGE_SIZE_MAX,
    JsonFormatter,
    LineHandler,
    ProcessFormatter,
    configure_logs,
    install,
    record_document,
    time_text,
    wants_json_logs,
)
from partywire.workers.party_log import PartyLog
from partywire.workers.party_main import EventPipe, show_logs
from partywire.workers.peer_link import PeerLink, WorkerCounters
from partywire.workers.run_event import Connected, Failed, Finished, Logged, Progressed, Waiting, decode_event
from partywire.workers.serve_messages import Health, Snapshot
from partywire.workers.serve_routes import ServiceView

if TYPE_CHECKING:
    from collections.abc import Iterator

    from partywire.workers.worker import Worker

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
NAMES = ("alice", "bob", "charlie")
LOGGERS = ("partywire", "partywire.link", "partywire.process", "partywire.session")


@pytest.fixture(autouse=True)
def loggers_are_left_as_they_were() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger.level, logger.propagate, list(logger.handlers)) for logger in loggers]
    yield
    for logger, (level, propagate, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.propagate = propagate
        logger.handlers[:] = handlers


@pytest.fixture
def lines() -> list[dict[str, Any]]:
    """What is logged from here on, as log lines."""
    found: list[dict[str, Any]] = []
    install(LineHandler(found.append), "json", "debug")
    return found


def lost_worker(cause: str = "", *, died: bool = False, failed: bool = False, stale: int = 0) -> Worker:
    """As much of a worker as a party's log looks at."""
    link = PeerLink(1, "bob")
    link.cause = cause
    lost = {2: WorkerDied("alice", 2, "worker 2 was killed by SIGKILL")} if died else {}
    counters = WorkerCounters(dropped_stale=stale)
    failure = PartyFailed("alice", "its supervisor is gone") if failed else None
    worker: Any = types.SimpleNamespace(links={1: link}, lost_workers=lost, counters=counters, failure=failure)
    found: Worker = worker
    return found


# Lines.


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "1970-01-01T00:00:00.000000Z"), (1_700_000_000.25, "2023-11-14T22:13:20.250000Z")]
)
def test_times_are_utc_with_microseconds(seconds: float, text: str) -> None:
    assert time_text(seconds) == text


def test_a_line_has_the_named_fields_and_no_others(lines: list[dict[str, Any]]) -> None:
    extra = {"event": "tried", "peer": "bob", "cause": "why", "seed": "5ec2e7", "payload": b"5ec2e7"}
    logging.getLogger("partywire.test").warning("%s happened", "it", extra=extra)
    [line] = lines
    assert TIME.fullmatch(line.pop("time"))
    assert line == {
        "level": "warning",
        "event": "tried",
        "peer": "bob",
        "cause": "why",
        "message": "it happened",
        "logger": "partywire.test",
    }


def test_of_an_exception_the_type_is_told_and_not_what_it_quotes(lines: list[dict[str, Any]]) -> None:
    try:
        raise ValueError("5ec2e7")
    except ValueError:
        logging.getLogger("partywire.test").exception("a callback failed")
    [line] = lines
    assert line["error"] == "ValueError"
    assert "5ec2e7" not in json.dumps(line)


def test_a_long_message_is_cut(lines: list[dict[str, Any]]) -> None:
    logging.getLogger("partywire").info("x" * (MESSAGE_SIZE_MAX + 1))
    assert len(lines[0]["message"]) == MESSAGE_SIZE_MAX


def test_a_formatter_writes_one_line_for_a_program_of_ones_own() -> None:
    record = logging.LogRecord("partywire", logging.INFO, __file__, 1, "two\nlines %s", ("é",), None)
    text = JsonFormatter().format(record)
    assert "\n" not in text
    assert json.loads(text) == record_document(record)


class Unshowable:
    def __str__(self) -> str:
        raise RuntimeError("key=1234")


@pytest.mark.parametrize(
    ("cause", "shown"),
    [
        ("a\udc80b", "a\\udc80b"),
        (2**63 - 1, 2**63 - 1),
        (2**64, str(2**64)),
        (float("nan"), None),
        (True, True),
        (("x", 1), "('x', 1)"),
        (Unshowable(), "a Unshowable that cannot be shown"),
    ],
)
def test_whatever_a_field_holds_is_a_line(cause: object, shown: object) -> None:
    record = logging.LogRecord("partywire", logging.INFO, __file__, 1, "e\udc80", (), None)
    record.__dict__.update(cause=cause, event="e\udc80")
    read = json.loads(JsonFormatter().format(record))
    assert (read["cause"], read["event"], read["message"]) == (shown, "e\\udc80", "e\\udc80")


@pytest.mark.parametrize("arguments", [("one",), (Unshowable(), 2)])
def test_a_log_call_with_wrong_arguments_is_a_line(arguments: tuple[object, ...]) -> None:
    record = logging.LogRecord("partywire", logging.INFO, __file__, 1, "%s and %s", arguments, None)
    assert json.loads(JsonFormatter().format(record))["message"] == "%s and %s (its arguments do not fit)"


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["run", "digits"], False),
        (["run", "--log-format"], False),
        (["run", "--log-format", "text"], False),
        (["run", "--log-format", "json"], True),
        (["run", "--log-format=json"], True),
    ],
)
def test_json_is_seen_before_the_options_are_parsed(arguments: list[str], wanted: bool) -> None:
    assert wants_json_logs(arguments) == wanted


@pytest.mark.parametrize(
    ("format_", "level", "shown"),
    [
        ("text", None, {"remark"}),
        ("text", "warning", {"remark", "news"}),
        ("text", "error", set()),
        ("json", None, {"remark", "news", "detail"}),
        ("json", "warning", {"remark", "news"}),
    ],
)
def test_levels_and_formats_decide_what_is_shown(format_: str, level: str | None, shown: set[str]) -> None:
    stream = io.StringIO()
    configure_logs(format_, level, stream)
    logging.getLogger("partywire").warning("remark")
    logging.getLogger("partywire.link").warning("news", extra={"event": "link_lost"})
    logging.getLogger("partywire.link").info("detail", extra={"event": "link_connected"})
    said = stream.getvalue().splitlines()
    assert {json.loads(line)["message"] if format_ == "json" else line for line in said} == shown


# What a party logs.


def test_what_happens_to_a_link_is_a_line(lines: list[dict[str, Any]]) -> None:
    log = PartyLog("alice", NAMES)
    log.hear(LinkNews(1, "connected", "10.0.0.2:7101", ""))
    log.hear(LinkNews(2, "connect failed", "10.0.0.3:7101", "connection refused"))
    log.hear(LinkNews(1, "closed", "10.0.0.2:7101", "bob has been silent", 3))
    log.hear(Started({}))
    assert [(line["level"], line["event"], line.get("peer"), line.get("cause")) for line in lines] == [
        ("info", "link_connected", "bob", None),
        ("info", "link_connect_failed", "charlie", "connection refused"),
        ("warning", "link_lost", "bob", "bob has been silent"),
        ("warning", "link_events_dropped", None, None),
    ]
    assert lines[0]["address"] == "10.0.0.2:7101"
    assert lines[3]["count"] == 3
    assert {line["party"] for line in lines} == {"alice"}


def test_a_loss_is_told_once(lines: list[dict[str, Any]]) -> None:
    log = PartyLog("alice", NAMES)
    log.hear(LinkNews(1, "closed", "", "gone"))
    log.begin_closing(lost_worker("gone"))
    log.end(lost_worker("gone"))
    assert [line["event"] for line in lines] == ["link_lost"]


def test_a_link_that_came_back_and_was_lost_again_unheard_is_told_again(lines: list[dict[str, Any]]) -> None:
    log = PartyLog("alice", NAMES)
    log.hear(LinkNews(1, "closed", "", "gone"))
    log.hear(LinkNews(1, "accepted", "", ""))
    log.begin_closing(lost_worker("gone again"))
    assert [line["event"] for line in lines] == ["link_lost", "link_accepted", "link_lost"]


def test_a_process_that_took_the_place_of_another_is_a_line(lines: list[dict[str, Any]]) -> None:
    log = PartyLog("alice", NAMES)
    log.hear(Started({"gateway": 1, "link 1": 2, "worker 1": 3}))
    assert not lines
    log.hear(WorkerLost(1, "worker 1 was killed by SIGKILL"))
    log.hear(Started({"gateway": 1, "link 1": 2, "worker 1": 4}))
    log.hear(Started({"gateway": 5, "link 1": 2, "worker 1": 4}))
    assert [(line["event"], line["cause"]) for line in lines] == [
        ("process_restarted", "worker 1 is started again as process 4: worker 1 was killed by SIGKILL"),
        ("process_restarted", "gateway is started again as process 5"),
    ]


def test_what_ends_while_the_party_closes_is_no_loss(lines: list[dict[str, Any]]) -> None:
    log = PartyLog("alice", NAMES)
    log.begin_closing(lost_worker())
    log.hear(LinkNews(1, "closed", "", "the process ended"))
    log.end(lost_worker("the party is closing"))
    assert [(line["level"], line["event"]) for line in lines] == [("info", "link_closed")]


def test_a_loss_that_the_opener_had_no_time_to_hear_of_is_told_when_it_closes(lines: list[dict[str, Any]]) -> None:
    PartyLog("alice", NAMES).begin_closing(lost_worker("reset"))
    assert [(line["event"], line["cause"]) for line in lines] == [("link_lost", "reset")]


def test_the_end_tells_of_workers_and_of_frames(lines: list[dict[str, Any]]) -> None:
    PartyLog("alice", NAMES).end(lost_worker(died=True, stale=4))
    assert [(line["level"], line["event"]) for line in lines] == [
        ("error", "worker_died"),
        ("info", "late_frames_dropped"),
    ]
    assert (lines[0]["worker"], lines[1]["count"]) == (2, 4)


def test_a_party_that_failed_says_so_and_not_that_each_link_is_lost(lines: list[dict[str, Any]]) -> None:
    PartyLog("alice", NAMES).end(lost_worker("party alice failed", failed=True))
    [line] = lines
    assert (line["level"], line["event"], line["cause"]) == ("error", "party_failed", "its supervisor is gone")


def test_a_supervisor_that_ends_behind_its_last_word_is_no_failure(lines: list[dict[str, Any]]) -> None:
    log, worker = PartyLog("alice", NAMES), lost_worker(failed=True)
    log.begin_closing(worker)
    log.hear(Stopped([]))
    log.end(worker)
    assert lines == []


def test_refused_connections_are_counted_anew(lines: list[dict[str, Any]]) -> None:
    log = PartyLog("alice", NAMES)
    log.hear(Refused(1, 0, 1))
    log.hear(Refused(1, 0, 3))
    log.hear(Refused(1, 1, 3))
    assert [(line["event"], line["count"], line["cause"]) for line in lines] == [
        ("connections_refused", 2, "1 of unknown parties, 1 silent"),
        ("connections_refused", 2, "1 of unknown parties, 3 silent"),
        ("connections_refused", 1, "1 of unknown parties, 1 not PartyWire, 3 silent"),
    ]


def test_a_program_that_configured_nothing_hears_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    for name in LOGGERS:
        logging.getLogger(name).handlers.clear()
    PartyLog("alice", NAMES).hear(LinkNews(1, "closed", "", "gone"))
    assert capsys.readouterr().err == ""


# What a run says.


def test_a_run_says_everything_in_lines() -> None:
    stream = io.StringIO()
    said = LogLines("digits", None, stream)
    for event in (
        Waiting("alice", "bob", "no answer"),
        Connected("alice", 1.0),
        Progressed("alice", 1.0, 1, 2, 3, 4, 5, 6),
        Logged("alice", {"time": "t", "level": "debug", "event": "log", "message": "m", "logger": "partywire"}),
        Logged("alice", {"time": "t", "level": "info", "event": "log", "message": "m", "logger": "partywire"}),
        Failed("alice", 3, "bob is gone", "PeerLost", "bob", "Traceback 5ec2e7"),
        Finished("alice", 1.0, {}, True, []),
    ):
        said.event(event)
    said.output("alice", "a job's words")
    said.tick()
    said.ended("bob is gone", 3)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["waiting", "links_up", "log", "failed", "finished", "output", "ended"]
    assert [lines[3][name] for name in ("level", "party", "peer", "cause", "exit_code")] == [
        "error", "alice", "bob", "PeerLost", 3
    ]  # fmt: skip
    assert "5ec2e7" not in stream.getvalue()


def test_progress_is_told_now_and_then() -> None:
    stream = io.StringIO()
    said = LogLines("digits", None, stream)
    said.event(Progressed("alice", 1.0, 1, 2, 3, 4, 5, 6))
    said._told_at -= 10
    said.tick()
    said.tick()
    [line] = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert (line["event"], line["party"], line["count"]) == ("progress", "alice", 1)


def test_lines_below_the_level_are_left_out() -> None:
    stream = io.StringIO()
    said = LogLines("digits", "error", stream)
    said.event(Connected("alice", 1.0))
    said.ended("over", 1)
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["ended"]


def test_a_party_process_sends_its_lines_as_events() -> None:
    read_fd, write_fd = os.pipe()
    try:
        order = Order("alice", None, "digits", {}, 8, None, "json", "info")
        show_logs(order, EventPipe(write_fd))
        logging.getLogger("partywire.link").warning("gone", extra={"event": "link_lost", "peer": "bob"})
        event = decode_event(os.read(read_fd, 65536))
    finally:
        os.close(read_fd)
        os.close(write_fd)
    assert isinstance(event, Logged)
    assert (event.party, event.line["event"], event.line["peer"]) == ("alice", "link_lost", "bob")


def test_a_line_of_a_further_process_says_whose_it_is_as_soon_as_that_is_known() -> None:
    view = ServiceView(Channel.__new__(Channel))
    formatter = ProcessFormatter(lambda: whose(view))

    def line() -> str:
        record = logging.LogRecord("partywire", logging.ERROR, "", 0, "a handler for %s failed", ("GET",), None)
        return formatter.format(record)

    assert line() == "partywire: the HTTP worker: a handler for GET failed"
    view.take(Snapshot("100% alice", ("100% alice", "bob"), {}, [], {}, Health("serving", "", {}), False))
    assert line() == "partywire: 100% alice: the HTTP worker: a handler for GET failed"
