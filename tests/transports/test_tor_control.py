"""The control client against a scripted Tor: being let in, onion services, deadlines, endings."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import uvloop

from partywire.engine.tcp import TcpTransport
from partywire.engine.transports import tor_control
from partywire.engine.transports.errors import (
    OnionCollision,
    TorAuthenticationFailed,
    TorCommandRefused,
    TorControlError,
    TorControlLost,
    TorProtocolError,
)
from partywire.engine.transports.tor_control import TorAuthentication, TorControl
from tests.support.scripted_tor import COOKIE, SECRET_BLOB, ScriptedTor, onion_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine
    from pathlib import Path

DEADLINE_S = 20.0
PASSWORD = 'ge"heim\\7'


def run(scenario: Coroutine[object, object, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(scenario, DEADLINE_S))


@asynccontextmanager
async def connected(cookie_path: Path | None = None) -> AsyncIterator[tuple[ScriptedTor, TorControl]]:
    loop = asyncio.get_running_loop()
    tor = ScriptedTor(loop, cookie_path)
    control = None
    try:
        control = TorControl(
            loop, await TcpTransport(loop).connect(("127.0.0.1", tor.port), None, 5), "the control port"
        )
        yield tor, control
    finally:
        if control is not None:
            control.close()
        await tor.aclose()


@pytest.mark.parametrize(
    ("methods", "how"),
    [
        ("NULL", TorAuthentication()),
        ("HASHEDPASSWORD", TorAuthentication(password=PASSWORD)),
        ("COOKIE,SAFECOOKIE,HASHEDPASSWORD", TorAuthentication(password=PASSWORD)),
        ("COOKIE,SAFECOOKIE", TorAuthentication()),
        ("NULL,COOKIE,SAFECOOKIE", TorAuthentication()),
    ],
)
def test_each_method_lets_us_in(methods: str, how: TorAuthentication, tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / 'the "cookie"'
        path.write_bytes(COOKIE)
        async with connected(path) as (tor, control):
            tor.cookie_path = str(path).replace('"', '\\"')  # type: ignore[assignment]
            tor.methods, tor.password = methods, PASSWORD.replace("\\", "\\\\").replace('"', '\\"')
            await control.authenticate(how)
            assert COOKIE.hex() not in " ".join(tor.heard)

    run(scenario())


def test_a_plain_cookie_is_sent_only_from_a_file_that_the_user_named(tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "cookie"
        path.write_bytes(COOKIE)
        async with connected(path) as (tor, control):
            tor.methods = "COOKIE"
            with pytest.raises(TorAuthenticationFailed, match="COOKIE"):
                await control.authenticate(TorAuthentication())
            assert COOKIE.hex() not in " ".join(tor.heard)
            await control.authenticate(TorAuthentication(cookie_path=path))

    run(scenario())


def test_a_server_that_does_not_know_the_cookie_learns_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "cookie"
        path.write_bytes(COOKIE)
        async with connected(path) as (tor, control):
            tor.methods, tor.cookie = "SAFECOOKIE", bytes(32)
            with pytest.raises(TorAuthenticationFailed, match="did not prove"):
                await control.authenticate(TorAuthentication())
            assert not [line for line in tor.heard if line.startswith("AUTHENTICATE")]
            for answer in (b"250 AUTHCHALLENGE\r\n", b"250 AUTHCHALLENGE SERVERHASH=zz SERVERNONCE=1\r\n"):
                tor.replies["AUTHCHALLENGE"] = answer
                with pytest.raises(TorAuthenticationFailed, match="did not prove"):
                    await control.authenticate(TorAuthentication())

    run(scenario())


@pytest.mark.parametrize(
    ("methods", "size", "how", "words"),
    [
        ("HASHEDPASSWORD", 32, TorAuthentication(), "HashedControlPassword"),
        ("HASHEDPASSWORD", 32, TorAuthentication(password="wr" + "ong"), "password is wrong"),
        ("SAFECOOKIE", 31, TorAuthentication(), "32 bytes of a cookie"),
        ("SAFECOOKIE", 33, TorAuthentication(), "32 bytes of a cookie"),
        ("SAFECOOKIE", None, TorAuthentication(), "cannot be read"),
        ("FUTURE", 32, TorAuthentication(), "it offers FUTURE"),
        ("", 32, TorAuthentication(), "it offers nothing"),
    ],
)
def test_what_keeps_us_out_says_what_to_do(
    methods: str, size: int | None, how: TorAuthentication, words: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        path = tmp_path / "cookie"
        if size is not None:
            path.write_bytes(bytes(size))
        async with connected(path) as (tor, control):
            tor.methods, tor.password = methods, "right"
            with pytest.raises(TorAuthenticationFailed, match=words) as caught:
                await control.authenticate(how)
            assert "wrong" not in str(caught.value).replace("password is wrong", "")

    run(scenario())


def test_a_named_pipe_in_place_of_the_cookie_is_not_waited_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "cookie"
        os.mkfifo(path)
        async with connected(path) as (tor, control):
            tor.methods = "SAFECOOKIE"
            with pytest.raises(TorAuthenticationFailed, match="32 bytes"):
                await control.authenticate(TorAuthentication())

    run(scenario())


def test_a_password_that_would_end_the_command_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="control characters"):
        TorAuthentication(password="a\r\nSIGNAL HALT")


def test_no_secret_is_in_an_error_or_a_repr() -> None:
    async def scenario() -> None:
        async with connected() as (tor, control):
            tor.replies["ADD_ONION"] = f"513 bad key {SECRET_BLOB}\r\n".encode()
            tor.replies["AUTHENTICATE"] = f"515 not {PASSWORD}\r\n".encode()
            tor.methods = "HASHEDPASSWORD"
            how = TorAuthentication(password=PASSWORD)
            shown = repr(how)
            for attempt in (control.add_onion(SECRET_BLOB, 80, "127.0.0.1:1", detach=False), control.authenticate(how)):
                with pytest.raises(TorControlError) as caught:
                    await attempt
                shown += str(caught.value) + repr(caught.value)
            assert SECRET_BLOB not in shown
            assert PASSWORD not in shown

    run(scenario())


def test_onion_services_are_added_and_deleted() -> None:
    async def scenario() -> None:
        async with connected() as (tor, control):
            assert await control.add_onion("NEW:ED25519-V3", 80, "127.0.0.1:1", detach=False) == (
                tor.service_id,
                SECRET_BLOB,
            )
            with pytest.raises(OnionCollision):
                await control.add_onion(SECRET_BLOB, 80, "127.0.0.1:1", detach=True)
            assert tor.heard[-1] == f"ADD_ONION {SECRET_BLOB} Flags=Detach Port=80,127.0.0.1:1"
            with pytest.raises(TorCommandRefused, match="552") as caught:
                await control.delete_onion(onion_id(9))
            assert caught.value.command == "DEL_ONION"
            tor.detached = [onion_id(1), onion_id(2)]
            assert await control.get_info("onions/detached") == f"{onion_id(1)}\n{onion_id(2)}"
            tor.replies["GETINFO"] = b"250-version=1\r\n250 OK\r\n"
            with pytest.raises(TorProtocolError, match="another key"):
                await control.get_info("onions/detached")
            tor.replies["ADD_ONION"] = b"250 OK\r\n"
            with pytest.raises(TorProtocolError, match="did not say which"):
                await control.add_onion("NEW:BEST", 80, "127.0.0.1:1", detach=False)

    run(scenario())


def test_events_come_between_replies_and_commands_in_parallel_take_turns() -> None:
    async def scenario() -> None:
        async with connected() as (tor, control):
            events: list[str] = []
            control.on_event = events.append
            tor.replies["SETEVENTS"] = b"650 HS_DESC UPLOADED a b\r\n250 OK\r\n650-X\r\n650 OK\r\n"
            tor.replies["GETINFO version"] = b"250-version=0.4\r\n250 OK\r\n"
            answers = await asyncio.gather(
                control.command("SETEVENTS HS_DESC"), control.get_info("version"), control.get_info("version")
            )
            assert list(answers[1:]) == ["0.4", "0.4"]
            assert events == ["HS_DESC UPLOADED a b", "X"]

    run(scenario())


def test_no_answer_ends_the_connection_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tor_control, "COMMAND_TIMEOUT_S", 0.05)

    async def scenario() -> None:
        async with connected() as (tor, control):
            tor.replies["GETINFO"] = None
            with pytest.raises(TorControlLost, match="GETINFO"):
                await control.get_info("version")
            assert control.lost.done()
            with pytest.raises(TorControlLost, match="no DEL_ONION"):
                await control.delete_onion("x")

    run(scenario())


def test_a_command_that_is_cancelled_leaves_no_answer_for_the_next() -> None:
    async def scenario() -> None:
        async with connected() as (tor, control):
            tor.replies["GETINFO"] = None
            task = asyncio.ensure_future(control.get_info("version"))
            await tor.was_heard.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(TorControlLost):
                await control.delete_onion("x")

    run(scenario())


@pytest.mark.parametrize("data", [b"250 OK\r\n", b"SSH-2.0-x\r\n", b"x" * 20_000])
def test_what_is_no_answer_ends_the_connection(data: bytes) -> None:
    async def scenario() -> None:
        async with connected() as (tor, control):
            await control.command("PROTOCOLINFO 1")
            await tor.say(data)
            assert await control.lost
            with pytest.raises(TorControlLost):
                await control.command("PROTOCOLINFO 1")

    run(scenario())


def test_garbage_in_place_of_an_answer_is_a_protocol_error() -> None:
    async def scenario() -> None:
        async with connected() as (tor, control):
            tor.replies["PROTOCOLINFO"] = b"HTTP/1.1 501 Tor is not an HTTP proxy\r\n"
            with pytest.raises(TorProtocolError, match="without a code"):
                await control.authenticate(TorAuthentication())

    run(scenario())


def test_a_tor_that_dies_is_noticed_within_a_command() -> None:
    async def scenario() -> None:
        async with connected() as (tor, control):
            tor.replies["GETINFO"] = None
            task = asyncio.ensure_future(control.get_info("version"))
            await tor.was_heard.wait()
            tor.drop()
            with pytest.raises(TorControlLost):
                await task

    run(scenario())
