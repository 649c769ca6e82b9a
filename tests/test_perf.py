"""Every measurement runs, tiny, so that none rots. What they print is never judged here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from partywire.perf.figures import MEASUREMENTS
from partywire.perf.measure import chosen, present
from partywire.perf.workloads import WORKLOADS

ROOT = Path(__file__).resolve().parent.parent


def rows_of(*arguments: str) -> list[dict[str, Any]]:
    """What `partywire perf --smoke` prints."""
    run = subprocess.run(
        [sys.executable, "-m", "partywire", "perf", *arguments, "--smoke", "--json", "-"],
        cwd=ROOT, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    rows = [orjson.loads(line) for line in run.stdout.splitlines()]
    assert rows
    assert all(min(row["samples"]) > 0 and row["machine"]["commit"] for row in rows if row["is_offered"])
    return rows


def test_whoever_is_installed_plays_rounds() -> None:
    names, _ = present(chosen("all"))
    names.remove("partywire-one-class")  # is no other one where no session is of the bulk class
    assert [row["contender"] for row in rows_of("ring", "--contenders", "all") if row["is_offered"]] == names


@pytest.mark.parametrize(
    ("workloads", "contenders"),
    [(("pingpong", "oneway", "alltoall"), "asyncio,c-split"), (("iris", "beside"), "asyncio,partywire")],
    ids=["cheap", "ours"],
)
def test_every_workload_is_played(workloads: tuple[str, ...], contenders: str) -> None:
    played = {(row["workload"], row["contender"]) for row in rows_of(*workloads, "--contenders", contenders)}
    assert played == {(name, contender) for name in workloads for contender in contenders.split(",")}


def test_no_workload_is_left_out_above() -> None:
    assert set(WORKLOADS) == {"ring", "pingpong", "oneway", "alltoall", "iris", "beside"}


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_a_single_measurement_runs(name: str) -> None:
    assert all(row["workload"] == name for row in rows_of(name))


def test_the_table_and_the_page_are_written(tmp_path: Path) -> None:
    page = tmp_path / "perf.html"
    run = subprocess.run(
        [sys.executable, "-m", "partywire.perf", "ring", "--contenders", "uvloop,asyncio", "--smoke", "--html", page],
        cwd=ROOT, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "/ best rival" in run.stdout
    assert "</html>" in page.read_text()
