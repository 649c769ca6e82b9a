"""The table [http]: what it takes, what it refuses, and the socket that it asks for."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import socket
import stat
import tempfile
from pathlib import Path

import pytest

from partywire.workers.config import parse_config, write_config
from partywire.workers.errors import AddressUnavailable, ConfigError
from partywire.workers.http_config import LIMITS, TIME_MAX_S, TIME_MIN_S, TIMES, HttpConfig
from partywire.workers.http_listener import close_http_listener, open_http_listener, url_of
from partywire.workers.jobs import Job, JobOption, JobReport, JobRunner
from partywire.workers.serve_jobs import shared_options

PARTIES = 'name = "a"\n[parties]\na = "127.0.0.1:7001"\nb = "127.0.0.1:7002"\n'
FULL = """[http]
listen = "[::1]:8080"
jobs = ["digits", "my_module:Job"]
handlers = "package.module:app"
token_file = "token"
insecure = true
connections = 9
in_flight = 8
head_kib = 7
body_mib = 6
answer_mib = 5
buffer_mib = 6
header_s = 4
body_s = 3.5
answer_s = 3
send_s = 2
idle_s = 1
[http.options.digits]
gallery = "gallery.npy"
value-max = 7
"""


def http_of(table: str) -> HttpConfig:
    config = parse_config(PARTIES + table, "dir/a.toml").http
    assert config is not None
    return config


def problems_of(table: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        http_of(table)
    return dict(caught.value.problems)


def test_a_file_without_the_table_serves_nothing_and_an_empty_one_has_defaults() -> None:
    assert parse_config(PARTIES).http is None
    assert http_of("[http]\n") == HttpConfig()
    assert HttpConfig().is_private


def test_every_setting_is_read_and_written_again() -> None:
    config = parse_config(PARTIES + FULL)
    assert config.http is not None
    assert config.http.limits.head_size_max == 7 * 1024
    assert config.http.limits.body_timeout_s == 3.5
    assert config.http.options == {"digits": {"gallery": "gallery.npy", "value-max": 7}}
    assert parse_config(write_config(config)) == config


@pytest.mark.parametrize("key", LIMITS)
def test_a_size_or_count_is_taken_at_both_ends_of_its_range_and_refused_beyond(key: str) -> None:
    name, unit, least, most = LIMITS[key]
    # What has to fit around it: a request in flight has a connection, the budget holds one body and one answer.
    beside = {
        "connections": "in_flight = 1\n",
        "in_flight": "connections = 10000\n",
        "body_mib": "buffer_mib = 65536\n",
        "answer_mib": "buffer_mib = 65536\n",
        "buffer_mib": "body_mib = 1\nanswer_mib = 1\n",
    }
    enough = beside.get(key, "")
    for value in (least, most):
        assert getattr(http_of(f"[http]\n{enough}{key} = {value}\n").limits, name) == value * unit
    for wrong in (f"{least - 1}", f"{most + 1}", "1.5", '"1"', "true"):
        assert f"http.{key}" in problems_of(f"[http]\n{enough}{key} = {wrong}\n")


def test_a_time_is_taken_at_both_ends_of_its_range_and_refused_beyond() -> None:
    for key, name in TIMES.items():
        for seconds in (TIME_MIN_S, TIME_MAX_S):
            assert getattr(http_of(f"[http]\n{key} = {seconds}\n").limits, name) == seconds
        wrongs: tuple[object, ...] = (TIME_MIN_S / 2, TIME_MAX_S + 1, '"1"', "true", "nan")
        for wrong in wrongs:
            assert f"http.{key}" in problems_of(f"[http]\n{key} = {wrong}\n")


WRONG_LINES = [
    ('listen = "8080"', "http.listen"),
    ('listen = "127.0.0.1:65536"', "http.listen"),
    ('listen = "::1:8080"', "http.listen"),
    ('listen = "unix:relative"', "http.listen"),
    (f'listen = "unix:/{"x" * 107}"', "http.listen"),
    ('listen = "0.0.0.0:8080"', "http.insecure"),
    ('listen = "alice.example:8080"', "http.insecure"),
    ('jobs = "digits"', "http.jobs"),
    ('jobs = ["digits", "digits"]', "http.jobs"),
    ('handlers = "no_name"', "http.handlers"),
    ('handlers = "os; rm:x"', "http.handlers"),
    ("in_flight = 300", "http.in_flight"),
    ("body_mib = 100", "http.buffer_mib"),
    ("options = 5", "http.options"),
    ("[http.options.digits]\ngallery = 1", "http.options.digits"),
    ("typo = 1", "http.typo"),
]


def test_a_setting_that_cannot_be_is_named() -> None:
    for line, key in WRONG_LINES:
        assert key in problems_of(f"[http]\n{line}\n")


def test_all_mistakes_of_a_file_are_told_at_once() -> None:
    problems = problems_of('[http]\ntypo = 1\nbody_s = "long"\njobs = 5\n')
    assert problems.keys() == {"http.typo", "http.body_s", "http.jobs"}


def test_another_host_may_come_if_the_file_says_insecure() -> None:
    config = http_of('[http]\nlisten = "0.0.0.0:8080"\ninsecure = true\n')
    assert not config.is_private
    assert config.address == ("0.0.0.0", 8080)


# The token.


def test_the_token_is_known_by_its_digest_only(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("0123456789abcdef\n")
    path.chmod(0o600)
    config = HttpConfig(token_file="token", path=str(tmp_path / "a.toml"))
    assert config.token_digest() == hashlib.sha256(b"0123456789abcdef").digest()
    limits = dataclasses.replace(config.limits, token_digest=config.token_digest())
    assert config.token_digest().hex() not in repr(limits)
    assert str(config.token_digest()) not in repr(limits)
    assert HttpConfig().token_digest() == b""


@pytest.mark.parametrize(
    ("text", "mode", "what"),
    [
        ("0123456789abcdef", 0o644, "chmod 600"),
        ("0123456789abcde", 0o600, "at least 16"),
        ("0123456789 abcdef", 0o600, "at least 16"),
        ("0123456789abcdef\u00e4", 0o600, "not ASCII"),
        ("x" * 4097, 0o600, "at least 16"),
    ],
)
def test_a_token_file_that_protects_nothing_is_refused(tmp_path: Path, text: str, mode: int, what: str) -> None:
    path = tmp_path / "token"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=what) as caught:
        HttpConfig(token_file=str(path)).token_digest()
    assert text not in str(caught.value)


def test_a_token_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        HttpConfig(token_file=str(tmp_path / "none")).token_digest()


# The socket.


def test_a_tcp_address_is_listened_on_and_a_taken_one_refused() -> None:
    sock = open_http_listener("alice", HttpConfig(listen="127.0.0.1:0"))
    try:
        port = sock.getsockname()[1]
        assert url_of(sock) == f"http://127.0.0.1:{port}"
        with pytest.raises(AddressUnavailable, match=r"\[http\] listen"):
            open_http_listener("alice", HttpConfig(listen=f"127.0.0.1:{port}"))
    finally:
        close_http_listener(sock)


def test_a_unix_socket_is_private_replaces_a_dead_one_and_goes_away() -> None:
    with tempfile.TemporaryDirectory() as folder:  # a short path: the kernel takes 107 bytes
        path = Path(folder) / "s"
        config = HttpConfig(listen=f"unix:{path}")
        left = socket.socket(socket.AF_UNIX)
        left.bind(str(path))
        left.close()  # as of a service that was killed
        sock = open_http_listener("alice", config)
        try:
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
            assert url_of(sock) == f"unix:{path}"
            with pytest.raises(AddressUnavailable):
                open_http_listener("alice", config)
        finally:
            close_http_listener(sock)
        assert not path.exists()
        path.write_text("a file of somebody")
        with pytest.raises(AddressUnavailable):
            open_http_listener("alice", config)
        assert path.read_text() == "a file of somebody"


def test_a_client_can_set_what_all_parties_share_and_never_a_path() -> None:
    class PathJob(Job):
        name = "paths"
        summary = "for this test"
        options = (
            JobOption("mine", "int", 1, "own"),
            JobOption("ours", "int", 1, "shared", shared=True),
            JobOption("file", "path", None, "a shared path", shared=True),
        )

        def run(self, runner: JobRunner) -> JobReport:
            return JobReport({})

    assert [option.name for option in shared_options(PathJob)] == ["ours"]
