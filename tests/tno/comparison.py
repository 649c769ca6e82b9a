"""A program as packages for tno.mpc.communication 4.x are written: python comparison.py NAME PORT PORT.

A ciphertext travels with its scheme, and the scheme with its whole public key only once for each peer. The "encryption"
is none.
"""

import asyncio
import sys
from typing import Any

from tno.mpc.communication import Pool, RepetitionError, Serialization
from tno.mpc.communication.httphandlers import HTTPClient


class Scheme:
    instances: dict[int, "Scheme"] = {}  # noqa: RUF012
    keys_sent = 0

    def __init__(self, key: int) -> None:
        self.key = key
        self.history: list[HTTPClient] = []
        self.instances[key % 1000] = self

    def serialize(self, *, destination: Any = None, **_kwargs: Any) -> dict[str, Any]:
        clients = [destination] if isinstance(destination, HTTPClient) else destination
        if clients and all(client in self.history for client in clients):
            return {"id": self.key % 1000}
        self.history.extend(clients)
        Scheme.keys_sent += 1
        return {"id": self.key % 1000, "key": self.key}

    @staticmethod
    def deserialize(obj: dict[str, Any], *, origin: HTTPClient | None = None, **_kwargs: Any) -> "Scheme":
        if "key" not in obj:
            assert origin is not None
            return Scheme.instances[obj["id"]]
        return Scheme(obj["key"])


class Ciphertext:
    def __init__(self, value: int, scheme: Scheme) -> None:
        self.value = value
        self.scheme = scheme

    def serialize(self, **_kwargs: Any) -> dict[str, Any]:
        return {"value": self.value, "scheme": self.scheme}

    @staticmethod
    def deserialize(obj: dict[str, Any], **_kwargs: Any) -> "Ciphertext":
        return Ciphertext(obj["value"], obj["scheme"])


for kind in (Scheme, Ciphertext):
    Serialization.register_class(kind)
    try:
        Serialization.register_class(kind)
    except RepetitionError:
        pass


async def main(name: str, ports: list[int], pool: Pool) -> None:
    other = "bob" if name == "alice" else "alice"
    own = ports[name == "bob"]
    pool.add_http_server(addr="127.0.0.1", port=own)
    pool.add_http_client(other, "127.0.0.1", port=sum(ports) - own)
    assert pool.pool_handlers[other].port != pool.http_server.port
    scheme = Scheme(2**200 + 7)
    for step, (left, right) in enumerate(((3, 5), (5, 3))):
        if name == "alice":
            await pool.send(other, Ciphertext(left, scheme), msg_id=f"left {step}")
            result = await pool.recv(other, msg_id=f"result {step}")
        else:
            received = await pool.recv(other, msg_id=f"left {step}")
            assert received.scheme.key == scheme.key
            result = received.value < right
            pool.asend(other, result, msg_id=f"result {step}")
        print(f"{left} < {right} is {result}")
    print(f"keys sent: {Scheme.keys_sent + (name == 'bob')}")
    await pool.shutdown()


if __name__ == "__main__":
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(main(sys.argv[1], [int(port) for port in sys.argv[2:]], Pool()))
    loop.close()
