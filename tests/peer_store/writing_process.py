"""A process of its own that uses a store: `python -m tests.peer_store.writing_process ROLE FOLDER`.

`write`: for each line on standard input a fork that writes peers until it is killed, and says the number of each once
it is written. `read`: says how many peers there are for each line. `hold`: writes one peer, and stops itself in the
middle.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

from partywire.engine.peer_store.store import PeerStore
from partywire.engine.peers.contract import Ban
from tests.peer_store.peers import NOW, peer_id, record

if TYPE_CHECKING:
    from partywire.engine.peer_store.record import PeerRecord


def say(text: str) -> None:
    os.write(1, text.encode() + b"\n")


def write(folder: str) -> None:
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            say(f"pid {os.getpid()}")
            write_until_killed(folder, int(line))
        os.waitpid(pid, 0)
        say("killed")


def write_until_killed(folder: str, number: int) -> None:
    with PeerStore(folder, "own") as store:
        while True:
            # Sizes differ, so that pages are split, joined and used again.
            store.add(record(number, claim=bytes(number * 37 % 3000)), record(number + 500_000))
            if number % 3 == 0:
                store.ban(peer_id(number), Ban("by the writer", NOW * 2))
            if number % 5 == 0:
                store.remove(peer_id(number + 500_000), forget=True)
            say(f"done {number}")
            number += 1


def read(folder: str) -> None:
    with PeerStore(folder, "read") as store:
        say("open")
        for _ in sys.stdin:
            say(str(store.count()))


def hold(folder: str) -> None:
    def stopping(_: PeerRecord | None) -> PeerRecord:
        say(f"pid {os.getpid()}")
        os.kill(os.getpid(), signal.SIGSTOP)
        return record(1)

    with PeerStore(folder, "share") as store:
        store.apply([(peer_id(1), stopping)])
    say("done")


if __name__ == "__main__":
    {"write": write, "read": read, "hold": hold}[sys.argv[1]](sys.argv[2])
