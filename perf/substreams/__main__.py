"""Substreams of yamux over one connection: ours beside Go's hashicorp/yamux and py-libp2p.

Each player plays both ends, in two processes on this host, over TCP in the clear; the players take turns. Each uses its
library as its users do: one write (and drain) for each message, one read of a whole message.

    64 B messages       one way, on one substream, until the last one is acknowledged
    64 KiB blocks       the same
    ping-pong           64 B there and back
    open and close      a substream is opened, one byte sent, one received, and it is closed; one after the other

Go takes part where `go` and the package golang-github-hashicorp-yamux-dev of Debian are installed; py-libp2p from the
environments of the interpreters that `--python` names:

    python -m venv libp2p && libp2p/bin/pip install 'libp2p==0.8.*'
    python -m partywire.perf.substreams --python libp2p/bin/python

A ratio above 1 says that ours was better in the same turn. What would make it lie: other load, and fewer than two
cores. hashicorp/yamux and py-libp2p send each message by a system call of its own; ours sends what was written in one
turn of the event loop together, and shows its lead mostly there.
"""

from __future__ import annotations

import argparse
import os
import select
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import orjson

from partywire.perf.report import Figure, print_figures, warn_if_busy

if TYPE_CHECKING:
    from collections.abc import Sequence

FOLDER: Final = Path(__file__).parent
GO_SOURCES: Final = Path("/usr/share/gocode")
GO_PACKAGE: Final = "github.com/hashicorp/yamux"
BUILD_TIMEOUT_S: Final = 300
DEADLINE_S: Final = 120
REPEATS: Final = 5
SECONDS: Final = 1.0

OURS: Final = "partywire"
GO: Final = "hashicorp/yamux"
LIBP2P: Final = "py-libp2p"

MICROSECONDS: Final = 1e6
BLOCK_MB: Final = 64 * 1024 / 1e6

TARGETS: Final = {
    ("small", GO): 0.5,
    ("block", GO): 0.5,
    ("ping", GO): 0.5,
    ("open", GO): 0.5,
    ("small", LIBP2P): 20.0,
    ("block", LIBP2P): 5.0,
}
"""How many times better ours is meant to be."""

CASES: Final = {"small": "64 B messages", "block": "64 KiB blocks", "ping": "ping-pong", "open": "open and close"}


@dataclass(frozen=True, slots=True)
class Player:
    """Who plays, and the command that `serve` or `dial PORT SECONDS` is added to."""

    name: str
    command: tuple[str, ...]


class PlayFailed(Exception):
    """Raised when a player's process failed; the text says which and why."""


def build_go(folder: Path) -> Path:
    """The program of Go.

    Raises:
        PlayFailed: it cannot be built here, and why.
    """
    if shutil.which("go") is None or not (GO_SOURCES / "src" / GO_PACKAGE).exists():
        raise PlayFailed(f"{GO} is left out: apt-get install golang-go golang-github-hashicorp-yamux-dev")
    program = folder / "peer"
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": str(GO_SOURCES)}
    command = ["go", "build", "-o", str(program), str(FOLDER / "peer.go")]
    try:
        made = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise PlayFailed(f"{GO} is left out: go did not build it within {BUILD_TIMEOUT_S} s") from None
    if made.returncode:
        raise PlayFailed(f"{GO} is left out: {made.stderr.strip()}")
    return program


def play(player: Player, seconds: float) -> dict[str, float]:
    """Rates by case, of one visit.

    Raises:
        PlayFailed: a process failed, or did not end.
    """
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [*player.command, *arguments]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    try:
        server = start("serve")
        assert server.stdout is not None
        is_there, _, _ = select.select([server.stdout], [], [], DEADLINE_S)
        port = server.stdout.readline().strip() if is_there else ""
        if not port:
            raise PlayFailed(f"{player.name}: {_last_words(server)}")
        dialler = start("dial", port, str(seconds))
        output, errors = dialler.communicate(timeout=DEADLINE_S)
        if dialler.returncode:
            raise PlayFailed(f"{player.name}: {(errors.strip().splitlines() or ['it said nothing'])[-1]}")
    except subprocess.TimeoutExpired:
        raise PlayFailed(f"{player.name} did not end within {DEADLINE_S} s") from None
    except OSError as error:
        raise PlayFailed(f"{player.name}: {player.command[0]} cannot be started: {error.strerror}") from None
    finally:
        for process in started:
            process.kill()
            process.communicate()
    rates: dict[str, float] = orjson.loads(output)
    return rates


def _last_words(process: subprocess.Popen[str]) -> str:
    process.kill()
    _, errors = process.communicate()
    return (errors.strip().splitlines() or ["it said nothing"])[-1]


def measure(players: Sequence[Player], repeats: int, seconds: float) -> list[Figure]:
    """Of each case everybody's figure, then how many times better ours is than each other one."""
    samples: dict[str, list[dict[str, float]]] = {player.name: [] for player in players}
    for _ in range(repeats):
        for player in players:
            samples[player.name].append(play(player, seconds))
    made: list[Figure] = []
    for case, title in CASES.items():
        for name, visits in samples.items():
            made.append(_figure(f"{title}, {name}", case, [visit[case] for visit in visits]))
        ours = samples[OURS]
        for name, visits in samples.items():
            if not name.startswith(OURS):
                ratios = tuple(our[case] / their[case] for our, their in zip(ours, visits, strict=True))
                made.append(Figure(f"{title}, ratio to {name}", "x", ratios, TARGETS.get((case, name))))
    return made


def _figure(name: str, case: str, rates: Sequence[float]) -> Figure:
    if case == "ping":
        return Figure(name, "us", tuple(MICROSECONDS / rate for rate in rates), lower_is_better=True)
    if case == "block":
        return Figure(name, "MB/s", tuple(rate * BLOCK_MB for rate in rates))
    return Figure(name, "/s", tuple(rates))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m partywire.perf.substreams", description=__doc__.split("\n")[0], epilog="perf/README.md has more"
    )
    parser.add_argument("--python", metavar="PATH", help="an interpreter with py-libp2p")
    parser.add_argument("--repeats", type=int, default=REPEATS, help=f"turns ({REPEATS})")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"about, for each case ({SECONDS:g})")
    parser.add_argument("--json", action="store_true", help="JSON lines instead of a table")
    parser.add_argument("--smoke", action="store_true", help="tiny, without Go: does it run at all?")
    options = parser.parse_args()
    ours = (sys.executable, "-m", "partywire.perf.substreams.ours")
    players = [Player(OURS, ours), Player(f"{OURS} on uvloop", (*ours, "--uvloop"))]
    if options.python:
        players.append(Player(LIBP2P, (options.python, str(FOLDER / "libp2p_peer.py"))))
    with TemporaryDirectory() as folder:
        try:
            if options.smoke:
                found = measure(players, 1, 0.01)
            else:
                warn_if_busy()
                try:
                    players.append(Player(GO, (str(build_go(Path(folder))),)))
                except PlayFailed as left_out:
                    print(left_out, file=sys.stderr)
                found = measure(players, options.repeats, options.seconds)
        except PlayFailed as error:
            sys.exit(f"substreams: {error}")
    print_figures(found, json=options.json)


if __name__ == "__main__":
    main()
