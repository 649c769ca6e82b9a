"""Starting the process of a party: whatever becomes of it, the launcher keeps no descriptor too many and no zombie."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from partywire.workers.launcher import Launcher, Order, start_party
from partywire.workers.run_event import Failed

if TYPE_CHECKING:
    from pathlib import Path

    from partywire.workers.run_event import RunEvent

PIPE_SIZE = 64 * 1024


def order(size: int = 0) -> Order:
    return Order("alice", "alice.toml", "sum", {"text": "x" * size}, 1, None)


def test_a_process_that_cannot_be_started_leaves_no_descriptor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no such program"))
    before = os.listdir("/proc/self/fd")
    with pytest.raises(FileNotFoundError):
        start_party(order(), None)
    assert os.listdir("/proc/self/fd") == before


def test_a_process_that_cannot_be_watched_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def pidfd_open(_pid: int) -> int:
        raise OSError("too many open files")

    monkeypatch.setattr(os, "pidfd_open", pidfd_open)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="too many open files"):
        start_party(order(), None)
    monkeypatch.undo()
    assert os.listdir("/proc/self/fd") == before


def test_a_process_that_ends_without_reading_its_order_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    heard: list[RunEvent] = []
    launcher = Launcher(heard.append, lambda _party, _line: None, lambda: None)
    try:
        launcher.start(order(2 * PIPE_SIZE))
        [outcome] = launcher.run()
    finally:
        launcher.close()
    assert isinstance(outcome, Failed)
    assert outcome.sentence == "the process of alice ended with status 1 before its job ended"
    assert heard == [outcome]
