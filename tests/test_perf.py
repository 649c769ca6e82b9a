"""Every measurement runs, tiny, so that none rots. What they print is never judged here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("name", ["ring", "sessions", "main_job", "rounds"])
def test_a_measurement_runs_and_prints_json_lines(name: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", f"partywire.perf.{name}", "--smoke", "--json"],
        cwd=ROOT, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    rows = [orjson.loads(line) for line in run.stdout.splitlines()]
    assert rows
    assert all(min(row["samples"]) > 0 and row["commit"] for row in rows)
