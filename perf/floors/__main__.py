"""What does the same work cost in C, and what can this machine do at all?

Small measurements first (memcpy, shared memory, eventfd, blocking TCP), then ring rounds of three parties: a message to
the next party and one from the previous, per session; rounds a second, summed over the sessions. All processes run on
this machine, over loopback, wherever the scheduler puts them; repeats go around all floors.

What would make it lie: cores shared with other work (each wake-up then waits for them), and comparing digits of two
runs. Compare rows of one run.
"""

from __future__ import annotations

import argparse
import sys

from partywire.perf.report import Figure, print_figures, warn_if_busy
from partywire.perf.workloads import RingRounds

from . import FLOORS, FloorFailed, FloorUnsupported, machine_floors, run_floor

SESSIONS = (1, 8, 64, 256)
SIZES = (64, 4096, 65536, 1024 * 1024)
SMOKE_SECONDS = 0.01


def ring_figures(seconds: float, repeats: int, sessions: tuple[int, ...], sizes: tuple[int, ...]) -> list[Figure]:
    """One figure for each size, number of sessions and floor."""
    rates: dict[str, list[float]] = {}
    for _ in range(repeats):
        for size in sizes:
            for count in sessions:
                for name in FLOORS:
                    rate = run_floor(name, RingRounds(sessions=count, size=size), seconds).rate
                    rates.setdefault(f"{name}: {size:,} B, {count} sessions", []).append(rate)
    return [Figure(name, "rounds/s", tuple(samples)) for name, samples in rates.items()]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m partywire.perf.floors",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=0.5, help="how long each run is measured (default 0.5)")
    parser.add_argument("--repeats", type=int, default=3, help="how often each is run (default 3)")
    parser.add_argument("--json", action="store_true", help="one JSON object per figure")
    parser.add_argument("--smoke", action="store_true", help="tiny: shows that it runs, measures nothing")
    options = parser.parse_args(arguments)
    if options.seconds <= 0 or options.repeats < 1:
        parser.error("--seconds must be above 0 and --repeats at least 1")
    try:
        if options.smoke:
            figures = machine_floors(SMOKE_SECONDS) + ring_figures(SMOKE_SECONDS, 1, (8,), (64,))
        else:
            warn_if_busy()
            figures = machine_floors(options.seconds, options.repeats)
            figures += ring_figures(options.seconds, options.repeats, SESSIONS, SIZES)
    except (FloorUnsupported, FloorFailed) as error:
        print(f"no floors: {error}", file=sys.stderr)
        return 1
    print_figures(figures, json=options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
