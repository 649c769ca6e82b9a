"""How long it takes to make bytes of objects and objects of bytes, ours and tno.mpc.communication's side by side.

Each library runs object_cases.py, which says what is measured, in a process of its own. The other library takes part
where it is installed beside ours, or in the environments of the interpreters that `--python` names: its versions 4.x
and 5.x exclude each other. Figures are microseconds. What would make it lie: other load.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import orjson

from partywire.perf.report import Figure, print_figures, warn_if_busy

PROGRAM: Final = Path(__file__).with_name("object_cases.py")
ASK_VERSION: Final = "import importlib.metadata as m; print(m.version('tno.mpc.communication'))"
DEADLINE_S: Final = 300


class MeasurementRefused(Exception):
    """Raised when a library could not play; the text says why."""


def play(python: str, library: str, *, is_smoke: bool) -> dict[str, Any]:
    """What object_cases.py printed under an interpreter."""
    arguments = ["--small", "--repeats", "1"] if is_smoke else []
    command = [python, "-P", str(PROGRAM), library, *arguments]  # -P: a module of this folder is called http
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise MeasurementRefused(f"{library} under {python}: {reason}")
    answers: dict[str, Any] = orjson.loads(done.stdout.splitlines()[-1])
    return answers


def rivals(pythons: list[str]) -> list[tuple[str, str]]:
    """(name with version, interpreter) of each other library."""
    found = []
    if importlib.util.find_spec("tno") is not None:
        found.append((f"tno {metadata.version('tno.mpc.communication')}", sys.executable))
    for python in pythons:
        done = subprocess.run([python, "-c", ASK_VERSION], capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise MeasurementRefused(f"{python} has no tno.mpc.communication")
        found.append((f"tno {done.stdout.strip()}", python))
    return found


def figures(name: str, answers: dict[str, Any]) -> list[Figure]:
    """Both directions of each case."""
    made = []
    for case, answer in answers.items():
        for direction in ("pack", "unpack"):
            kept = "" if answer["same"] or direction == "pack" else " (as another type)"
            samples = tuple(seconds * 1e6 for seconds in answer[direction])
            made.append(Figure(f"{case}, {direction}, {name}{kept}", "us", samples, lower_is_better=True))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m partywire.perf.objects", description=__doc__.split("\n")[0])
    parser.add_argument("--python", action="append", default=[], metavar="PATH", help="an interpreter with a rival")
    parser.add_argument("--json", action="store_true", help="JSON lines instead of a table")
    parser.add_argument("--smoke", action="store_true", help="tiny: does it run at all?")
    options = parser.parse_args()
    warn_if_busy()
    found: list[Figure] = []
    try:
        found += figures("partywire", play(sys.executable, "partywire", is_smoke=options.smoke))
        for name, python in rivals(options.python):
            found += figures(name, play(python, "tno", is_smoke=options.smoke))
    except MeasurementRefused as error:
        sys.exit(f"objects: {error}")
    found.sort(key=lambda figure: figure.name.rsplit(", ", 1)[0])
    print_figures(found, json=options.json)


if __name__ == "__main__":
    main()
