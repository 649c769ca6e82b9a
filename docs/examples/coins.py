"""Two parties toss coins that neither of them can choose. Each runs: python coins.py CONFIG"""

import hashlib
import secrets
import sys

from partywire import BatchRunner, BlockingParty, Session


def seal(party_index: int, secret: bytes) -> bytes:
    """What binds a party to a secret and shows nothing of it. The index keeps a seal from being handed back to us."""
    return hashlib.sha256(bytes([party_index]) + secret).digest()


async def toss(session: Session, number: int) -> str:
    ours, peer = secrets.token_bytes(32), 1 - session.party_index
    sealed = await session.exchange(peer, seal(session.party_index, ours))
    theirs = await session.exchange(peer, ours)
    if seal(peer, theirs) != sealed:
        raise ValueError(f"coin {number}: the peer has opened something else than it had sealed")
    return "heads" if (ours[0] ^ theirs[0]) & 1 else "tails"


if __name__ == "__main__":
    with BlockingParty(sys.argv[1]) as party:
        coins = BatchRunner(party, sessions=16).map(toss, range(100))
        print(f"{party.name}: {coins.count('heads')} heads, {coins.count('tails')} tails; the first is {coins[0]}")
