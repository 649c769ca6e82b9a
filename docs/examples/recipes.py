"""The recipes of how-to.md for plain code. Two parties run each: python recipes.py CONFIG"""

import sys

import numpy as np

from partywire import (
    BatchRunner,
    BlockingParty,
    BlockingSession,
    PeerAborted,
    Session,
    SessionTimeout,
    UnexpectedMessage,
)


def arrays(party: BlockingParty) -> None:
    (session,) = party.make_sessions(1)
    ours = np.full((1000, 64), party.index, dtype=np.float32)
    theirs = np.empty_like(ours)
    session.send_next(ours)  # any dtype but objects, any shape; `ours` may be changed when this returns
    session.recv_prev(out=theirs)  # no new array: large ones are written there as they arrive
    print(f"{party.name}: an array of {theirs.mean():.0f}s, shape {theirs.shape}")


def misfit(party: BlockingParty) -> None:
    (session,) = party.make_sessions(1)
    session.send_next(np.zeros(3, dtype=np.uint16))
    try:
        session.recv_prev(out=np.empty(4, dtype=np.uint32))
    except UnexpectedMessage:
        values = session.recv_prev()  # it is still first in line
        print(f"{party.name}: {values.dtype}{list(values.shape)} instead")


async def distance(session: Session, point: np.ndarray) -> float:
    theirs = await session.exchange(1 - session.party_index, point)
    return float(np.linalg.norm(point - theirs))


def halve(session: BlockingSession, number: int) -> int:
    theirs = session.exchange(1 - session.party_index, number.to_bytes(8, "little"))
    return (number + int.from_bytes(theirs, "little")) // 2


def batches(party: BlockingParty) -> None:
    points = np.random.default_rng(party.index).normal(size=(500, 3))
    runner = BatchRunner(party, sessions=32)  # 32 in each worker; the same number at every party
    distances = runner.map(distance, points)  # a coroutine: 32 inputs are under way at once in each worker
    halves = runner.map(halve, range(10))  # a plain function: one input at a time in each worker
    print(f"{party.name}: {len(distances)} distances, halves {halves}")


def patience(party: BlockingParty) -> None:
    (session,) = party.make_sessions(1, timeout=20)
    try:
        session.recv_next(timeout=0.1)  # nobody sends anything
    except (SessionTimeout, PeerAborted) as error:  # the session is over, here and at the peers
        print(f"{party.name}: {type(error).__name__}")
    session.reset(timeout=20)  # a fresh id at all parties, each of which calls it
    session.gather(b"here again", timeout=20)


if __name__ == "__main__":
    with BlockingParty(sys.argv[1]) as party:
        arrays(party)
        misfit(party)
        batches(party)
        patience(party)
