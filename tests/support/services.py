"""Parties as services, `partywire serve --config`, each in a process of its own; killed at the end if they live."""

from __future__ import annotations

import http.client
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from tests.support.processes import wait_until_gone
from tests.support.reserved_ports import reserved_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FOLDER = Path(__file__).resolve().parent.parent / "cli"
NAMES = ("alice", "bob", "charlie")
DEADLINE_S = 60.0


class Service:
    """One party's service, as its clients see it."""

    def __init__(
        self, name: str, process: subprocess.Popen[str], token: str = "", command: tuple[str, ...] = ()
    ) -> None:
        self.name = name
        self.process = process
        self.port = 0
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._command = command

    def wait_ready(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := re.match(rf"{self.name} serves http://127\.0\.0\.1:(\d+) ", line):
                self.port = int(found[1])
                return
        raise AssertionError(f"{self.name} did not start: {self.process.communicate()}")

    def ask(self, method: str, path: str, body: object = None, *, token: bool = True) -> tuple[int, Any]:
        status, _, data = self.ask_raw(method, path, body, token=token)
        return status, orjson.loads(data) if data else None

    def ask_raw(
        self, method: str, path: str, body: object = None, *, token: bool = True
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        try:
            headers = dict(self._headers) if token else {}
            if body is not None:
                headers["Content-Type"] = "application/json"
            connection.request(method, path, None if body is None else orjson.dumps(body), headers)
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def submit(self, job: str, **options: object) -> str:
        status, document = self.ask("POST", "/jobs", {"job": job, "options": options})
        assert status == 202, document
        identifier: str = document["id"]
        return identifier

    def state(self, job_id: str, *wanted: str) -> dict[str, Any]:
        """The job once it has one of these states."""

        def look() -> dict[str, Any] | None:
            status, document = self.ask("GET", f"/jobs/{job_id}")
            return document if status == 200 and document["state"] in wanted else None

        found: dict[str, Any] = until(look)
        return found

    def values(self, job_id: str) -> list[int]:
        """What a job of the samples has opened."""
        status, document = self.ask("GET", f"/jobs/{job_id}/result")
        assert status == 200, document
        values: list[int] = document["result"]["values"]
        return values

    def health(self) -> dict[str, Any]:
        status, document = self.ask("GET", "/health")
        assert status == (200 if document["state"] == "serving" else 503)
        health: dict[str, Any] = document
        return health

    def end(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGTERM)
        _, err = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, err

    def kill(self) -> None:
        """The opener dies; its family follows."""
        family = [child for child in children_of(self.process.pid)]
        family += [grandchild for child in family for grandchild in children_of(child)]
        self.process.kill()
        self.process.communicate(timeout=DEADLINE_S)
        wait_until_gone(family)

    def start_again(self) -> None:
        """Once its process has ended. Call `wait_ready` when the others run."""
        self.process = start(self._command)


def start(command: tuple[str, ...]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, cwd=FOLDER, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def until(look: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.02)
    raise AssertionError("it never came")


def children_of(pid: int) -> list[int]:
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


def processes_of(service: Service, module: str) -> list[int]:
    """Pids of the processes of a service's family that run a module of ours."""
    [supervisor] = children_of(service.process.pid)
    family = children_of(supervisor)
    return [pid for pid in family if module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()]


@contextmanager
def services(folder: Path, tables: dict[str, str], *options: str, tokens: dict[str, str]) -> Iterator[list[Service]]:
    """One service for each name and the rest of its table [http], with further options of the command."""
    started: list[Service] = []
    with reserved_ports(len(tables)) as ports:
        parties = "".join(f'{name} = "127.0.0.1:{port}"\n' for name, port in zip(tables, ports, strict=True))
        try:
            for name, table in tables.items():
                path = folder / f"{name}.toml"
                path.write_text(f'name = "{name}"\n[parties]\n{parties}[http]\nlisten = "127.0.0.1:0"\n{table}')
                command = (sys.executable, "-m", "partywire", "serve", "--config", str(path), *options)
                started.append(Service(name, start(command), tokens.get(name, ""), command))
            for service in started:
                service.wait_ready()
            yield started
        finally:
            for service in started:
                if service.process.poll() is None:
                    service.process.kill()
                service.process.communicate()
