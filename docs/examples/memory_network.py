"""A network of peers within one process, in which each sends a message to each and hears from each.

python memory_network.py 20
"""

import asyncio
import sys
from contextlib import AsyncExitStack

from partywire import PeerNode


async def send_to_all(node: PeerNode, others: list[PeerNode]) -> None:
    deliveries = [await node.messages.send(other.peer_id, b"hello") for other in others]
    for delivery in deliveries:
        await delivery.acknowledged()


async def hear_from_all(node: PeerNode, others: list[PeerNode]) -> None:
    missing = {other.peer_id for other in others}
    while missing:
        message = await node.messages.receive()
        missing.remove(message.peer_id)  # a second message of one peer would be a KeyError


async def main(count: int) -> None:
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(PeerNode(listen="/memory/0")) for _ in range(count)]
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            for node in nodes:
                others = [other for other in nodes if other is not node]
                for other in others:
                    node.add_peer(other.peer_id, *other.addresses)
                tasks.create_task(send_to_all(node, others))
                tasks.create_task(hear_from_all(node, others))
        connections = sum(len(node.connections) for node in nodes) // 2
        print(f"{count} peers: {count * (count - 1)} messages over {connections} connections")


asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20))
