import secrets
import sys

from partywire import BlockingParty, Ring64

with BlockingParty(sys.argv[1]) as party:  # each party runs: python total.py CONFIG NUMBER
    (session,) = party.make_sessions(1)
    mask = secrets.randbits(64)
    session.send_next(Ring64(mask))
    masked = (int(sys.argv[2]) + mask - session.recv_prev().value) % 2**64
    session.broadcast(Ring64(masked))
    total = masked + sum(other.value for other in session.recv_all().values())
    print(f"{party.name}: the sum is {total % 2**64}, and nobody saw my {sys.argv[2]}")
