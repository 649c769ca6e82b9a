"""The dialler over a scripted transport: every path is a walk through the connection table."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import TYPE_CHECKING

import pytest

from partywire.engine import dialler as dialler_module
from partywire.engine.connection import ConnectionState
from partywire.engine.dialler import DialCause, DialFailed, Dialler
from partywire.engine.memory import memory_pair
from partywire.engine.transport import BindError, Listener, Stream, Transport

if TYPE_CHECKING:
    from collections.abc import Callable

    from partywire.engine.addresses import Address


class ScriptedTransport(Transport):
    """Resolves and connects as told, one outcome per call."""

    def __init__(self, addresses: list[Address] | OSError, outcomes: list[OSError | None]) -> None:
        self._addresses = addresses
        self._outcomes = outcomes
        self.dialled: list[tuple[Address, str | None]] = []

    async def resolve(self, host: str, port: int) -> list[Address]:
        if isinstance(self._addresses, OSError):
            raise self._addresses
        return self._addresses

    async def connect(self, address: Address, client_host: str | None, timeout_s: float) -> Stream:
        self.dialled.append((address, client_host))
        if (outcome := self._outcomes.pop(0)) is not None:
            raise outcome
        return memory_pair(asyncio.get_running_loop())[0]

    def listen(self, host: str, port: int, on_accept: Callable[[Stream], object]) -> Listener:
        raise OSError("nobody listens here")


def refused() -> OSError:
    return ConnectionRefusedError(errno.ECONNREFUSED, f"Connect call failed: {os.strerror(errno.ECONNREFUSED)}")


ONE: list[Address] = [("192.0.2.1", 7)]
TWO: list[Address] = [*ONE, ("192.0.2.2", 7)]


def test_addresses_are_tried_in_order_until_one_answers() -> None:
    transport = ScriptedTransport(TWO, [refused(), None])
    dialler = Dialler(transport, "bob", "bob.example", 7)
    asyncio.run(dialler.attempt()).close()
    assert [address for address, _ in transport.dialled] == TWO
    assert dialler.state is ConnectionState.CONNECTED


def test_exhausted_addresses_say_who_where_and_why_for_each() -> None:
    outcomes: list[OSError | None] = [refused(), TimeoutError(errno.ETIMEDOUT, "no answer within 3 s")]
    dialler = Dialler(ScriptedTransport(TWO, outcomes), "bob", "bob.example", 7)
    with pytest.raises(DialFailed) as failed:
        asyncio.run(dialler.attempt())
    tried = "tried 192.0.2.1:7 connection refused; 192.0.2.2:7 no answer within 3 s"
    assert str(failed.value).startswith(f"bob cannot be reached at bob.example:7 ({tried});")
    assert failed.value.kind is DialCause.NO_ANSWER
    assert dialler.state is ConnectionState.CONNECTING_FAILED


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (refused(), DialCause.REFUSED),
        (OSError(errno.ENOENT, "No such file or directory"), DialCause.REFUSED),
        (TimeoutError(errno.ETIMEDOUT, "no answer within 3 s"), DialCause.NO_ANSWER),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), DialCause.UNREACHABLE),
        (BindError(errno.EADDRNOTAVAIL, "cannot dial from 10.9.9.9"), DialCause.CLIENT_HOST),
        (BindError(errno.EAFNOSUPPORT, "cannot dial from 10.9.9.9: it has no IPv6 address"), DialCause.UNREACHABLE),
        (OSError(errno.EIO, "Input/output error"), DialCause.OTHER),
    ],
)
def test_the_only_address_is_named_once_and_its_failure_has_a_kind(error: OSError, kind: DialCause) -> None:
    dialler = Dialler(ScriptedTransport([("::1", 7)], [error]), "bob", "::1", 7)
    with pytest.raises(DialFailed) as failed:
        asyncio.run(dialler.attempt())
    assert str(failed.value).count("[::1]:7") == 1
    assert "tried" not in str(failed.value)
    assert failed.value.kind is kind


def test_a_name_that_cannot_be_looked_up_says_so() -> None:
    dialler = Dialler(ScriptedTransport(OSError(2, "Name or service not known"), []), "bob", "b.invalid", 7)
    with pytest.raises(DialFailed, match="cannot be looked up") as failed:
        asyncio.run(dialler.attempt())
    assert failed.value.kind is DialCause.UNRESOLVED
    assert dialler.state is ConnectionState.RESOLVING_FAILED


def test_a_local_address_that_cannot_be_bound_is_the_cause_whatever_else_failed() -> None:
    transport = ScriptedTransport(TWO, [BindError(99, "cannot dial from 10.9.9.9"), refused()])
    dialler = Dialler(transport, "bob", "bob.example", 7, client_host="10.9.9.9")
    with pytest.raises(DialFailed, match=r"cannot dial from 10\.9\.9\.9") as failed:
        asyncio.run(dialler.attempt())
    assert failed.value.kind is DialCause.CLIENT_HOST
    assert transport.dialled == [(address, "10.9.9.9") for address in TWO]


def test_dial_goes_on_until_somebody_answers_and_reports_each_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialler_module, "BACKOFF_MIN_S", 0.001)
    failures: list[str] = []
    transport = ScriptedTransport(ONE, [refused(), refused(), refused(), None])
    dialler = Dialler(transport, "bob", "bob.example", 7)
    asyncio.run(dialler.dial(failures.append)).close()
    assert len(failures) == 3
    assert "connection refused" in failures[0]


def test_pauses_grow_up_to_a_second() -> None:
    slept: list[float] = []

    async def scenario(dialler: Dialler) -> None:
        for _ in range(8):
            await dialler.back_off()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "sleep", sleep)
        asyncio.run(scenario(Dialler(ScriptedTransport(ONE, []), "bob", "b", 7)))
    assert all(0.5 <= at / bound <= 1 for at, bound in zip(slept, [0.05, 0.1, 0.2, 0.4, 0.8, 1, 1, 1], strict=True))


@pytest.mark.parametrize("client_host", [None, "127.0.0.1"])
def test_a_lost_stream_can_be_dialled_again(client_host: str | None) -> None:
    dialler = Dialler(ScriptedTransport(ONE, [None, refused(), None]), "bob", "b", 7, client_host)
    asyncio.run(dialler.attempt()).close()
    dialler.lost()
    dialler.lost()
    assert dialler.state.name == "DISCONNECTED"
    with pytest.raises(DialFailed):
        asyncio.run(dialler.attempt())
    asyncio.run(dialler.attempt()).close()
    assert dialler.state is ConnectionState.CONNECTED


def test_a_cancelled_attempt_leaves_a_state_from_which_another_can_start() -> None:
    class Never(ScriptedTransport):
        async def connect(self, address: Address, client_host: str | None, timeout_s: float) -> Stream:
            await asyncio.Event().wait()
            raise AssertionError

    async def scenario() -> None:
        dialler = Dialler(Never(ONE, []), "bob", "b", 7)
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(dialler.attempt(), 0.01)
            assert dialler.state is ConnectionState.CONNECTING_FAILED

    asyncio.run(scenario())
