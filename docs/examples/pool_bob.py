import asyncio

import numpy as np

from partywire import Pool


async def main() -> None:
    async with Pool() as pool:
        pool.add_server("127.0.0.1", 61002)
        pool.add_client("Alice", "127.0.0.1", 61001)

        print(await pool.recv("Alice"))
        await pool.send("Alice", "Hello back to you, Alice!")

        votes = np.array([[0, 1], [1, 0]])
        await pool.send("Alice", votes + await pool.recv("Alice", "votes"), "sum")


asyncio.run(main())
