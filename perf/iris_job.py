"""The job `iris` as its user meets it: `partywire run iris --local 3`, comparisons a second and bytes for each.

A comparison is one probe at one rotation against one gallery code. Its rate is the job's own: from the first probe's
shares to the last bit opened, at the slowest party. Bytes are those that a party sent for comparisons, at the party
that sent most; sharing the codes is counted in neither. Each run must end with a result equal to the plaintext answer.
What would make it lie: other load. Much of the time goes into products of shares, not into messages.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from partywire.perf.main_job import COMMAND, checked_report
from partywire.perf.report import Figure, print_figures, warn_if_busy

PUBLISHED_BYTES_MAX = 25.4
"""Of a party in the 32-bit pipeline of iris-mpc, ripple adder; the prefix adder sends 32.2."""


def run_once(arguments: list[str]) -> tuple[float, float]:
    """(comparisons a second, bytes for each at the party that sends most). Raises RuntimeError."""
    command = [str(COMMAND), "run", "iris", "--local", "3", "--json", *arguments]
    run = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    result = checked_report(run.returncode, run.stdout)["result"]
    return result["comparisons_per_second"], max(result["bytes_per_comparison"])


def main() -> None:
    description = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m partywire.perf.iris_job", description=description)
    parser.add_argument("--repeats", type=int, default=3, help="runs (3)")
    parser.add_argument("--json", action="store_true", help="JSON lines instead of a table")
    parser.add_argument("--smoke", action="store_true", help="tiny: does it run at all?")
    options = parser.parse_args()
    warn_if_busy()
    arguments = ["--gallery", "16", "--probes", "1"] if options.smoke else []
    try:
        samples = [run_once(arguments) for _ in range(1 if options.smoke else options.repeats)]
    except RuntimeError as error:
        sys.exit(f"{parser.prog}: {error}; its own message is above")
    rates, sent = zip(*samples, strict=True)
    figures = [
        Figure("iris: comparisons", "/s", rates),
        Figure("iris: sent for a comparison", "B", sent, PUBLISHED_BYTES_MAX, lower_is_better=True),
    ]
    print_figures(figures, json=options.json)


if __name__ == "__main__":
    main()
