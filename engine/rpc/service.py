"""What a peer can be asked: methods by name, behind one protocol id.

A unary method is a coroutine function that returns its answer; a streaming one is an asynchronous generator function.

    service = RpcService("/example/numbers/1")

    @service.method("square")
    async def square(call: RpcCall, payload: bytes) -> bytes:
        return str(int(payload) ** 2).encode()
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from .wire import METHOD_SIZE_MAX

if TYPE_CHECKING:
    from ..peers.peer_id import PeerId

Answer: TypeAlias = Awaitable[bytes] | AsyncIterator[bytes]
Handler: TypeAlias = "Callable[[RpcCall, bytes], Answer]"


@dataclass(frozen=True, slots=True)
class RpcCall:
    """Who asks for what."""

    peer_id: PeerId
    method: str
    timeout_s: float
    """What the client, or the service, allows the whole call; behind it the handler is cancelled."""


class RpcService:
    """Methods behind a protocol id. Filled before a server gets it."""

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol
        self._methods: dict[str, Handler] = {}

    def method(self, name: str) -> Callable[[Handler], Handler]:
        """Register what is decorated.

        Raises:
            ValueError: the name is taken, empty, or above 255 bytes.
        """
        if not 1 <= len(name.encode()) <= METHOD_SIZE_MAX:
            raise ValueError(f"name of a method with {len(name.encode())} bytes, between 1 and 255 are possible")
        if name in self._methods:
            raise ValueError(f"{self.protocol} has a method {name} already")

        def register(handler: Handler) -> Handler:
            self._methods[name] = handler
            return handler

        return register

    def handler_of(self, name: str) -> Handler | None:
        """The handler of a method, if there is one."""
        return self._methods.get(name)
