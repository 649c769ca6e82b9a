"""The measurement of the ring runs tiny, so that it never rots; its figures are not judged here."""

from __future__ import annotations

import json
import subprocess
import sys


def test_the_ring_measurement_runs_and_prints_every_figure() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "partywire.perf.ring", "--smoke", "--json"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(figures) == 8
    # The costs are differences of tiny timings here: noise may push them below zero.
    assert all(figure["median"] > 0 for figure in figures if figure["target"])
