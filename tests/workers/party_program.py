"""One party of an end to end test: `python -m tests.workers.party_program SCENARIO INDEX LISTENER_FD name=port ...`.

Prints {"pids": ...} when the party is open and one JSON answer at its end; an error of PartyWire is an answer too.
"""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from partywire.engine.errors import PartyWireError
from partywire.workers.blocking_party import BlockingParty
from partywire.workers.config import PartyConfig
from partywire.workers.errors import PeerClosed
from partywire.workers.party import Party
from partywire.workers.scheduler import Scheduler
from partywire.workers.values import (
    Bit,
    NetworkVec,
    PrfCheck,
    PrfKey,
    Ring16,
    Ring32,
    Ring48,
    Ring64,
    StateChecksum,
    VecBit,
    VecRing16,
    VecRing32,
    VecRing48,
    VecRing64,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from partywire.workers.session import Session

MIB = 1 << 20
TIMEOUT_S = 40.0


def say(**document: Any) -> None:
    print(json.dumps(document), flush=True)


def serve(party: BlockingParty) -> None:
    if not party.worker.service():
        party.worker.sleep()


def all_to_all_blocking(party: BlockingParty) -> dict[str, Any]:
    [session] = party.make_sessions(1, timeout=TIMEOUT_S)
    session.broadcast(party.name.encode())
    heard = session.recv_all(timeout=TIMEOUT_S)
    party.barrier(timeout=TIMEOUT_S)
    return {"from": [message.decode() for message in heard if message is not None]}


async def all_to_all_asynchronous(party: Party) -> dict[str, Any]:
    sessions = await party.make_sessions(5, timeout=TIMEOUT_S)
    await asyncio.gather(*(session.broadcast(party.name.encode()) for session in sessions))
    heard = await asyncio.gather(*(session.recv_all(timeout=TIMEOUT_S) for session in sessions))
    await party.barrier(timeout=TIMEOUT_S)
    assert all(one == heard[0] for one in heard)
    return {"from": [message.decode() for message in heard[0] if message is not None]}


def all_values() -> list[Any]:
    rng = np.random.default_rng(1)
    values: list[Any] = [
        Bit(1), Ring16(1), Ring32(2), Ring48(3), Ring64(4), PrfKey(bytes(range(16))), PrfCheck(2**100),
        StateChecksum(5, 6), VecRing16([1, 2]), VecRing32(np.arange(100_000)), VecRing48([7]), VecRing64([8]),
        VecBit([1, 0, 1]), NetworkVec([Ring16(1), b"x", VecRing32([3])]),
    ]  # fmt: skip
    for size in (1, 2, 100, 4096, 65_536, 262_144, 262_145, MIB, 5 * MIB + 3, 16 * MIB):
        values.append(rng.bytes(size))
        values.append(rng.integers(0, 256, size, np.uint8))
    values.append(np.zeros((3, 0, 2), [("a", "<u4"), ("b", "S3")]))
    values.append(rng.random((300, 500)).astype(np.float32))
    return values


def values(party: BlockingParty) -> dict[str, Any]:
    [session] = party.make_sessions(1, timeout=TIMEOUT_S)
    wrong = []
    for number, value in enumerate(all_values()):
        session.send_next(value, timeout=TIMEOUT_S)
        session.send_prev(value, timeout=TIMEOUT_S)
        for got in (session.recv_prev(timeout=TIMEOUT_S), session.recv_next(timeout=TIMEOUT_S)):
            same = np.array_equal(got, value) if isinstance(value, np.ndarray) else got == value
            if not same or type(got) is not type(value):
                wrong.append(number)
    return {"wrong": wrong}


def thousand_sessions(party: BlockingParty) -> dict[str, Any]:
    sessions = party.make_sessions(1000, timeout=TIMEOUT_S)
    scheduler = Scheduler(party.worker)
    totals: list[int] = []

    async def talk(session: Session) -> int:
        total = 0
        for value in range(2):
            await session.send_next(Ring32(value))
            await session.send_prev(Ring32(value + 1))
            total += await session.recv_prev(timeout=TIMEOUT_S)
            total += await session.recv_next(timeout=TIMEOUT_S)
        return total

    for session in sessions:
        scheduler.spawn(talk(session.asynchronous), on_done=lambda slot: totals.append(slot.result))
    scheduler.run()
    scheduler.close()
    party.barrier(timeout=TIMEOUT_S)
    return {"sum": sum(totals), "inbox": party.worker.inbox_size}


def big_exchange(party: BlockingParty) -> dict[str, Any]:
    [session] = party.make_sessions(1, timeout=TIMEOUT_S)
    payload = np.arange(100 * MIB // 8, dtype=np.uint64)
    session.send_next(payload, timeout=TIMEOUT_S)
    received = session.recv_next(timeout=TIMEOUT_S)
    party.barrier(timeout=TIMEOUT_S)
    return {"ok": bool(np.array_equal(received, payload))}


def different_counts(party: BlockingParty) -> dict[str, Any]:
    party.make_sessions(5 if party.index else 6, timeout=TIMEOUT_S)
    return {}


def different_steps(party: BlockingParty) -> dict[str, Any]:
    if party.index:
        party.barrier(timeout=TIMEOUT_S)
    else:
        party.make_sessions(1, timeout=TIMEOUT_S)
    return {}


def absent_from_barrier(party: BlockingParty) -> dict[str, Any]:
    if party.index == 2:
        sys.stdin.readline()
        return {}
    party.barrier(timeout=1.0 if party.index == 0 else TIMEOUT_S)
    return {}


def unknown_session(party: BlockingParty) -> dict[str, Any]:
    if party.index == 0:
        session = party.worker.make_session(77).blocking
        session.send(1, b"anybody?")
        session.recv(1, timeout=TIMEOUT_S)
    else:
        while not party.worker.counters.dropped_unknown:
            serve(party)
        party.worker.flush()
    return {}


def close_after_send(party: BlockingParty) -> dict[str, Any]:
    [session] = party.make_sessions(1, timeout=TIMEOUT_S)
    if party.index == 0:
        for _ in range(20):
            session.send(1, bytes(MIB), timeout=TIMEOUT_S)
        return {}
    received = 0
    for _ in range(20):
        received += len(session.recv(0, timeout=TIMEOUT_S))
    try:
        session.recv(0, timeout=TIMEOUT_S)
    except PeerClosed:
        return {"received": received, "then": "PeerClosed"}
    return {"received": received}


def wait_for_ever(party: BlockingParty) -> dict[str, Any]:
    """Until a line comes on stdin, or something happens to another party."""
    [session] = party.make_sessions(1, timeout=TIMEOUT_S)
    said: list[str] = []
    party.worker.watch(sys.stdin.fileno(), lambda: said.append(sys.stdin.readline()))
    say(pids=party.pids)
    while not said and session.asynchronous.failure is None and party.worker.failure is None:
        serve(party)
    party.worker.unwatch(sys.stdin.fileno())
    if not said:
        session.recv_next()
    return {}


different_parameters = all_to_all_blocking
SAYS_PIDS_ITSELF = (wait_for_ever,)


def main() -> None:
    gc.freeze()  # what was imported is no garbage: looking for some takes a tenth of the program's time at its end
    scenario, index, fd = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    addresses = dict(entry.split("=") for entry in sys.argv[4:])
    config = PartyConfig(
        name=list(addresses)[index],
        parties={name: ("127.0.0.1", int(port)) for name, port in addresses.items()},
        parameters={"protocol": index} if scenario == "different_parameters" else {},
        connect_s=TIMEOUT_S,
    )
    play: Callable[[Any], Any] = globals()[scenario]
    answer: dict[str, Any]
    with socket.socket(fileno=fd) as listener:
        try:
            if asyncio.iscoroutinefunction(play):
                answer = asyncio.run(asynchronous(play, config, listener))
            else:
                with BlockingParty(config, listener) as party:
                    if play not in SAYS_PIDS_ITSELF:
                        say(pids=party.pids)
                    answer = play(party)
        except PartyWireError as error:
            answer = {
                "error": type(error).__name__,
                "message": str(error),
                "cause": type(error.__cause__).__name__,
            }
    say(**answer)


async def asynchronous(play: Callable[[Any], Any], config: PartyConfig, listener: socket.socket) -> dict[str, Any]:
    async with Party(config, listener) as party:
        say(pids=party.pids)
        answer: dict[str, Any] = await play(party)
        return answer


if __name__ == "__main__":
    main()
