"""The callback for what happens to links: every event once and in order, whatever the callback does."""

from __future__ import annotations

import logging
import re
import threading
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from partywire import BlockingParty, LinkEvent, LinkEventKind, PartyConfig
from partywire.engine.commands import LinkNews
from partywire.workers import link_events
from partywire.workers.errors import ConnectFailed
from partywire.workers.link_events import LinkEvents
from tests.support.reserved_ports import reserved_ports

if TYPE_CHECKING:
    from types import ModuleType

DOCS = Path(__file__).resolve().parents[2] / "docs"
NAMES = ("alice", "bob", "charlie")
WATCHDOG_S = 30.0
NO_NAME = f"{'x' * 64}.invalid"  # a label is one too long, so no name server is asked


def news(kind: LinkEventKind, peer: int = 1, cause: str = "", dropped: int = 0) -> LinkNews:
    return LinkNews(peer, kind.value, "127.0.0.1:7002", cause, dropped)


def event(kind: LinkEventKind, peer: str = "bob", cause: str = "", dropped: int = 0) -> LinkEvent:
    return LinkEvent(kind, peer, "127.0.0.1:7002", cause, dropped)


class Gate:
    """A callback that hangs in its first event until it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.let_go = threading.Event()
        self.took = threading.Event()
        self.heard: list[LinkEvent] = []

    def __call__(self, event: LinkEvent) -> None:
        self.heard.append(event)
        self.entered.set()
        self.took.set()
        assert self.let_go.wait(WATCHDOG_S)


def test_events_come_in_order_and_what_was_open_is_closed_at_the_end() -> None:
    heard: list[LinkEvent] = []
    events = LinkEvents("alice", NAMES, heard.append)
    events.put(news(LinkEventKind.RESOLVE_FAILED, cause="no such name"))
    events.put(news(LinkEventKind.CONNECTED))
    events.put(news(LinkEventKind.ACCEPTED, peer=2))
    events.put(news(LinkEventKind.CLOSED, peer=2, cause="it broke"))
    events.put(LinkNews(1, "of another version", "", ""))
    events.close()
    events.close()
    assert heard == [
        event(LinkEventKind.RESOLVE_FAILED, cause="no such name"),
        event(LinkEventKind.CONNECTED),
        event(LinkEventKind.ACCEPTED, "charlie"),
        event(LinkEventKind.CLOSED, "charlie", "it broke"),
        event(LinkEventKind.CLOSED, cause="alice ended"),
    ]


@pytest.mark.parametrize("error", [LookupError("my own mistake"), SystemExit("my own mistake")])
def test_a_callback_that_raises_is_reported_and_hears_the_next_event(
    caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    heard: list[LinkEvent] = []

    def callback(event: LinkEvent) -> None:
        heard.append(event)
        raise error

    events = LinkEvents("alice", NAMES, callback)
    with caplog.at_level(logging.ERROR, "partywire"):
        events.put(news(LinkEventKind.CONNECT_FAILED, cause="refused"))
        events.put(news(LinkEventKind.CONNECT_FAILED, cause="refused"))
        events.close()
    assert len(heard) == 2
    assert [record.message for record in caplog.records] == [
        "alice: the on_event callback failed on connect failed of bob"
    ] * 2
    assert "my own mistake" in caplog.text


def test_a_slow_callback_loses_nothing_until_the_queue_is_full_and_then_hears_the_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link_events, "PENDING_MAX", 3)
    gate = Gate()
    events = LinkEvents("alice", NAMES, gate)
    events.put(news(LinkEventKind.CONNECT_FAILED, cause="0"))
    assert gate.entered.wait(WATCHDOG_S)
    for number in range(1, 4):
        events.put(news(LinkEventKind.CONNECT_FAILED, cause=str(number)))
    events.put(news(LinkEventKind.CONNECT_FAILED, cause="too many"))
    events.put(news(LinkEventKind.CONNECT_FAILED, cause="too many", dropped=5))
    gate.let_go.set()
    while events.pending:
        assert gate.took.wait(WATCHDOG_S)
        gate.took.clear()
    events.put(news(LinkEventKind.CONNECT_FAILED, cause="last", dropped=1))
    events.close(WATCHDOG_S)
    assert [(heard.cause, heard.dropped) for heard in gate.heard] == [
        ("0", 0), ("1", 0), ("2", 0), ("3", 0), ("last", 1 + 6 + 1)
    ]  # fmt: skip


def test_a_callback_that_hangs_does_not_hold_up_the_end(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()
    events = LinkEvents("alice", NAMES, gate)
    events.put(news(LinkEventKind.CONNECTED))
    assert gate.entered.wait(WATCHDOG_S)
    with caplog.at_level(logging.WARNING, "partywire"):
        events.close(0.05)
    assert "alice: the on_event callback was too slow; 1 events were not told" in caplog.text
    gate.let_go.set()
    assert gate.heard == [event(LinkEventKind.CONNECTED)]


def test_a_callback_may_end_its_party() -> None:
    ended = threading.Event()
    events: list[LinkEvents] = []

    def callback(event: LinkEvent) -> None:
        if event.kind is LinkEventKind.ACCEPTED:
            events[0].close(WATCHDOG_S)
            ended.set()

    events.append(LinkEvents("alice", NAMES, callback))
    events[0].put(news(LinkEventKind.ACCEPTED))
    assert ended.wait(WATCHDOG_S)


def example() -> ModuleType:
    """docs/examples/watch.py."""
    spec = spec_from_file_location("watch", DOCS / "examples" / "watch.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_shows_the_example() -> None:
    shown = re.search(r"```python\n(log = .*?)```", (DOCS / "parties.md").read_text(), re.DOTALL)
    assert shown is not None
    assert shown[1] in (DOCS / "examples" / "watch.py").read_text()


def test_a_party_that_cannot_reach_its_peers_hears_why_of_every_attempt(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[LinkEvent] = []
    write_down = example().on_event

    def on_event(event: LinkEvent) -> None:
        heard.append(event)
        write_down(event)

    with reserved_ports(1) as [port]:
        parties = {"alice": ("127.0.0.1", port), "bob": (NO_NAME, 7), "zoe": ("127.0.0.1", 0)}
        config = PartyConfig(name="zoe", parties=parties, connect_s=0.6, insecure=True)
        with pytest.raises(ConnectFailed), BlockingParty(config, on_event=on_event):
            pass
    assert f"connect failed: alice at 127.0.0.1:{port} alice cannot be reached" in caplog.text
    refused = [one for one in heard if one.peer == "alice"]
    assert len(refused) > 1
    for one in refused:
        assert (one.kind, one.address) == (LinkEventKind.CONNECT_FAILED, f"127.0.0.1:{port}")
        assert "connection refused" in one.cause
    unknown = [one for one in heard if one.peer == "bob"]
    assert {(one.kind, one.address) for one in unknown} == {(LinkEventKind.RESOLVE_FAILED, f"{NO_NAME}:7")}
    assert "cannot be looked up" in unknown[0].cause
