"""One party of a program for tno.mpc.communication 5.x, run by test_tno5.py: python tno5_program.py NAME PORT PORT."""

import asyncio
import sys

import numpy as np
from tno.mpc.communication import CommunicationError, Pool

from partywire.workers.tno.communicator import PartyWireCommunicator, PartyWireConnection

NAMES = ("alice", "bob")


async def main(name: str, ports: list[int]) -> None:
    own = NAMES.index(name)
    other = NAMES[1 - own]
    communicator = PartyWireCommunicator("127.0.0.1", ports[own], timeout=20)
    pool = Pool(name, communicator, timeout=20)
    pool.add_client(other, PartyWireConnection("127.0.0.1", ports[1 - own]))
    async with pool:
        await pool.send(other, f"hello from {name}")
        print(await pool.recv(other))
        await pool.broadcast([1, (2, 3), 2**100], "numbers")
        assert await pool.recv(other, "numbers") == [1, (2, 3), 2**100]
        await pool.send(other, list(range(100_000)), "large")
        assert await pool.recv(other, "large") == list(range(100_000))
        await pool.send(other, np.arange(3).tolist())
        print(await pool.recv(other))
        if name == "bob":
            return
        await asyncio.sleep(0)
        try:
            while True:
                await pool.send(other, "are you there?")
                await asyncio.sleep(0.05)
        except CommunicationError as error:
            print(error)


asyncio.run(main(sys.argv[1], [int(port) for port in sys.argv[2:]]))
