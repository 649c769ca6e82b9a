"""One party of one contender, in a process of its own: opens it, plays when told, says how long it took.

Between the parent (party_set.py) and a contender's module. They talk in JSON lines over two inherited pipes, so that a
library that prints does no harm. First comes an Order; then any number of plays; the end of the pipe means to end, and
a parent that is killed takes us with it.

    parent: {"order": {...}}                        ours: {"ready": SECONDS}
    parent: {"play": UNITS}                         ours: {"span": [START_NS, END_NS], "latencies_ns": [[...], ...]}
    parent: {"end": true}                           ours: {"ended": true}, after the party has been closed
    at any time, as our last word:                  ours: {"error": SENTENCE, "not_offered": BOOLEAN}

A span is from the moment when the first session begins to the moment when the last one ends, on CLOCK_MONOTONIC, which
is one clock for all processes of a host. What a contender does before and behind, such as making sessions, is its own
business here, and measured elsewhere.
"""

from __future__ import annotations

import os
import socket
import sys
import time
import traceback
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

import orjson

from partywire.engine.child_process import die_with_parent

from .contender import CONTENDERS, NotOffered, Place
from .workloads import workload_kind

if TYPE_CHECKING:
    from .workloads import Channel, Stopwatch, Workload


@dataclass(frozen=True, slots=True)
class Order:
    """Everything a party process has to know."""

    contender: str
    workload: str
    parameters: dict[str, int]
    party: int
    ports: tuple[int, ...]
    dial_ports: tuple[int, ...]
    listener_fd: int

    @classmethod
    def decoded(cls, fields: dict[str, Any]) -> Order:
        """From what `asdict` made of it, after a trip as JSON."""
        return cls(**fields | {name: tuple(fields[name]) for name in ("ports", "dial_ports")})

    @property
    def work(self) -> Workload:
        """The workload, made from its name and parameters."""
        return workload_kind(self.workload)(**self.parameters)


def parameters_of(work: Workload) -> dict[str, int]:
    """What makes a workload again: the fields of its dataclass that its maker takes."""
    fields = asdict(work)  # type: ignore[call-overload]
    return {name: value for name, value in fields.items() if isinstance(value, int)}


class ClockedWork:
    """A workload that notes when the first of its sessions began and when the last one ended."""

    def __init__(self, work: Workload) -> None:
        self._work = work
        self.start_ns = sys.maxsize
        self.end_ns = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._work, name)

    async def play(self, channel: Channel, party: int, session: int, units: int, stopwatch: Stopwatch | None) -> None:
        now = time.monotonic_ns()
        if now < self.start_ns:
            self.start_ns = now
        await self._work.play(channel, party, session, units, stopwatch)
        self.end_ns = time.monotonic_ns()

    def take_span(self) -> tuple[int, int]:
        """The span of the last play.

        Raises:
            RuntimeError: no session played.
        """
        span = self.start_ns, self.end_ns
        if span[0] > span[1]:
            raise RuntimeError("the contender returned without having played a session")
        self.start_ns, self.end_ns = sys.maxsize, 0
        return span


class Parent:
    """The two pipes."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        for fd in (read_fd, write_fd):
            os.set_inheritable(fd, False)
        self._reader = os.fdopen(read_fd, "rb")
        self._writer = os.fdopen(write_fd, "wb")

    def read(self) -> dict[str, Any]:
        """The next command; to end, when the parent is gone."""
        line = self._reader.readline()
        return orjson.loads(line) if line else {"end": True}

    def write(self, message: dict[str, Any]) -> None:
        """Raises BrokenPipeError when the parent is gone."""
        self._writer.write(orjson.dumps(message) + b"\n")
        self._writer.flush()


def serve(parent: Parent) -> None:
    """The life of one party."""
    command = parent.read()
    if "order" not in command:
        return
    order = Order.decoded(command["order"])
    start = time.monotonic()
    os.set_inheritable(order.listener_fd, False)
    work = ClockedWork(order.work)
    with socket.socket(fileno=order.listener_fd) as listener:
        place = Place(order.party, len(order.ports), order.ports, order.dial_ports, listener)
        with CONTENDERS[order.contender].load().open_party(place, cast("Workload", work)) as party:
            parent.write({"ready": time.monotonic() - start})
            while "play" in (command := parent.read()):
                latencies_ns = party.play(command["play"])
                parent.write({"span": work.take_span(), "latencies_ns": latencies_ns})
    parent.write({"ended": True})


def main() -> int:
    die_with_parent()
    parent = Parent(int(sys.argv[1]), int(sys.argv[2]))
    try:
        serve(parent)
    except NotOffered as reason:
        parent.write({"error": str(reason), "not_offered": True})
        return 1
    except BrokenPipeError:
        return 1
    except BaseException as error:
        traceback.print_exc()
        text = str(error).strip().split("\n")[0]
        sentence = f"{type(error).__name__}: {text}" if text else type(error).__name__
        parent.write({"error": sentence, "not_offered": False})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
