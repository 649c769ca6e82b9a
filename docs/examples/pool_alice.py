import asyncio

import numpy as np

from partywire import Pool


async def main() -> None:
    async with Pool() as pool:
        pool.add_server("127.0.0.1", 61001)
        pool.add_client("Bob", "127.0.0.1", 61002)

        await pool.send("Bob", "Hello Bob! This is Alice speaking.")
        print(await pool.recv("Bob"))

        votes = np.array([[1, 0], [1, 1]])
        await pool.send("Bob", votes, "votes")
        print("together:", (await pool.recv("Bob", "sum")).tolist())


asyncio.run(main())
