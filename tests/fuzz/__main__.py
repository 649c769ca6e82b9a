"""`make fuzz`: run the fuzz targets, each for some seconds, and keep the shortest input that breaks one.

    python -m tests.fuzz [--seconds 20] [--seed 1] [--engine auto|atheris|mutations] [TARGET ...]

Atheris (`pip install -e ".[fuzz]"`) looks for inputs that reach new code; without it they are changed at random. The
exit code is 1 when a target broke: its input is then in tests/fuzz/corpus/TARGET/, and from there on a test.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Final

from tests.fuzz.mutations import mutations, shorter
from tests.fuzz.seeds import CORPUS, seeds_of
from tests.fuzz.targets import TARGETS

PROGRESS_S: Final = 5.0
BATCH: Final = 100
HANG_S: Final = 10
"""What one input may take under atheris; the mutations have no watchdog but whoever looks at them."""


def breaks(target: str, data: bytes) -> BaseException | None:
    """What the input does to the target."""
    try:
        TARGETS[target](data)
    except Exception as error:
        return error
    return None


def keep(target: str, data: bytes, error: BaseException) -> None:
    """Store a finding, as short as it can be made, and show it."""
    kind = type(error)
    data = shorter(data, lambda candidate: type(breaks(target, candidate)) is kind)
    error = breaks(target, data) or error
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{kind.__name__.lower()}-{hashlib.sha256(data).hexdigest()[:8]}"
    path.write_bytes(data)
    print(f"\n{target}: {len(data)} bytes break it: {data[:200]!r}", file=sys.stderr)
    traceback.print_exception(error)
    print(f"{target}: kept in {path}", file=sys.stderr)


def run_mutations(target: str, seconds: float, seed: int) -> bool:
    """Whether the target held."""
    started = told_at = time.monotonic()
    count = 0
    for data in mutations(seeds_of(target), seed):
        if (error := breaks(target, data)) is not None:
            keep(target, data, error)
            return False
        count += 1
        if not count % BATCH:
            now = time.monotonic()
            if now - told_at >= PROGRESS_S:
                told_at = now
                print(f"{target}: {count} inputs in {now - started:.0f} s", file=sys.stderr)
            if now - started >= seconds:
                break
    print(f"{target}: held against {count} inputs in {time.monotonic() - started:.1f} s (seed {seed})")
    return True


def run_atheris(target: str, seconds: float, seed: int) -> bool:
    """Whether the target held; atheris never returns, so that it has a process of its own."""
    with tempfile.TemporaryDirectory(prefix="partywire-fuzz-") as folder:
        corpus, found = Path(folder, "corpus"), Path(folder, "found")
        corpus.mkdir()
        found.mkdir()
        for number, data in enumerate(seeds_of(target)):
            (corpus / str(number)).write_bytes(data)
        arguments = [f"-max_total_time={max(1, int(seconds))}", f"-seed={seed}", f"-artifact_prefix={found}/"]
        arguments += [f"-timeout={HANG_S}", "-max_len=8192", "-print_final_stats=1", "-verbosity=1", str(corpus)]
        command = [sys.executable, "-m", "tests.fuzz.atheris_target", target, *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        lines = done.stdout.splitlines()
        figures = [line.split()[-1] for line in lines if "number_of_executed_units" in line]
        inputs = sorted(found.iterdir())
        for path in inputs:
            data = path.read_bytes()
            error = breaks(target, data)
            keep(target, data, error or RuntimeError(f"atheris ended with it and it does not repeat: {path.name}"))
        if done.returncode and not inputs:
            print("\n".join(lines[-20:]), file=sys.stderr)
        if done.returncode or inputs:
            return False
    print(f"{target}: held against {figures[0] if figures else '?'} inputs in {seconds:g} s (atheris, seed {seed})")
    return True


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz the parsers of the engine.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"some of: {', '.join(TARGETS)} (default: all)")
    parser.add_argument("--seconds", type=float, default=20.0, help="for each target (default: 20)")
    parser.add_argument("--seed", type=int, default=1, help="of the random changes (default: 1)")
    parser.add_argument("--engine", choices=["auto", "atheris", "mutations"], default="auto")
    options = parser.parse_args()
    if unknown := set(options.targets) - set(TARGETS):
        parser.error(f"no target is called {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    if not 0 < options.seconds <= 86_400:
        parser.error("--seconds must be between 0 and a day")
    has_atheris = importlib.util.find_spec("atheris") is not None
    if options.engine == "atheris" and not has_atheris:
        parser.error('atheris is not installed; pip install -e ".[fuzz]", or leave --engine out')
    run = run_atheris if has_atheris and options.engine != "mutations" else run_mutations
    if run is run_mutations:
        print("inputs are changed at random; with atheris they would follow the code", file=sys.stderr)
    held = [run(target, options.seconds, options.seed) for target in options.targets or TARGETS]
    print(f"{sum(held)} of {len(held)} targets held")
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
