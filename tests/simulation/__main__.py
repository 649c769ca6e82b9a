"""Simulated parties: m engines in one process, under a clock, a network and a chance of one seed.

    python -m tests.simulation 7            one seed, with a readable trace      make simulate SEEDS=7
    python -m tests.simulation 5000-9999    many; those that fail are named      make simulate SEEDS=5000-9999

What is real: `Party` and its agreement on sessions, `Worker`, sessions, lanes and mailboxes, rings in shared memory,
doorbells (eventfds), and in each I/O process `LinkKeeper` with dialler, greeting, handshakes, link machine, multiplexer
and pumps. What is played: the supervisor, the gateway and the process around the keepers (family.py), the network
(network.py), and time (world.py). loop.py is the asyncio loop of one simulated process.

A seed decides everything that the engine does not (plan.py): sizes, delays, where a send or a receive is cut, who runs
next, who loses its core between arming and looking, and which faults come when. program.py is what each party does;
simulation.py says what is promised and judges; ledger.py knows what was sent. canaries.py plants bugs, to see that the
judge sees them. With `--substreams` control connections carry some beside that of the control codec (chatter.py).

Further workers are real but for the loop around them (child.py). Not simulated: HTTP, secured links, links of
iris-mpc's protocol, several addresses of a name, strangers at the gateway, and the compiled core's calls on sockets
(streams here are no sockets). Turns of a process are atomic but for one place, the doorbell.
"""

from __future__ import annotations

import argparse
import logging
import sys

from .simulation import Simulation
from .world import Violation


def main() -> int:
    """The command. Returns 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=(__doc__ or "").splitlines()[0])
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("seeds", type=_range_of, nargs="?", metavar="N | A-B", help="one with its trace, or all")
    which.add_argument("--seed", type=_range_of, metavar="N", help="the same as N")
    parser.add_argument("--substreams", action="store_true", help="control connections carry some, which are busy")
    arguments = parser.parse_args()
    seeds: range = arguments.seeds or arguments.seed
    logging.disable(logging.CRITICAL)  # of the parties; the trace says more
    if len(seeds) == 1:
        return _run(seeds[0], substreams=arguments.substreams, is_tracing=True)
    failed = sum(_run(seed, substreams=arguments.substreams) for seed in seeds)
    print(f"{len(seeds)} seeds, {failed} broke a promise")
    return min(failed, 1)


def _range_of(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def _run(seed: int, *, substreams: bool, is_tracing: bool = False) -> int:
    simulation = Simulation(seed, is_tracing=is_tracing, substreams=substreams)
    violation: Violation | None = None
    try:
        report = simulation.run()
    except Violation as error:
        violation = error
    if is_tracing:
        print(simulation.plan)
        print(*simulation.world.trace, sep="\n")
    if violation is not None:
        print(violation)
        return 1
    if is_tracing:
        print(
            f"seed {seed}: {report.steps} steps, {report.seconds:.3f} s, {report.messages} messages, "
            f"{report.failures} failures, fingerprint {report.fingerprint:x}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
