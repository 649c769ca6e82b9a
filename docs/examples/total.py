import secrets
import sys

from partywire import BlockingParty, Ring64

with BlockingParty(sys.argv[1]) as party:  # each party runs: python total.py CONFIG NUMBER
    (session,) = party.make_sessions(1)
    mask = secrets.randbits(64)
    session.send_next(Ring64(mask))
    masked = (int(sys.argv[2]) + mask - session.recv_prev()) % 2**64
    total = sum(session.gather(Ring64(masked))) % 2**64
    print(f"{party.name}: the sum is {total}, and nobody saw my {sys.argv[2]}")
