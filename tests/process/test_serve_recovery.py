"""Services whose processes are killed while they serve: they find each other again, and no accepted job is lost."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.services import NAMES, Service, processes_of, services, until

if TYPE_CHECKING:
    from pathlib import Path

GOOD, STEERED = "sample_jobs:GoodJob", "sample_jobs:SteeredJob"
VALUES = [0, 1, 2, 3, 4, 5]


def figure(service: Service, name: str) -> int:
    """One figure of GET /metrics."""
    _, _, text = service.ask_raw("GET", "/metrics")
    [line] = [line for line in text.decode().splitlines() if line.startswith(f"partywire_{name}{{")]
    return int(line.split()[-1])


@pytest.mark.slow
def test_io_processes_and_whole_parties_are_killed_and_all_jobs_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARTYWIRE_TEST_DIR", str(tmp_path))
    go = tmp_path / "go"
    table = f'jobs = ["{GOOD}", "{STEERED}"]\n'
    with services(tmp_path, dict.fromkeys(NAMES, table), tokens={}) as everybody:
        alice, bob, charlie = everybody

        # An I/O process dies during a job: that runs on when its link is back.
        first = alice.submit(STEERED)
        for service in everybody:
            service.state(first, "running")
        os.kill(processes_of(bob, "engine.io_process")[0], signal.SIGKILL)
        until(lambda: charlie.ask("GET", f"/jobs/{first}")[1]["progress"].get("retries"))
        go.touch()
        for service in everybody:
            entry = service.state(first, "done")
            assert (entry["tries"], entry["progress"]["retries"]) == (1, 1)
            assert service.values(first) == VALUES
            until(lambda service=service: service.health()["state"] == "serving")  # type: ignore[misc]
        go.unlink()

        # A party is killed during a job: the others wait for it, say so, and run the job with it once more.
        second = alice.submit(STEERED)
        for service in everybody:
            service.state(second, "running")
        behind = charlie.submit(GOOD)
        bob.kill()
        for service in (alice, charlie):
            until(lambda service=service: service.health()["state"] == "recovering")  # type: ignore[misc]
            assert "bob is away" in service.health()["cause"]
            assert service.health()["peers"]["bob"] != "up"
            status, headers, detail = service.ask_raw("POST", "/jobs", {"job": GOOD})
            assert (status, headers["Retry-After"]) == (503, "1")
            assert b"bob is away" in detail
            assert figure(service, "service_up") == 0
        go.touch()
        bob.start_again()
        bob.wait_ready()
        for service in everybody:
            assert service.state(second, "done", "failed")["causes"] == {}
            assert service.state(behind, "done")["party"] == "charlie"
            assert service.values(second) == service.values(behind) == VALUES
        assert [service.state(second, "done")["tries"] for service in everybody] == [2, 1, 2]

        # The party that orders the jobs is killed; its memory is gone, that of the others is not.
        alice.kill()
        alice.start_again()
        alice.wait_ready()
        until(lambda: bob.health()["state"] == "serving")
        third = bob.submit(GOOD)
        for service in everybody:
            assert service.state(third, "done")["party"] == "bob"
            assert service.health()["recoveries"] == figure(service, "service_recoveries_total")
            assert service.ask("GET", f"/jobs/{first}")[0] == (200 if service is charlie else 404)
        assert [service.health()["recoveries"] for service in everybody] == [0, 1, 3]
        for service in everybody:
            code, err = service.end()
            assert (code, "Traceback" in err) == (0, False), err
