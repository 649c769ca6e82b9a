"""Our control client against Debian's tor, whose network is disabled: a real control port without any traffic."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import uvloop

from partywire.engine.multiaddr import Multiaddr
from partywire.engine.transports import OnionService, Router, TorAuthentication, onion_service
from partywire.engine.transports.errors import (
    OnionCollision,
    TorAuthenticationFailed,
    TorCommandRefused,
    TorControlError,
    TorControlLost,
)
from partywire.engine.transports.onion_key import read_key
from partywire.engine.transports.tor_control import TorControl
from tests.interop.tor_programs import needs, running
from tests.support.scripted_tor import onion_id

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

    from partywire.engine.transport import Stream

pytestmark = pytest.mark.interop

DEADLINE_S = 60.0
PASSWORD = 'ge"heim\\7 €'


def run(scenario: Coroutine[object, object, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(scenario, DEADLINE_S))


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: Tor's control socket lies there."""
    import tempfile
    from pathlib import Path

    path = Path(tempfile.mkdtemp(prefix="pw-tor-"))
    yield path
    shutil.rmtree(path)


@contextmanager
def tor(folder: Path, *options: str) -> Iterator[Multiaddr]:
    """A control port in `folder`, until the end of the block."""
    needs("tor", "tor")
    data = folder / "data"
    data.mkdir(mode=0o700, exist_ok=True)
    path = folder / "control"
    path.unlink(missing_ok=True)
    empty = folder / "torrc"
    empty.touch()
    arguments = ["--DisableNetwork", "1", "--SocksPort", "0", "--DataDirectory", str(data)]
    with running(["tor", "-f", empty, *arguments, "--ControlPort", f"unix:{path}", *options]) as (process,):
        give_up_at = time.monotonic() + DEADLINE_S
        while not path.is_socket() or not (data / "state").exists():
            assert process.poll() is None, "tor ended"
            assert time.monotonic() < give_up_at, "tor has no control port"
            time.sleep(0.02)
        yield Multiaddr.parse(f"/unix{path}")


async def control_of(address: Multiaddr) -> TorControl:
    loop = asyncio.get_running_loop()
    return TorControl(loop, await Router(loop).dial(address), str(address))


def ignore(stream: Stream, source: Multiaddr) -> None:
    stream.close()


def hashed(password: str) -> str:
    done = subprocess.run(["tor", "--hash-password", password], capture_output=True, text=True, check=True)
    return done.stdout.strip().splitlines()[-1]


def cookie_of(folder: Path) -> Path:
    return folder / "data" / "control_auth_cookie"


METHODS: dict[str, tuple[Callable[[], list[str]], Callable[[Path], TorAuthentication]]] = {
    "nothing": (list, lambda folder: TorAuthentication()),
    "safe cookie": (lambda: ["--CookieAuthentication", "1"], lambda folder: TorAuthentication()),
    "named cookie": (
        lambda: ["--CookieAuthentication", "1"],
        lambda folder: TorAuthentication(cookie_path=cookie_of(folder)),
    ),
    "password": (
        lambda: ["--HashedControlPassword", hashed(PASSWORD)],
        lambda folder: TorAuthentication(password=PASSWORD),
    ),
}


@pytest.mark.parametrize("method", METHODS)
def test_tor_lets_us_in(method: str, folder: Path) -> None:
    needs("tor", "tor")
    options, how = METHODS[method]

    async def scenario(address: Multiaddr) -> None:
        control = await control_of(address)
        try:
            await control.authenticate(how(folder))
            assert (await control.get_info("version")).startswith("0.")
        finally:
            control.close()

    with tor(folder, *options()) as address:
        run(scenario(address))


def test_tor_does_not_let_us_in(folder: Path) -> None:
    needs("tor", "tor")
    wrong = folder / "wrong"
    wrong.write_bytes(bytes(32))

    async def scenario(address: Multiaddr) -> None:
        for how, words in (
            (TorAuthentication(), "HashedControlPassword|did not prove"),
            (TorAuthentication(password="incorrect"), "password is wrong"),
        ):
            control = await control_of(address)
            try:
                with pytest.raises(TorAuthenticationFailed, match=words):
                    await control.authenticate(how)
            finally:
                control.close()

    async def cookies(address: Multiaddr) -> None:
        control = await control_of(address)
        try:
            with pytest.raises(TorAuthenticationFailed, match="did not prove"):
                await control.authenticate(TorAuthentication(cookie_path=wrong))
            with pytest.raises(TorControlError):  # nothing is served before
                await control.get_info("version")
        finally:
            control.close()

    with tor(folder, "--HashedControlPassword", hashed("right")) as address:
        run(scenario(address))
    with tor(folder, "--CookieAuthentication", "1") as address:
        run(cookies(address))


def test_onion_services_come_collide_and_go(folder: Path) -> None:
    async def scenario(address: Multiaddr) -> None:
        router = Router(asyncio.get_running_loop())
        path = folder / "onion.key"
        service = OnionService(address, path, 80)
        first = await router.listen_onion(service, ignore)
        key = read_key(path)
        assert key is not None
        assert str(first.address) == f"/onion3/{key.service_id}:80"
        assert router.proxy is None  # its network is disabled, so it has no SOCKS5 proxy
        with pytest.raises(OnionCollision):
            await router.listen_onion(service, ignore)
        first.close()
        detached = OnionService(address, path, 80, detach=True)
        for _ in range(3):  # the second and third take over what the one before left
            listening = await router.listen_onion(detached, ignore)
            assert listening.address == first.address
            listening.close()
        control = await control_of(address)
        await control.authenticate(TorAuthentication())
        assert await control.get_info("onions/detached") == key.service_id
        with pytest.raises(TorCommandRefused, match=r"512|552"):
            await control.delete_onion(onion_id(3))
        await control.delete_onion(key.service_id)
        assert await control.get_info("onions/detached") == ""
        with pytest.raises(TorCommandRefused) as caught:
            await control.add_onion(f"ED25519-V3:{'!' * 88}", 80, "127.0.0.1:1", detach=False)
        assert "!" not in str(caught.value)
        control.close()

    with tor(folder) as address:
        run(scenario(address))


def test_a_service_is_there_again_after_tor_was_started_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onion_service, "RECONNECT_PAUSE_S", 0.05)

    async def scenario() -> None:
        with tor(folder) as address:
            listening = await Router(asyncio.get_running_loop()).listen_onion(
                OnionService(address, folder / "onion.key", 80), ignore
            )
            name = str(listening.address)
        with tor(folder):
            while True:
                try:
                    control = await control_of(address)
                    await control.authenticate(TorAuthentication())
                    await control.add_onion(_key(folder), 80, "127.0.0.1:1", detach=False)
                    control.close()  # it was not there yet
                except OnionCollision:
                    control.close()
                    break
                except TorControlLost:
                    pass
                await asyncio.sleep(0.1)
            assert str(listening.address) == name
        listening.close()

    run(scenario())


def _key(folder: Path) -> str:
    key = read_key(folder / "onion.key")
    assert key is not None
    return key.blob
