"""An onion service against a scripted Tor: its key, collisions, and being added again."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from typing import TYPE_CHECKING

import pytest
import uvloop

from partywire.engine.listening import ListenError
from partywire.engine.multiaddr import Multiaddr
from partywire.engine.transports import (
    AddressNotSupported,
    OnionService,
    ProxyScope,
    Router,
    SocksProxy,
    TransportSettings,
    onion_service,
    tor_control,
)
from partywire.engine.transports.errors import OnionCollision, OnionKeyError, TorControlLost, TorProtocolError
from partywire.engine.transports.onion_key import OnionKey, read_key, write_key
from tests.support.scripted_tor import SECRET_BLOB, ScriptedTor, onion_id

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from partywire.engine.transport import Stream

DEADLINE_S = 20.0


def run(scenario: Callable[[ScriptedTor], Coroutine[object, object, None]]) -> None:
    async def whole() -> None:
        tor = ScriptedTor(asyncio.get_running_loop())
        try:
            await asyncio.wait_for(scenario(tor), DEADLINE_S)
        finally:
            await tor.aclose()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(whole())


def service(tor: ScriptedTor, folder: Path, *, detach: bool = False, local_port: int = 0) -> OnionService:
    control = Multiaddr.parse(f"/ip4/127.0.0.1/tcp/{tor.port}")
    return OnionService(control, folder / "onion.key", 80, detach=detach, local_port=local_port)


def ignore(stream: Stream, source: Multiaddr) -> None:
    stream.close()


def test_a_new_service_gets_a_key_that_only_we_can_read_and_the_next_one_uses_it(tmp_path: Path) -> None:
    async def scenario(tor: ScriptedTor) -> None:
        router = Router(asyncio.get_running_loop())
        listening = await router.listen_onion(service(tor, tmp_path), ignore)
        assert str(listening.address) == f"/onion3/{tor.service_id}:80"
        path = tmp_path / "onion.key"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.read_text() == f"{SECRET_BLOB}\n{tor.service_id}.onion\n"
        assert os.listdir(tmp_path) == ["onion.key"]
        listening.close()
        listening.close()
        tor.running.clear()
        again = await router.listen_onion(service(tor, tmp_path), ignore)
        assert again.address == listening.address
        assert tor.heard[-1].startswith(f"ADD_ONION {SECRET_BLOB} Port=80,127.0.0.1:")
        again.close()

    run(scenario)


def test_tor_delivers_to_the_local_port(tmp_path: Path) -> None:
    async def scenario(tor: ScriptedTor) -> None:
        router = Router(asyncio.get_running_loop())
        came: asyncio.Future[tuple[Stream, Multiaddr]] = asyncio.get_running_loop().create_future()
        listening = await router.listen_onion(
            service(tor, tmp_path), lambda stream, source: came.set_result((stream, source))
        )
        target = next(line for line in tor.heard if line.startswith("ADD_ONION")).rpartition(",")[2]
        host, _, port = target.rpartition(":")
        stream = await router.dial(Multiaddr.parse(f"/ip4/{host}/tcp/{port}"))
        accepted, source = await came
        assert str(source).startswith("/ip4/127.0.0.1/tcp/")
        for each in (stream, accepted, listening):
            each.close()

    run(scenario)


def test_a_router_without_a_proxy_adopts_the_one_that_tor_names(tmp_path: Path) -> None:
    async def scenario(tor: ScriptedTor) -> None:
        loop = asyncio.get_running_loop()
        router = Router(loop)
        (await router.listen_onion(service(tor, tmp_path), ignore)).close()
        assert router.proxy == SocksProxy(Multiaddr.parse("/ip4/127.0.0.1/tcp/9050"), scope=ProxyScope.ONION)
        tor.running.clear()
        own = SocksProxy(Multiaddr.parse("/ip4/127.0.0.1/tcp/1"))
        router = Router(loop, TransportSettings(own))
        (await router.listen_onion(service(tor, tmp_path), ignore)).close()
        assert router.proxy is own
        tor.running.clear()
        tor.replies["GETINFO net/listeners/socks"] = b'250-net/listeners/socks="unix:/run/tor/s" "x"\r\n250 OK\r\n'
        router = Router(loop)
        (await router.listen_onion(service(tor, tmp_path), ignore)).close()
        assert router.proxy == SocksProxy(Multiaddr.parse("/unix/run/tor/s"))
        tor.running.clear()
        tor.replies["GETINFO net/listeners/socks"] = b"250-net/listeners/socks=\r\n250 OK\r\n"
        router = Router(loop)
        (await router.listen_onion(service(tor, tmp_path), ignore)).close()
        assert router.proxy is None

    run(scenario)


def test_a_service_is_added_again_when_tor_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(onion_service, "RECONNECT_PAUSE_S", 0.01)
    caplog.set_level(logging.DEBUG)

    async def logged(words: str, times: int) -> None:
        while caplog.text.count(words) < times:  # noqa: ASYNC110 - a log sets no event
            await asyncio.sleep(0)

    async def scenario(tor: ScriptedTor) -> None:
        listening = await Router(asyncio.get_running_loop()).listen_onion(service(tor, tmp_path), ignore)
        address = listening.address
        (tmp_path / "onion.key").unlink()  # is not needed any more
        tor.stop_listening()
        tor.drop()
        await logged("is not in Tor", 1)
        tor.listen_again()
        await tor.added.wait()
        tor.drop()
        await tor.added.wait()
        await logged("added /", 2)
        assert listening.address == address
        listening.close()
        assert len([line for line in tor.heard if line.startswith(f"ADD_ONION {SECRET_BLOB}")]) == 2

    run(scenario)
    assert SECRET_BLOB not in caplog.text
    assert SECRET_BLOB.removeprefix("ED25519-V3:")[:40] not in caplog.text


def test_a_detached_service_of_ours_is_taken_over_and_one_in_use_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onion_service, "COLLISION_PAUSE_S", 0.001)

    async def scenario(tor: ScriptedTor) -> None:
        router = Router(asyncio.get_running_loop())
        write_key(tmp_path / "onion.key", OnionKey(SECRET_BLOB, tor.service_id))
        tor.detached = [onion_id(7), tor.service_id]
        listening = await router.listen_onion(service(tor, tmp_path, detach=True), ignore)
        assert tor.detached == [onion_id(7)]
        assert f"DEL_ONION {tor.service_id}" in tor.heard
        assert tor.heard[-2].startswith(f"ADD_ONION {SECRET_BLOB} Flags=Detach")
        listening.close()
        heard = len(tor.heard)
        with pytest.raises(OnionCollision):
            await router.listen_onion(service(tor, tmp_path), ignore)
        trials = [line for line in tor.heard[heard:] if line.startswith("ADD_ONION")]
        assert len(trials) == onion_service.COLLISIONS_MAX

    run(scenario)


def test_a_service_of_a_connection_that_ended_a_moment_ago_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onion_service, "COLLISION_PAUSE_S", 0.001)

    async def scenario(tor: ScriptedTor) -> None:
        router = Router(asyncio.get_running_loop())
        (await router.listen_onion(service(tor, tmp_path), ignore)).close()
        heard = len(tor.heard)
        task = asyncio.ensure_future(router.listen_onion(service(tor, tmp_path), ignore))
        while len([line for line in tor.heard[heard:] if line.startswith("ADD_ONION")]) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0)
        tor.running.clear()  # now Tor has noticed
        (await task).close()

    run(scenario)


def test_what_tor_publishes_and_says_of_its_network_is_heard(tmp_path: Path) -> None:
    async def scenario(tor: ScriptedTor) -> None:
        listening = await Router(asyncio.get_running_loop()).listen_onion(service(tor, tmp_path), ignore)
        with pytest.raises(TimeoutError):
            await listening.wait_published(0.01)
        before = listening.network_is_up
        await tor.say(f"650 HS_DESC UPLOADED {onion_id(3)} UNKNOWN $A\r\n650 NETWORK_LIVENESS DOWN\r\n".encode())
        await tor.say(b"650 STRANGE\r\n650 NETWORK_LIVENESS SIDEWAYS\r\n")
        await tor.say(f"650 HS_DESC UPLOADED {tor.service_id} UNKNOWN $A\r\n".encode())
        await listening.wait_published(DEADLINE_S)
        assert (before, listening.network_is_up) == (None, False)
        listening.close()

    run(scenario)


def test_another_service_than_that_of_the_key_is_refused(tmp_path: Path) -> None:
    async def scenario(tor: ScriptedTor) -> None:
        router = Router(asyncio.get_running_loop())
        write_key(tmp_path / "onion.key", OnionKey(SECRET_BLOB, onion_id(8)))
        with pytest.raises(TorProtocolError, match="another onion service"):
            await router.listen_onion(service(tor, tmp_path), ignore)
        tor.service_id = "x" * 56
        with pytest.raises(TorProtocolError, match="cannot be"):
            await router.listen_onion(service(tor, tmp_path), ignore)

    run(scenario)


def test_a_key_that_cannot_be_kept_leaves_no_service_behind(tmp_path: Path) -> None:
    async def scenario(tor: ScriptedTor) -> None:
        with pytest.raises(OnionKeyError, match="cannot be written"):
            await Router(asyncio.get_running_loop()).listen_onion(service(tor, tmp_path / "missing"), ignore)
        assert tor.heard[-1] == f"DEL_ONION {tor.service_id}"

    run(scenario)


def test_a_control_port_that_says_nothing_is_given_up_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tor_control, "COMMAND_TIMEOUT_S", 0.05)

    async def scenario(tor: ScriptedTor) -> None:
        router = Router(asyncio.get_running_loop())
        for silent in ("PROTOCOLINFO", "ADD_ONION", "GETINFO net/listeners/socks"):
            tor.replies = {silent: None}
            with pytest.raises(TorControlLost, match=silent.split(" ")[0]):
                await router.listen_onion(service(tor, tmp_path), ignore)
            tor.running.clear()

    run(scenario)


def test_what_is_not_there_is_a_typed_error(tmp_path: Path) -> None:
    async def scenario(tor: ScriptedTor) -> None:
        router = Router(asyncio.get_running_loop())
        wanted = service(tor, tmp_path)
        listening = await router.listen(Multiaddr.parse("/ip4/127.0.0.1/tcp/0"), ignore)
        taken = listening.address.value_of("tcp")
        assert isinstance(taken, int)
        with pytest.raises(ListenError, match="in use"):
            await router.listen_onion(service(tor, tmp_path, local_port=taken), ignore)
        listening.close()
        tor.stop_listening()
        with pytest.raises(TorControlLost, match="does Tor run"):
            await router.listen_onion(wanted, ignore)
        with pytest.raises(AddressNotSupported, match="control port"):
            await router.listen_onion(OnionService(Multiaddr.parse("/memory/1"), tmp_path / "k", 80), ignore)
        with pytest.raises(AddressNotSupported, match="listen_onion"):
            await router.listen(Multiaddr.parse(f"/onion3/{onion_id(1)}:80"), ignore)

    run(scenario)


@pytest.mark.parametrize("port", [0, 65536])
def test_both_ends_of_the_ports_of_a_service(port: int, tmp_path: Path) -> None:
    control = Multiaddr.parse("/memory/1")
    with pytest.raises(ValueError, match="65535"):
        OnionService(control, tmp_path, port)
    OnionService(control, tmp_path, 65535, local_port=65535)
    OnionService(control, tmp_path, 1, local_port=0)


def test_the_file_of_a_key_is_read_strictly_and_replaced_never(tmp_path: Path) -> None:
    path = tmp_path / "key"
    assert read_key(path) is None
    write_key(path, OnionKey(SECRET_BLOB, onion_id(1)))
    assert read_key(path) == OnionKey(SECRET_BLOB, onion_id(1))
    assert SECRET_BLOB not in repr(read_key(path))
    with pytest.raises(OnionKeyError, match="exists"):
        write_key(path, OnionKey(SECRET_BLOB, onion_id(2)))
    path.write_text(SECRET_BLOB)  # made by hand
    assert read_key(path) == OnionKey(SECRET_BLOB, "")
    for text in ("", "RSA1024:abc", SECRET_BLOB[:-1], f"{SECRET_BLOB}\nand more", SECRET_BLOB + "\n" * 300):
        path.write_text(text)
        with pytest.raises(OnionKeyError, match="not a line"):
            read_key(path)
    path.write_text(SECRET_BLOB)
    for mode in (0o640, 0o604):
        path.chmod(mode)
        with pytest.raises(OnionKeyError, match="0600"):
            read_key(path)
    with pytest.raises(OnionKeyError):
        read_key(tmp_path)
    with pytest.raises(OnionKeyError, match="another kind"):
        write_key(tmp_path / "new", OnionKey("RSA1024:abc", onion_id(1)))
    assert not (tmp_path / "new").exists()
