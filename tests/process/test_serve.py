"""`partywire serve`: three parties as services, used over HTTP and treated badly."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from partywire.workers.cli import run
from tests.cli.command import command, start
from tests.support.services import DEADLINE_S, Service, processes_of, services, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOKEN = "0123456789abcdef-token"
GOOD, OTHER = "sample_jobs:GoodJob", "sample_jobs:OtherJob"
RAISING, ENDLESS = "sample_jobs:RaisingJob", "sample_jobs:EndlessJob"


@contextmanager
def three_services(folder: Path) -> Iterator[list[Service]]:
    (folder / "token").write_text(f"{TOKEN}\n")
    (folder / "token").chmod(0o600)
    everything = f'["{GOOD}", "{OTHER}", "{RAISING}", "{ENDLESS}"]'
    tables = {
        "alice": f'jobs = {everything}\nhandlers = "sample_handlers:app"\n[http.options."{GOOD}"]\noffset = 5\n',
        "bob": f'jobs = ["{GOOD}", "{RAISING}", "{ENDLESS}"]\n',
        "charlie": f'jobs = {everything}\ntoken_file = "token"\n',
    }
    with services(folder, tables, tokens={"charlie": TOKEN}) as started:
        yield started


@pytest.mark.slow
def test_three_services_run_the_same_jobs_and_outlive_whatever_goes_wrong(tmp_path: Path) -> None:
    with three_services(tmp_path) as everybody:
        alice, bob, charlie = everybody

        # Submitted at one party, seen and finished at all of them.
        job = bob.submit(GOOD, size=4)
        for service in everybody:
            assert service.state(job, "done")["options"] == {"size": 4}
            status, document = service.ask("GET", f"/jobs/{job}/result")
            assert (status, document["result"], document["checked"]) == (200, {"values": [0, 1, 2, 3, 4, 5]}, None)

        # What a client may not do.
        assert charlie.ask("GET", "/health", token=False)[0] == 401
        for body, status in (
            ({"job": GOOD, "options": {"offset": 1}}, 422),  # a party's own option
            ({"job": GOOD, "options": {"size": "many"}}, 422),
            ({"job": "digits"}, 422),
            ({"job": "os:system"}, 422),
            ({"job": GOOD, "more": 1}, 422),
        ):
            assert alice.ask("POST", "/jobs", body)[0] == status
        assert alice.ask("GET", "/jobs/0000000000000000")[0] == 404

        # A job that one party does not take is refused with its reason, where it was submitted and everywhere.
        refused = alice.submit(OTHER)
        for service in everybody:
            assert "bob does not run this job" in service.state(refused, "refused")["causes"]["bob"]
        assert alice.ask("GET", f"/jobs/{refused}/result")[0] == 409
        assert alice.ask("DELETE", f"/jobs/{refused}")[0] == 409

        # A job that fails ends nothing else. Its words stay at the party where it failed.
        failed = charlie.submit(RAISING)
        assert "two is too many" in bob.state(failed, "failed")["causes"]["bob"]
        assert "two is too many" not in str(alice.state(failed, "failed"))
        alice.state(alice.submit(GOOD), "done")

        # Handlers of the user's own, described with the rest.
        assert alice.ask("GET", "/broken") == (500, problem(500, "the handler failed: ArithmeticError"))
        assert alice.ask("GET", "/unspeakable")[0] == 500
        paths = alice.ask("GET", "/openapi.json")[1]["paths"]
        assert {"/jobs", "/jobs/{job_id}", "/jobs/{job_id}/result", "/health", "/openapi.json", "/pid"} <= set(paths)

        # The worker is killed while it answers: a clean 502, and a new one knows the book.
        worker = alice.ask("GET", "/pid")[1]
        with socket.create_connection(("127.0.0.1", alice.port), DEADLINE_S) as waiting:
            waiting.sendall(b"GET /forever HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert alice.ask("GET", "/pid")[1] == worker  # so that the request before it has been taken
            os.kill(worker, signal.SIGKILL)
            answer = waiting.recv(65536)
            assert answer.startswith(b"HTTP/1.1 502 ")
            assert b"was killed by SIGKILL" in answer
        assert until(lambda: pid if isinstance(pid := alice.ask("GET", "/pid")[1], int) else 0) != worker
        assert until(lambda: alice.ask("GET", f"/jobs/{job}")[0] == 200)

        # The front is killed: the next one goes on with the same listening socket.
        [front] = processes_of(bob, "engine.front")
        os.kill(front, signal.SIGKILL)
        assert until(lambda: try_health(bob)) == 200

        # A party stops during a job: that fails everywhere with the reason, and the others say whom they wait for.
        endless = alice.submit(ENDLESS)
        bob.state(endless, "running")
        behind = alice.submit(GOOD)
        code, err = bob.end()
        assert (code, "Traceback" in err) == (0, False), err
        for service in (alice, charlie):
            assert "bob" in str(service.state(endless, "failed")["causes"])
            until(lambda service=service: service.health()["cause"])  # type: ignore[misc]
            health = service.health()
            assert health["state"] == "recovering"
            assert "bob" in health["cause"]
            status, headers, said = service.ask_raw("POST", "/jobs", {"job": GOOD})
            assert (status, headers["Retry-After"]) == (503, "1")
            assert b"bob" in said

        # It is started again: what waited is run, by all.
        bob.start_again()
        bob.wait_ready()
        for service in everybody:
            assert service.state(behind, "done")["party"] == "alice"
            assert service.values(behind) == [0, 1, 2, 3, 4, 5]
            assert service.health()["recoveries"] == (0 if service is bob else 1)
        assert bob.ask("GET", f"/jobs/{endless}")[0] == 404
        for service, traces in ((alice, 2), (bob, 0), (charlie, 0)):
            code, err = service.end()
            assert code == 0
            assert err.count("Traceback") == traces  # of the two handlers that failed
            assert err.count("partywire: alice: the HTTP worker: a handler for GET failed\n") == traces


def test_a_local_run_serves_all_parties_until_ctrl_c(tmp_path: Path) -> None:
    arguments = ["serve", "--local", "2", "--listen", "127.0.0.1:0", "--jobs", "sample_jobs:PairJob"]
    process = start(*arguments, "--security", "noise", "--no-retry", TMPDIR=str(tmp_path))
    try:
        assert process.stdout is not None
        ports: dict[str, int] = {}
        while len(ports) < 2:
            line = process.stdout.readline()
            assert line, f"it ended: {process.communicate()}"
            if found := re.match(r"(\w+) serves http://127\.0\.0\.1:(\d+) ", line):
                ports[found[1]] = int(found[2])
        alice, bob = Service("alice", process), Service("bob", process)
        alice.port, bob.port = ports["alice"], ports["bob"]
        job = bob.submit("sample_jobs:PairJob")
        assert alice.state(job, "done")["party"] == "bob"
        status, text = get_text(alice, "/metrics")
        assert status == 200
        assert 'partywire_link_up{party="alice"' in text
        assert list(tmp_path.glob("partywire-keys-*"))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=DEADLINE_S)
        assert (process.returncode, err) == (0, "")
        assert not list(tmp_path.iterdir()), "the keys end with the run"
    finally:
        process.kill()
        process.communicate()


def get_text(service: Service, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=DEADLINE_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def problem(status: int, detail: str) -> dict[str, Any]:
    return {"type": "about:blank", "title": http.client.responses[status], "status": status, "detail": detail}


def try_health(service: Service) -> int:
    try:
        return service.ask("GET", "/health")[0]
    except OSError:  # the connection that the old front had accepted
        return 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "serve needs either --config FILE or --local N"),
        (["--local", "3", "--config", "x.toml"], "serve needs either"),
        (["--config", "missing.toml"], "cannot be read"),
        (["--config", "x.toml", "--jobs", "a"], "are for --local"),
        (["--config", "x.toml", "--security", "tls"], "--security is for --local"),
        (["--local", "3", "--retries", "1", "--no-retry"], "exclude each other"),
        (["--local", "3", "--listen", "10.0.0.1:80"], "insecure"),
        (["--local", "3", "--listen", "127.0.0.1:0", "--jobs", "nope"], "there is no job 'nope'"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["serve", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert sentence in err


def test_a_failure_is_one_json_line_where_the_logs_are(tmp_path: Path) -> None:
    path = tmp_path / "alice.toml"
    path.write_text('name = "alice"\n[parties]\nalice = "127.0.0.1:7001"\nbob = "127.0.0.1:7002"\n')
    outcome = command("serve", "--config", str(path), "--log-format", "json")
    line = orjson.loads(outcome.err)
    assert (outcome.code, line["event"], line["party"], line["exit_code"]) == (2, "service_failed", "alice", 2)
    assert "no table [http]" in line["message"]


def test_handlers_that_cannot_be_loaded_end_the_start_with_their_error(tmp_path: Path) -> None:
    outcome = command(
        "serve",
        "--local",
        "2",
        "--listen",
        "127.0.0.1:0",
        "--handlers",
        "sample_jobs:GoodJob",
        "--jobs",
        "sample_jobs:PairJob",
    )
    assert outcome.code != 0
    assert "has no GoodJob that is a partywire Handlers" in outcome.err
