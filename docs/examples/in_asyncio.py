"""A party inside a program that has an event loop of its own. Two parties run each: python in_asyncio.py CONFIG"""

import asyncio
import sys

from partywire import BatchRunner, Party, Session


async def chat(session: Session, topic: str) -> str:
    answer: bytes = await session.exchange(1 - session.party_index, topic.encode())
    return answer.decode()


async def main(config: str) -> None:
    async with Party(config) as party:
        sessions = await party.make_sessions(3)
        answers = await asyncio.gather(*map(chat, sessions, ("one", "two", "three")))  # three tasks, three sessions

        (session,) = await party.make_sessions(1)
        try:
            async with asyncio.timeout(0.1):
                await session.recv_next()
        except TimeoutError:
            print(f"{party.name}: nothing yet")  # cancelling a receive loses no message, and the session goes on
        await party.barrier()  # both have given up waiting
        await session.send_next(b"late")
        assert await session.recv_prev() == b"late"

        lengths = await BatchRunner(party).amap(chat, ["a", "bb", "ccc"])  # other tasks of the loop go on meanwhile
        print(f"{party.name}: {', '.join(answers + lengths)}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
