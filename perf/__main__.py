"""Run every measurement one after the other: `python -m partywire.perf [--json] [--smoke]`."""

from __future__ import annotations

import subprocess
import sys

MEASUREMENTS = ("partywire.perf.ring", "partywire.perf.sessions", "partywire.perf.main_job", "partywire.perf.rounds")


def main() -> int:
    # Each in a process of its own, so that none inherits the other's memory, descriptors or warm caches.
    worst = 0
    for name in MEASUREMENTS:
        print(f"# {name}", file=sys.stderr, flush=True)
        worst = max(worst, subprocess.run([sys.executable, "-m", name, *sys.argv[1:]], check=False).returncode)
    return worst


if __name__ == "__main__":
    sys.exit(main())
