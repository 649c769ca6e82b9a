"""The single measurements of ours, which no rival has a counterpart to: each a module that prints its figures.

Each runs in a process of its own, so that none inherits the other's memory, descriptors or warm caches.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import orjson

from .report import Figure, machine
from .rows import Row, figure_row


@dataclass(frozen=True, slots=True)
class Measurement:
    """One module of this folder that takes --json and --smoke."""

    module: str
    summary: str
    arguments: tuple[str, ...] = ()
    """Beyond --json, to have it take its due share of the time and no more."""


MEASUREMENTS = {
    "sessions": Measurement("sessions", "make_sessions(256), and from the start of the processes until all are ready"),
    "idle": Measurement("idle", "what an idle party costs: CPU, wake-ups, memory per party and session"),
    "reconnect": Measurement("reconnect", "how long a link is away whose connections were cut, in each mode"),
    "http": Measurement("http", "`partywire serve`: HTTP requests a second, and how long one takes"),
    "main": Measurement("main_job", "`partywire run digits` from the command line to the summary"),
    "iris-job": Measurement("iris_job", "`partywire run iris`: comparisons a second, and bytes sent for each"),
    "mpyc": Measurement("mpyc_demos", "MPyC programs over PartyWire and over MPyC's own transport"),
    "objects": Measurement("objects", "Python objects to bytes and back, beside tno.mpc.communication if it is there"),
    "pool": Measurement("pool", "a Pool beside that of tno.mpc.communication if it is there", ("--repeats", "3")),
    "peers": Measurement("peer_store", "a peer store with ten thousand peers: adding, looking up, searching, opening"),
    "substreams": Measurement(
        "substreams", "substreams of one connection, beside Go's yamux if it is there", ("--repeats", "3")
    ),
    "control-plane": Measurement(
        "control_plane", "rounds beside an idle and a busy control plane", ("--repeats", "5", "--seconds", "0.5")
    ),
    "lane": Measurement("ring", "one shared-memory ring between two processes"),
    "machine": Measurement("floors", "what this machine can do: memory, wake-ups, TCP, C", ("--seconds", "0.2")),
}


class MeasurementFailed(Exception):
    """Raised when a measurement's process failed; the text names it."""


def take(name: str, *, is_smoke: bool) -> list[Row]:
    """Run one measurement.

    Raises:
        MeasurementFailed: it said why on stderr.
    """
    module = f"partywire.perf.{MEASUREMENTS[name].module}"
    arguments = ("--smoke",) if is_smoke else MEASUREMENTS[name].arguments
    command = [sys.executable, "-m", module, "--json", *arguments]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        try:
            output, _ = process.communicate()
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise MeasurementFailed(f"{name}: `python -m {module}` ended with exit code {process.returncode}")
    where = machine()
    return [figure_row(name, parsed(line)) | {"machine": where} for line in output.splitlines()]


def parsed(line: bytes) -> Figure:
    """What a measurement printed."""
    fields = orjson.loads(line)
    return Figure(fields["name"], fields["unit"], tuple(fields["samples"]), fields["target"], fields["lower_is_better"])


def figure_of(row: Row) -> Figure:
    """For the table."""
    return Figure(
        row["parameters"]["figure"], row["unit"], tuple(row["samples"]), row["target"], row["lower_is_better"]
    )
