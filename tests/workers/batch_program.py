"""One party of a batch test: a script that reads its orders from a pipe and prints its outcome as JSON.

A script on purpose: its jobs live in `__main__`, where child workers have to find them.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import json
import os
import pickle
import signal
import socket
import sys
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from partywire import (
    BatchRunner,
    BlockingParty,
    BlockingSession,
    JobFailed,
    Party,
    PartyFailed,
    Session,
    SessionError,
    SetupMismatch,
)

if TYPE_CHECKING:
    from partywire.workers.batch import BatchProgress

BIG = 3_000_000


@dataclass
class Point:
    """A class of the script: travels to child workers and back."""

    x: int


async def rotate(session: Session, x: int) -> int:
    await session.send_next(x.to_bytes(8, "little"))
    return int.from_bytes(await session.recv_prev(), "little")


def rotate_plainly(session: BlockingSession, x: int) -> int:
    session.send_next(x.to_bytes(8, "little"))
    return int.from_bytes(session.recv_prev(), "little")


async def rotate_beside_asyncio(session: Session, x: int) -> int:
    await asyncio.sleep(0)
    return await rotate(session, x)


async def fail_at_bob(session: Session, x: int) -> int:
    if session.party_index == 1 and x % 1000 == 3:
        raise ValueError("bob cannot do three")
    return await rotate(session, x)


def fail_plainly_at_bob(session: BlockingSession, x: int) -> int:
    if session.party_index == 1 and x % 1000 == 3:
        raise ValueError("bob cannot do three")
    return rotate_plainly(session, x)


async def fail_everywhere(session: Session, x: int) -> int:
    await rotate(session, x)
    if x % 1000 in (3, 4, 5):
        raise ValueError(f"nobody can do {x % 1000}")
    return x


def die_at_alice(session: BlockingSession, x: int) -> int:
    if session.party_index == 0 and x == 5 and "PARTYWIRE_WORKER" in os.environ:
        os.kill(os.getpid(), signal.SIGKILL)
    return rotate_plainly(session, x)


async def echo_points(session: Session, point: Point) -> Point:
    return Point(await rotate(session, point.x))


async def grow(session: Session, data: bytes) -> bytes:
    await session.send_next(len(data).to_bytes(8, "little"))
    assert int.from_bytes(await session.recv_prev(), "little") == BIG
    return data + b"."


async def return_a_lock(session: Session, x: int) -> object:
    await rotate(session, x)
    return asyncio.Lock() if x == -1 else (lambda: x)


async def send_too_much(session: Session, x: int) -> int:
    if session.party_index == 0:
        await session.send_next(b"unexpected")
    return await rotate(session, x)


async def add(offset: int, session: Session, x: int) -> int:
    return offset + await rotate(session, x)


calls: Counter[int] = Counter()


async def fail_at_first(session: Session, x: int) -> int:
    """Three of the jobs do not get bob's message in time when they run for the first time."""
    calls[x] += 1
    is_late = x % 1000 in (3, 4, 17) and calls[x] == 1
    if is_late and session.party_index == 1:
        await session.sleep(0.5)
    await session.send_next(x.to_bytes(8, "little"))
    limit = 0.05 if is_late and session.party_index == 2 else None
    return int.from_bytes(await session.recv_prev(timeout=limit), "little")


async def fail_always(session: Session, x: int) -> int:
    if session.party_index == 2:
        await session.recv_next(timeout=0.05)
    return await rotate(session, x)


def is_first(name: str) -> bool:
    """Whether nobody has asked for this name before, in any process of this test."""
    try:
        os.close(os.open(os.path.join(os.environ["PARTYWIRE_TEST_DIR"], name), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def kill_once(role: str, session: BlockingSession, x: int) -> int:
    """Somewhere in the middle somebody kills a process of alice, by the pid that her opener has written down."""
    if x == 1011 and is_first(f"killed {role}"):
        with open(os.path.join(os.environ["PARTYWIRE_TEST_DIR"], role)) as file:
            os.kill(int(file.read()), signal.SIGKILL)
    return rotate_plainly(session, x)


def inputs_of(index: int, count: int) -> list[int]:
    return [1000 * index + k for k in range(count)]


def scenario_rotate(runner: BatchRunner, index: int) -> Any:
    return [runner.map(rotate, inputs_of(index, 30)), runner.map(rotate_plainly, inputs_of(index, 30))]


def scenario_asyncio(runner: BatchRunner, index: int) -> Any:
    return runner.map(rotate_beside_asyncio, inputs_of(index, 30))


def scenario_partial(runner: BatchRunner, index: int) -> Any:
    return runner.map(partial(add, 7), inputs_of(index, 5))


def scenario_nothing(runner: BatchRunner, index: int) -> Any:
    return [runner.map(rotate, []), runner.map(rotate, inputs_of(index, 1))]


def scenario_points(runner: BatchRunner, index: int) -> Any:
    return [point.x for point in runner.map(echo_points, [Point(x) for x in inputs_of(index, 6)])]


def scenario_big(runner: BatchRunner, index: int) -> Any:
    return [len(data) for data in runner.map(grow, [bytes(BIG)] * 4)]


def scenario_fail(runner: BatchRunner, index: int) -> Any:
    said = [attempt(runner, job, inputs_of(index, 30)) for job in (fail_at_bob, fail_plainly_at_bob, fail_everywhere)]
    return [*said, runner.map(rotate, inputs_of(index, 30))]


def scenario_jobs_differ(runner: BatchRunner, index: int) -> Any:
    said = attempt(runner, rotate if index == 1 else rotate_plainly, inputs_of(index, 5))
    return [said, runner.map(rotate, inputs_of(index, 5))]


def scenario_counts_differ(runner: BatchRunner, index: int) -> Any:
    said = attempt(runner, rotate, inputs_of(index, 5 + index // 2))
    return [said, runner.map(rotate, inputs_of(index, 5))]


def scenario_desync(runner: BatchRunner, index: int) -> Any:
    return attempt(runner, send_too_much, inputs_of(index, 5))


def scenario_die(runner: BatchRunner, index: int) -> Any:
    return attempt(BatchRunner(runner.party, 4, retries=0), die_at_alice, inputs_of(index, 30))


def scenario_bad_result(runner: BatchRunner, index: int) -> Any:
    return attempt(runner, return_a_lock, inputs_of(index, 8))


def scenario_lambda(runner: BatchRunner, index: int) -> Any:
    return attempt(runner, lambda session, x: x, inputs_of(index, 5))


def scenario_progress(runner: BatchRunner, index: int) -> Any:
    runner.map(rotate, inputs_of(index, 30))
    return [[said.jobs_done, said.jobs_total, said.sessions, said.bytes_sent] for said in progress]


def with_retries(
    runner: BatchRunner, job: Any, index: int, retries: int = 2, retry_timeout_s: float = 20
) -> dict[str, Any]:
    retrying = BatchRunner(
        runner.party, 4, on_progress=progress.append, retries=retries, retry_timeout_s=retry_timeout_s
    )
    try:
        values = retrying.map(job, inputs_of(index, 30))
    except JobFailed as error:
        return {"error": str(error), "history": list(error.history)}
    except PartyFailed as error:
        return {"error": str(error)}
    epochs = {link.name: link.epoch for link in runner.party.worker.links.values()}
    return {"values": values, "retries": progress[-1].retries, "done": progress[-1].jobs_done, "epochs": epochs}


def scenario_retry(runner: BatchRunner, index: int) -> Any:
    late, in_vain, mistaken = (with_retries(runner, job, index) for job in (fail_at_first, fail_always, fail_at_bob))
    try:
        with_retries(runner, rotate, index, retries=index)
    except SetupMismatch as error:
        differ = str(error)
    return [late, in_vain, mistaken, differ, runner.map(rotate, inputs_of(index, 5))]


def reset_after_a_loss(party: Any) -> list[str]:
    """A session that was lost with a link goes on in another epoch of the link."""
    [session] = party.make_sessions(1)
    try:
        session.gather(b"before")
        if party.index == 0:
            os.kill(party.pids["link 1"], signal.SIGKILL)
        session.recv_next()
    except SessionError:
        session.reset(timeout=60)
    return [value.decode() for value in session.gather(party.name.encode())]


def scenario_kill(runner: BatchRunner, index: int) -> Any:
    said: list[Any] = [reset_after_a_loss(runner.party)]
    for role in ("worker 1", "link 1", "supervisor"):
        if index == 0:
            with open(os.path.join(os.environ["PARTYWIRE_TEST_DIR"], role), "w") as file:
                file.write(str(runner.party.pids[role]))
        runner.party.barrier()
        said.append(with_retries(runner, partial(kill_once, role), index, retry_timeout_s=60 if role[-1] == "1" else 1))
    return said


progress: list[BatchProgress] = []


def attempt(runner: BatchRunner, job: Any, inputs: list[Any]) -> dict[str, Any]:
    try:
        runner.map(job, inputs)
    except Exception as error:
        return {"error": type(error).__name__, "says": str(error), "cause": type(error.__cause__).__name__}
    return {"error": None}


async def run_async(config: Any, listener: socket.socket) -> Any:
    async with Party(config, listener) as party:
        runner = BatchRunner(party, 4)
        beside = asyncio.ensure_future(asyncio.sleep(0.01, "ran beside"))
        values = await runner.amap(rotate, inputs_of(party.index, 30))
        plain = await runner.amap(rotate_plainly, inputs_of(party.index, 10))
        try:
            await runner.amap(fail_at_bob, inputs_of(party.index, 30))
        except Exception as error:
            return [values, plain, str(error), await beside]
    return None


def run_cancelled(config: Any, listener: socket.socket) -> Any:
    """Alice is interrupted in the middle of a batch in which bob and charlie wait for her."""

    def interrupt_alice(session: BlockingSession, x: int) -> int:
        if session.party_index == 0 and x == 2:
            raise KeyboardInterrupt
        return rotate_plainly(session, x)

    with BlockingParty(config, listener) as party:
        try:
            BatchRunner(party, 4).map(interrupt_alice, inputs_of(party.index, 8))
        except (Exception, KeyboardInterrupt) as error:
            return {"error": type(error).__name__, "says": str(error)}
    return None


def run_scenario(name: str, config: Any, listener: socket.socket, sessions: int) -> Any:
    if name == "async":
        return asyncio.run(run_async(config, listener))
    if name == "interrupt":
        return run_cancelled(config, listener)
    outcomes = []
    with BlockingParty(config, listener) as party:
        for scenario in name.split():
            runner = BatchRunner(party, sessions, on_progress=progress.append)
            outcomes.append(globals()[f"scenario_{scenario}"](runner, party.index))
    return outcomes if len(outcomes) > 1 else outcomes[0]


if __name__ == "__main__":
    gc.freeze()  # what was imported is no garbage: looking for some takes a tenth of the program's time at its end
    faulthandler.dump_traceback_later(60, exit=True)  # what it hangs in, if it hangs
    with os.fdopen(int(sys.argv[1]), "rb") as pipe:
        scenario, config, listener_fd, sessions = pickle.load(pipe)
    with socket.socket(fileno=listener_fd) as listener:
        try:
            outcome = {"value": run_scenario(scenario, config, listener, sessions)}
        except Exception as error:
            outcome = {"raised": type(error).__name__, "says": str(error)}
    print(json.dumps(outcome))
