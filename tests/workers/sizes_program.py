"""One party of a test of sizes: `python -m tests.workers.sizes_program SCENARIO INDEX LISTENER_FD name=port ...`.

Prints what tests.workers.party_program prints. Alice sends and bob receives, unless it says otherwise.
"""

from __future__ import annotations

import os
import resource
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from partywire.engine.errors import PartyWireError
from partywire.engine.limits import MESSAGE_SIZE_MAX
from partywire.workers.array_meta import array_meta
from partywire.workers.blocking_party import BlockingParty
from partywire.workers.config import PartyConfig
from partywire.workers.errors import MessageTooLarge, SessionError
from partywire.workers.mailbox import MESSAGE_OVERHEAD
from partywire.workers.scheduler import Scheduler
from partywire.workers.values import VecBit
from tests.workers.party_program import say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from partywire.workers.blocking_session import BlockingSession
    from partywire.workers.session import Session

MIB = 1 << 20
TIMEOUT_S = 40.0
LARGE_TIMEOUT_S = 600.0
SESSIONS = 10_000
BLOCK = 1 << 20
"""Numbers of a pattern that are made at once: 8 MiB."""

SETTINGS: dict[str, tuple[dict[str, int], ...]] = {
    "limits": ({"message_mib": 64}, {"message_mib": 48, "inbox_mib": 32}),
    "largest_bytes": ({"inbox_mib": 4097}, {"inbox_mib": 4097}),
}
"""Of alice, bob, ..., where they are not the defaults."""


def put_pattern(octets: NDArray[np.uint8]) -> None:
    """Fill memory of any size with the numbers 0, 1, 2, ... as u64."""
    for start in range(0, len(octets), 8 * BLOCK):
        part = octets[start : start + 8 * BLOCK]
        part[:] = np.arange(start // 8, start // 8 + BLOCK, dtype=np.uint64).view(np.uint8)[: len(part)]


def has_pattern(octets: NDArray[np.uint8]) -> bool:
    """Whether memory is as `put_pattern` leaves it."""
    expected = np.empty(8 * BLOCK, np.uint8)
    for start in range(0, len(octets), 8 * BLOCK):
        part = octets[start : start + 8 * BLOCK]
        expected.view(np.uint64)[:] = np.arange(start // 8, start // 8 + BLOCK, dtype=np.uint64)
        if not np.array_equal(part, expected[: len(part)]):
            return False
    return True


def error_of(call: Callable[[], object]) -> str:
    """The type and the sentence of the error that a call raises."""
    try:
        call()
    except (MessageTooLarge, SessionError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def array_for(message_size: int) -> NDArray[np.uint64]:
    """The largest array whose message has at most this size; of zeros."""
    return np.zeros((message_size - len(array_meta(np.zeros(BLOCK, np.uint64)))) // 8, np.uint64)


def pass_array_in_place(session: BlockingSession, index: int, message_size: int, timeout: float) -> bool:
    """Bob waits with memory of his own; then alice sends. Whether what came is right."""
    array = array_for(message_size)
    if index == 0:
        put_pattern(array.view(np.uint8))
        session.recv(1, timeout=timeout)
        session.send(1, array, timeout=timeout)
        return True
    session.send(0, b"waiting", timeout=timeout)
    session.recv(0, out=array, timeout=timeout)
    return has_pattern(array.view(np.uint8))


def limits(party: BlockingParty) -> dict[str, Any]:
    """Both ends of what bob's settings allow: 48 MiB for a message, 32 MiB for those that nobody has received."""
    over, in_place, flood, full, fuller = party.make_sessions(5, timeout=TIMEOUT_S)
    inbox = 32 * MIB - MESSAGE_OVERHEAD
    found: dict[str, Any] = {"in place": pass_array_in_place(in_place, party.index, 48 * MIB, TIMEOUT_S)}
    if party.index == 0:
        found["over"] = error_of(lambda: over.send(1, bytes(48 * MIB + 1), timeout=TIMEOUT_S))
        found["flood"] = error_of(lambda: flood.exchange(1, bytes(48 * MIB), timeout=TIMEOUT_S))
        full.send(1, bytes(inbox), timeout=TIMEOUT_S)
        found["full"] = full.recv(1, timeout=TIMEOUT_S) == b"received"
        found["fuller"] = error_of(lambda: fuller.exchange(1, bytes(inbox + 1), timeout=TIMEOUT_S))
    else:
        found["flood"] = error_of(lambda: flood.recv(0, timeout=TIMEOUT_S))
        found["full"] = full.recv(0, timeout=TIMEOUT_S) == bytes(inbox)
        full.send(0, b"received", timeout=TIMEOUT_S)
        found["fuller"] = error_of(lambda: fuller.recv(0, timeout=TIMEOUT_S))
    party.barrier(timeout=TIMEOUT_S)
    return found | {"inbox": party.worker.inbox_size}


def ten_thousand_sessions(party: BlockingParty) -> dict[str, Any]:
    """Every session sends a message each way before any party receives one."""
    before = resident_bytes()
    sessions = [session.asynchronous for session in party.make_sessions(SESSIONS, timeout=TIMEOUT_S)]
    made = resident_bytes() - before
    scheduler = Scheduler(party.worker)
    wrong: list[int] = []

    async def send(session: Session, number: int) -> None:
        await session.broadcast(f"{party.index} on {number}".encode())

    async def receive(session: Session, number: int) -> None:
        expected = [f"{index} on {number}".encode() for index in range(len(session.parties))]
        received = await session.recv_all(timeout=TIMEOUT_S)
        if any(got != wanted for got, wanted in zip(received, expected, strict=True) if got is not None):
            wrong.append(number)

    for play in (send, receive):
        for number, session in enumerate(sessions):
            scheduler.spawn(play(session, number))
        scheduler.run()
        party.barrier(timeout=TIMEOUT_S)
    scheduler.close()
    ids = {session.id for session in sessions}
    return {"ids": len(ids), "wrong": wrong, "inbox": party.worker.inbox_size, "bytes per session": made / SESSIONS}


def stopped_receiver(party: BlockingParty) -> dict[str, Any]:
    """Bob does nothing until a line comes; alice sends 1 MiB after 1 MiB until there is no room, and says so."""
    [session] = party.make_sessions(1, timeout=TIMEOUT_S)
    party.barrier(timeout=TIMEOUT_S)
    if party.index:
        sys.stdin.readline()
        received = 0
        try:
            while session.recv(0, timeout=TIMEOUT_S) == bytes([received % 256]) * MIB:
                received += 1
        except SessionError as error:
            return {"received": received, "error": type(error).__name__}
        return {"received": received, "error": "a wrong message"}
    family = [os.getpid(), *party.pids.values()]
    before = family_bytes(family)
    sent = 0
    try:
        while sent < 256:
            session.send(1, bytes([sent % 256]) * MIB, timeout=1.0)
            sent += 1
    except SessionError as error:
        grown = family_bytes(family) - before
        say(pids=party.pids)
        return {"sent": sent, "grown": grown, "error": type(error).__name__}
    return {"sent": sent, "error": "nothing"}


def largest_bytes(party: BlockingParty) -> dict[str, Any]:
    """Alice sends a bytearray of 4 GiB - 1 and gets it back as the bytes that bob received. Then what is larger."""
    [session] = party.make_sessions(1, timeout=TIMEOUT_S)
    if party.index == 0:
        payload = bytearray(MESSAGE_SIZE_MAX)
        put_pattern(np.frombuffer(payload, np.uint8))
        session.send(1, payload, timeout=LARGE_TIMEOUT_S)
        del payload
    received = session.recv(1 - party.index, timeout=LARGE_TIMEOUT_S)
    is_right = len(received) == MESSAGE_SIZE_MAX and has_pattern(np.frombuffer(received, np.uint8))
    found: dict[str, Any] = {"right": is_right}
    if party.index:
        session.send(0, received, timeout=LARGE_TIMEOUT_S)
    del received
    found["peak"] = peak_bytes()
    party.barrier(timeout=LARGE_TIMEOUT_S)
    if party.index == 0:
        above = np.zeros(MESSAGE_SIZE_MAX + 1, np.uint8)  # of pages that nobody touches
        found["over"] = error_of(lambda: session.send(1, memoryview(above.data)))
        bits = VecBit(above.view("?"))
        found["bits"] = error_of(lambda: session.send(1, bits))
        session.send(1, b"alive", timeout=LARGE_TIMEOUT_S)
    else:
        found["alive"] = session.recv(0, timeout=LARGE_TIMEOUT_S) == b"alive"
    return found


def largest_array(party: BlockingParty) -> dict[str, Any]:
    """With the default inbox, which is far smaller: the array never lies in it."""
    [session] = party.make_sessions(1, timeout=TIMEOUT_S)
    right = pass_array_in_place(session, party.index, MESSAGE_SIZE_MAX, LARGE_TIMEOUT_S)
    party.barrier(timeout=LARGE_TIMEOUT_S)
    return {"right": right, "peak": peak_bytes()}


def resident_bytes(pid: int | str = "self") -> int:
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def family_bytes(pids: Iterable[int]) -> int:
    """What several processes have in memory; what they share counts for each."""
    return sum(resident_bytes(pid) for pid in pids)


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    scenario, index, fd = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    addresses = dict(entry.split("=") for entry in sys.argv[4:])
    config = PartyConfig(
        name=list(addresses)[index],
        parties={name: ("127.0.0.1", int(port)) for name, port in addresses.items()},
        connect_s=TIMEOUT_S,
        **SETTINGS.get(scenario, ({}, {}, {}))[index],  # type: ignore[arg-type]
    )
    answer: dict[str, Any]
    with socket.socket(fileno=fd) as listener:
        try:
            with BlockingParty(config, listener) as party:
                say(pids=party.pids)
                began = time.monotonic()
                answer = globals()[scenario](party)
                answer["seconds"] = time.monotonic() - began
        except PartyWireError as error:
            answer = {"error": type(error).__name__, "message": str(error)}
    say(**answer)


if __name__ == "__main__":
    main()
