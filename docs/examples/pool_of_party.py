import asyncio
import sys

from partywire import Party, Pool


async def main(config: str) -> None:
    async with Party(config) as party, await Pool.of_party(party) as pool:
        await pool.broadcast(f"hello from {party.name}", "greeting")
        for name, greeting in await pool.recv_all(msg_id="greeting"):
            print(f"{party.name} heard of {name}: {greeting}")


asyncio.run(main(sys.argv[1]))
