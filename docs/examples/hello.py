import sys

from partywire import BlockingParty

with BlockingParty(sys.argv[1]) as party:  # each party runs: python hello.py CONFIG
    (session,) = party.make_sessions(1)
    greetings = session.gather(f"hello from {party.name}".encode())
    print(f"{party.name} has heard: {b', '.join(greetings).decode()}")
