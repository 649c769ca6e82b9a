"""`partywire run --log-format json`: standard error is log lines and nothing else, however a run ends."""

from __future__ import annotations

import json
from typing import Any

from .command import NAMES, Outcome, command

ALWAYS = {"time", "level", "event", "message", "logger"}


def lines_of(outcome: Outcome) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in outcome.err.splitlines()]
    assert all(line.keys() >= ALWAYS for line in lines)
    return lines


def test_a_run_is_told_in_lines_from_its_links_to_its_end() -> None:
    outcome = command("run", "digits", "--probes", "3", "--log-format", "json", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.document["checked"] is True
    lines = lines_of(outcome)
    stood = {(line["party"], line["peer"]) for line in lines if line["event"] in ("link_accepted", "link_connected")}
    assert stood == {(one, other) for one in NAMES for other in NAMES if one != other}
    for event in ("links_up", "finished"):
        assert {line["party"] for line in lines if line["event"] == event} == set(NAMES)
    assert (lines[-1]["event"], lines[-1]["exit_code"]) == ("ended", 0)
    assert not [line for line in lines if line["level"] in ("warning", "error")]


def test_a_mistake_is_a_line_too() -> None:
    outcome = command("run", "digits", "--probes", "many", "--log-format=json")
    assert outcome.code == 2
    [line] = lines_of(outcome)
    assert (line["event"], line["level"], line["exit_code"]) == ("ended", "error", 2)
    assert "many" in line["message"]
