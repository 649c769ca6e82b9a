"""One party of three: plays every scenario of test_executor.py, one after another, and prints what it saw.

Called with the number of a pipe that has its configuration and its listening socket.
"""

from __future__ import annotations

import json
import os
import pickle
import socket
import sys
import threading
from concurrent.futures import BrokenExecutor
from typing import TYPE_CHECKING, Any

from partywire import BlockingParty, BlockingSession, Session
from partywire.workers.adapters.executor import PartyExecutor

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

GATE = threading.Event()
DEADLINE_S = 60.0


async def total(session: Session, number: int, *, offset: int = 0) -> int:
    values = await session.gather(number.to_bytes(8, "little"))
    return offset + sum(int.from_bytes(value, "little") for value in values)


def plain_total(session: BlockingSession, number: int) -> int:
    return sum(int.from_bytes(value, "little") for value in session.gather(number.to_bytes(8, "little")))


async def picky(session: Session, number: int) -> int:
    if number == 13:
        raise ValueError("the input was 13")
    return await total(session, number)


def gated(session: BlockingSession) -> int:
    assert GATE.wait(DEADLINE_S)
    return plain_total(session, 1)


def other(session: BlockingSession) -> None:
    raise AssertionError("never run")


def outcome(future: Future[Any]) -> list[Any]:
    """Its value, or what it raises."""
    try:
        return ["value", future.result(DEADLINE_S)]
    except BaseException as error:
        cause = error.__cause__
        return [type(error).__name__, str(error), type(cause).__name__ if cause is not None else None]


def until_running(future: Future[Any]) -> None:
    """The parties begin to agree on it."""
    while not future.running():
        threading.Event().wait(0.005)


def results(party: BlockingParty) -> Any:
    with PartyExecutor(party, sessions=4) as executor:
        mapped = list(executor.map(total, range(200)))
        mixed = [executor.submit(job, k) for k in range(6) for job in (total, plain_total)]
        named = executor.submit(total, party.index, offset=100)
        return [mapped, [outcome(future) for future in mixed], outcome(named)]


def failures(party: BlockingParty) -> Any:
    with PartyExecutor(party) as executor:
        inputs = [13 if (party.name, k) in (("bob", 3), ("charlie", 7)) else k for k in range(10)]
        return [outcome(future) for future in [executor.submit(picky, number) for number in inputs]]


def cancellation(party: BlockingParty) -> Any:
    GATE.clear()
    with PartyExecutor(party) as executor:
        first = executor.submit(gated)
        until_running(first)
        second, third = executor.submit(plain_total, 2), executor.submit(plain_total, 3)
        said = [first.cancel(), second.cancel() if party.name == "alice" else None]
        GATE.set()
        return [said, outcome(first), outcome(second), outcome(third)]


def room(party: BlockingParty) -> Any:
    GATE.clear()
    with PartyExecutor(party, pending_max=1) as executor:
        first = executor.submit(gated)
        until_running(first)
        threading.Timer(0.05, GATE.set).start()
        second = executor.submit(plain_total, 2)
        was_done = first.done()
        refused: list[str] = []

        def submit_again(_: Future[Any]) -> None:
            try:
                executor.submit(plain_total, 3)
            except RuntimeError as error:
                refused.append(str(error))

        second.add_done_callback(submit_again)
        said = [was_done, outcome(second)]
    return [*said, refused]


def mismatch(party: BlockingParty) -> Any:
    with PartyExecutor(party) as executor:
        first = executor.submit(plain_total, 1)
        second = executor.submit(other if party.name == "bob" else gated)
        said = [outcome(first), outcome(second)]
        try:
            executor.submit(plain_total, 1)
        except BrokenExecutor as error:
            said.append([type(error).__name__, str(error)])
    party.barrier(timeout=DEADLINE_S)
    return said


def early_end(party: BlockingParty) -> Any:
    with PartyExecutor(party) as executor:
        count = 1 if party.name == "bob" else 2
        said = [outcome(executor.submit(plain_total, k)) for k in range(count)]
    try:
        executor.submit(plain_total, 1)
    except RuntimeError as error:
        said.append([type(error).__name__, str(error)])
    return said


def abandoned(party: BlockingParty) -> Any:
    GATE.clear()
    try:
        with PartyExecutor(party) as executor:
            first = executor.submit(gated)
            until_running(first)
            second = executor.submit(plain_total, 2)
            second.add_done_callback(lambda _: GATE.set())
            raise KeyError("something else went wrong here")
    except KeyError:
        return [outcome(first), second.cancelled()]


SCENARIOS: list[Callable[[BlockingParty], Any]] = [
    results, failures, cancellation, room, abandoned, mismatch, early_end,
]  # fmt: skip


def main() -> None:
    with os.fdopen(int(sys.argv[1]), "rb") as pipe:
        config, listener_fd = pickle.load(pipe)
    with socket.socket(fileno=listener_fd) as listener, BlockingParty(config, listener) as party:
        print(json.dumps({scenario.__name__: scenario(party) for scenario in SCENARIOS}))


if __name__ == "__main__":
    main()
