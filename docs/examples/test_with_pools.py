import asyncio

from partywire import Pool


async def ask(pool: Pool, peer: str) -> int:
    await pool.send(peer, {"question": 6 * 7})
    result: int = await pool.recv(peer)
    return result


async def answer(pool: Pool, peer: str) -> None:
    asked = await pool.recv(peer)
    await pool.send(peer, asked["question"])


def test_an_answer_comes(pool_duo: tuple[Pool, Pool]) -> None:
    async def main() -> None:
        alice, bob = pool_duo
        result, _ = await asyncio.gather(ask(alice, "local1"), answer(bob, "local0"))
        assert result == 42

    asyncio.run(main())
