"""Freed memory of messages stays with the process."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource
from partywire.workers.allocation import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def churn():
    for _ in range(20):
        held = [b"x" * (1 << 20) for _ in range(8)]
        del held

kept = keep_freed_memory()
churn()
before = faults()
churn()
print(kept, faults() - before)
"""


def run(**settings: str) -> tuple[bool, int]:
    """Whether the thresholds were set, and the page faults of 160 messages of 1 MiB."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=settings, stdout=subprocess.PIPE, text=True, timeout=30, check=True
    )
    kept, faults = done.stdout.split()
    return kept == "True", int(faults)


def test_messages_that_come_and_go_cost_no_page_faults() -> None:
    kept, faults = run()
    if not kept:
        pytest.skip("the C library is not glibc")
    assert faults < 1000  # of 40,960 pages


def test_settings_of_the_user_are_left_alone() -> None:
    kept, faults = run(MALLOC_MMAP_THRESHOLD_="131072", MALLOC_TRIM_THRESHOLD_="131072")
    assert not kept
    assert faults > 20_000
