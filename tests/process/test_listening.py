"""The sockets that a party listens on: which addresses, which families, and what becomes of unix sockets' files."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from typing import TYPE_CHECKING

import pytest

from partywire.engine import listening as listening_module
from partywire.engine.listening import ListenError, Listening, open_listening
from tests.support.ipv6 import needs_ipv6

if TYPE_CHECKING:
    from pathlib import Path


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def can_connect(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 5).close()
    except OSError:
        return False
    return True


@needs_ipv6
def test_every_address_is_both_families_and_each_socket_is_of_one() -> None:
    listening = open_listening([("*", 0)])
    try:
        four, six = listening.sockets
        port = four.getsockname()[1]
        assert six.getsockname()[1] == port
        assert six.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        assert can_connect("127.0.0.1", port)
        assert can_connect("::1", port)
    finally:
        listening.close()


@needs_ipv6
def test_the_ipv6_wildcard_is_ipv6_alone() -> None:
    listening = open_listening([("::", 0)])
    try:
        [six] = listening.sockets
        assert can_connect("::1", six.getsockname()[1])
        assert not can_connect("127.0.0.1", six.getsockname()[1])
    finally:
        listening.close()


def test_a_name_is_listened_on_where_it_leads() -> None:
    listening = open_listening([("localhost", 0)])
    try:
        assert "127.0.0.1" in [sock.getsockname()[0] for sock in listening.sockets]
    finally:
        listening.close()


def test_a_host_without_one_family_listens_on_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def addresses(host: str, port: int) -> list[tuple[int, tuple[object, ...]]]:
        return [(socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET, ("192.0.2.1", port))]

    monkeypatch.setattr(listening_module, "_addresses_of", addresses)  # a name, one of whose addresses is not here
    listening = open_listening([("alice.example", 0)])
    assert [sock.getsockname()[0] for sock in listening.sockets] == ["127.0.0.1"]
    listening.close()


def test_a_name_of_which_one_address_is_taken_is_not_listened_on_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    def addresses(host: str, port: int) -> list[tuple[int, tuple[object, ...]]]:
        return [(socket.AF_INET, ("127.0.0.2", port)), (socket.AF_INET, ("127.0.0.1", port))]

    monkeypatch.setattr(listening_module, "_addresses_of", addresses)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ListenError, match=rf"tried 127\.0\.0\.1:{port} address already in use"):
            open_listening([("alice.example", port)])


def test_all_addresses_or_none(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ListenError) as failed:
            open_listening([(f"unix:{path}", 0), ("127.0.0.2", 0), ("127.0.0.1", port)])
    assert failed.value.address == f"127.0.0.1:{port}"
    assert "stop the program that uses the address" in str(failed.value)
    assert not path.exists()


@pytest.mark.parametrize(
    ("host", "words"),
    [("192.0.2.1", "not an address of this host"), ("no-such-host.invalid", r"no-such-host\.invalid:7")],
)
def test_an_address_that_is_not_ours_says_what_to_do(host: str, words: str) -> None:
    with pytest.raises(ListenError, match=words):
        open_listening([(host, 7)])


def test_a_trial_binds_and_lets_nobody_connect(tmp_path: Path) -> None:
    port, path = free_port(), tmp_path / "a.sock"
    trial = open_listening([("127.0.0.1", port), (f"unix:{path}", 0)], is_trial=True)
    assert not can_connect("127.0.0.1", port)
    with socket.socket(socket.AF_UNIX) as sock:
        assert sock.connect_ex(str(path)) != 0
    trial.close()
    assert not path.exists()
    with socket.create_server(("127.0.0.1", port)), pytest.raises(ListenError, match="in use"):
        open_listening([("127.0.0.1", port)], is_trial=True)


# Files of unix sockets.


def test_a_unix_socket_is_its_users_alone_and_gone_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    listening = open_listening([(f"unix:{path}", 0)])
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
    listening.close()
    listening.close()
    assert list(tmp_path.iterdir()) == []


def test_a_dead_sockets_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    listening = open_listening([(f"unix:{path}", 0)])
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
    listening.close()
    assert not path.exists()


def test_a_living_socket_and_a_file_that_is_none_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    living = open_listening([(f"unix:{path}", 0)])
    with pytest.raises(ListenError, match="in use"):
        open_listening([(f"unix:{path}", 0)])
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
    living.close()
    path.write_text("precious")
    with pytest.raises(ListenError, match="not a socket"):
        open_listening([(f"unix:{path}", 0)])
    assert path.read_text() == "precious"


def test_a_file_that_another_party_made_meanwhile_is_left_to_it(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    ours = open_listening([(f"unix:{path}", 0)])
    path.unlink()
    theirs = open_listening([(f"unix:{path}", 0)])
    ours.close()
    assert path.exists()
    theirs.close()
    assert not path.exists()


def test_a_folder_that_is_missing_or_locked_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ListenError, match="folder of the socket must exist"):
        open_listening([(f"unix:{tmp_path}/none/a.sock", 0)])
    monkeypatch.setattr(listening_module, "LOCK_TIMEOUT_S", 0.02)
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with pytest.raises(ListenError, match="locked by another program"):
            open_listening([(f"unix:{tmp_path}/a.sock", 0)])
    finally:
        os.close(fd)
    open_listening([(f"unix:{tmp_path}/a.sock", 0)]).close()


def test_an_adopted_sockets_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        listening = Listening()
        listening.adopt(sock)
        listening.close()
    assert path.exists()
