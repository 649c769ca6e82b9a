"""Whole parties whose openers live in this process: real supervisors, gateways and I/O processes, real sockets.

Every party talks all the time in one session, so whatever happens, happens in the middle of a job. What a party's job
ended with is kept, with when; a job that says nothing at all for too long is an error of the test.
"""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import AsyncExitStack, ExitStack
from typing import TYPE_CHECKING, Any, Final, Self

from partywire.engine.errors import PartyWireError
from partywire.workers.config import PartyConfig
from partywire.workers.party import Party
from tests.support.processes import children_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from types import TracebackType

    from partywire.workers.security import SecurityConfig
    from partywire.workers.session import Session

DEADLINE_S: Final = 40.0
PAUSE_S: Final = 0.002
"""Between two rounds: traffic all the time, and a core left for those that share it."""

NAMES: Final = ("alice", "bob", "charlie")


class Talk:
    """One party's job: rounds around the ring of parties, until it fails or is told to stop."""

    def __init__(self, session: Session, payload: bytes) -> None:
        self._session = session
        self._payload = payload
        self.rounds = 0
        self.error: BaseException | None = None
        self.ended_at = 0.0
        self.task = asyncio.ensure_future(self._talk())

    async def _talk(self) -> None:
        try:
            while True:
                await self._session.send_next(self._payload)
                received = await self._session.recv_prev(timeout=DEADLINE_S)
                assert received == self._payload, "another payload arrived than was sent"
                self.rounds += 1
                await asyncio.sleep(PAUSE_S)
        except Exception as error:
            self.error = error
        finally:
            self.ended_at = time.monotonic()


class Parties:
    """`count` open parties. `through` maps (who dials, whom) to the address to dial instead of the real one."""

    def __init__(
        self,
        count: int,
        through: Callable[[tuple[str, int]], Mapping[tuple[str, str], tuple[str, int]]] = lambda _: {},
        security: Mapping[str, SecurityConfig | None] | None = None,
        **settings: Any,
    ) -> None:
        """`through` is given the address of the first party; `security` says what protects the links of each."""
        self.names = NAMES[:count]
        self._security = security or {}
        self._settings = settings
        self._stack = ExitStack()
        self._listeners = [self._stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in self.names]
        self.addresses: list[tuple[str, int]] = [sock.getsockname() for sock in self._listeners]
        self._through = through(self.addresses[0])
        self._open = AsyncExitStack()
        self.parties: list[Party] = []

    async def __aenter__(self) -> Self:
        try:
            for name, listener in zip(self.names, self._listeners, strict=True):
                seen = {
                    other: self._through.get((name, other), address)
                    for other, address in zip(self.names, self.addresses, strict=True)
                }
                self.parties.append(Party(self._config(name, seen), listener))
            await asyncio.gather(*(self._open.enter_async_context(party) for party in self.parties))
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await asyncio.gather(*(party.close() for party in self.parties))
            await self._open.aclose()
        finally:
            self._stack.close()

    def _config(self, name: str, parties: Mapping[str, tuple[str, int]]) -> PartyConfig:
        return PartyConfig(name=name, parties=parties, security=self._security.get(name), **self._settings)

    async def sessions(self) -> list[Session]:
        """One new session of all parties, as each of them has it."""
        made = await asyncio.gather(*(party.make_sessions(1, timeout=DEADLINE_S) for party in self.parties))
        return [session for [session] in made]

    async def _sessions_again(self) -> list[Session]:
        """As `sessions`, as often as it takes until links that were lost are back."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            made = await asyncio.gather(
                *(party.make_sessions(1, timeout=DEADLINE_S) for party in self.parties), return_exceptions=True
            )
            failed = [outcome for outcome in made if isinstance(outcome, BaseException)]
            if not failed:
                return [outcome[0] for outcome in made if not isinstance(outcome, BaseException)]
            for outcome in made:
                if isinstance(outcome, BaseException):
                    if not isinstance(outcome, PartyWireError) or time.monotonic() > deadline:
                        raise outcome
                else:
                    outcome[0].close()
            await asyncio.sleep(PAUSE_S)

    async def talk(self, size: int = 100, *, again: bool = False) -> list[Talk]:
        """Everybody begins to talk; returns once all have done some rounds. `again`: after a loss that is mended."""
        sessions = await (self._sessions_again() if again else self.sessions())
        talks = [Talk(session, bytes(index % 251 for index in range(size))) for session in sessions]
        await self.go_on(talks)
        return talks

    async def go_on(self, talks: list[Talk], rounds: int = 5) -> None:
        """So many more rounds at every party."""
        goals = [talk.rounds + rounds for talk in talks]

        def is_done() -> bool:
            for talk in talks:
                if talk.error is not None:
                    raise talk.error
            return all(talk.rounds >= goal for talk, goal in zip(talks, goals, strict=True))

        await until(is_done)

    def all_pids(self) -> list[int]:
        """Every process that every party began with or has now, but this one."""
        first = [pid for party in self.parties for pid in party.pids.values()]
        return first + [child for party in self.parties for child in children_of(party.pids["supervisor"])]


async def until(what: Callable[[], object]) -> None:
    """Wait until it is true."""
    deadline = time.monotonic() + DEADLINE_S
    while not what():
        assert time.monotonic() < deadline, "the condition never came true"
        await asyncio.sleep(0.005)


async def errors(talks: list[Talk]) -> list[BaseException]:
    """What every job ended with; all end within the deadline."""
    await asyncio.wait_for(asyncio.gather(*(talk.task for talk in talks)), DEADLINE_S)
    found = [talk.error for talk in talks]
    assert all(found), found
    return [error for error in found if error is not None]


async def stop(talks: list[Talk]) -> None:
    """End jobs that go on."""
    for talk in talks:
        talk.task.cancel()
    await asyncio.gather(*(talk.task for talk in talks), return_exceptions=True)


def play(scenario: Awaitable[None]) -> None:
    """Run one scenario in an event loop of its own."""

    async def main() -> None:
        await asyncio.wait_for(scenario, 2 * DEADLINE_S)

    asyncio.run(main())
