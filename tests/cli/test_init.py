"""`partywire init` and the help texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
import pytest

from partywire.workers.cli import run
from partywire.workers.config import load_config

if TYPE_CHECKING:
    from pathlib import Path

PARTIES = ("alice=127.0.0.1:7001", "bob=[::1]:7002", "charlie=localhost:7003")


def test_init_writes_a_configuration_for_each_party_that_can_be_loaded(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "parties"
    assert run(["init", *PARTIES, "--out", str(out), "--workers", "2"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["alice.toml", "bob.toml", "charlie.toml"]
    for index, name in enumerate(("alice", "bob", "charlie")):
        config = load_config(out / f"{name}.toml")
        assert config.name == name
        assert config.workers == 2
        assert list(config.parties) == ["alice", "bob", "charlie"]
        assert config.spec.index == index


def test_init_takes_every_kind_of_address(tmp_path: Path) -> None:
    parties = ["alice=unix:/run/a=b.sock", "bob=[fe80::1%eth0]:7002", "charlie=charlie.example:7003"]
    assert run(["init", *parties, "--insecure", "--out", str(tmp_path)]) == 0
    assert load_config(tmp_path / "bob.toml").parties == {
        "alice": ("unix:/run/a=b.sock", 0),
        "bob": ("fe80::1%eth0", 7002),
        "charlie": ("charlie.example", 7003),
    }


def test_init_says_what_it_wrote_and_what_to_do_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["init", *PARTIES, "--out", str(tmp_path)])
    said = capsys.readouterr().out
    assert f"wrote {tmp_path / 'bob.toml'}" in said
    assert "partywire run digits --config" in said


def test_init_names_the_files_for_machines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["init", *PARTIES, "--out", str(tmp_path), "--json"])
    files = orjson.loads(capsys.readouterr().out)["files"]
    assert files == [str(tmp_path / f"{name}.toml") for name in ("alice", "bob", "charlie")]


def test_init_never_touches_a_file_that_exists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "charlie.toml").write_text("precious")
    assert run(["init", *PARTIES, "--out", str(tmp_path)]) == 2
    assert "charlie.toml exists already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["charlie.toml"]
    assert (tmp_path / "charlie.toml").read_text() == "precious"


def test_addresses_beyond_this_host_need_a_word_about_plaintext(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parties = ["alice=10.0.0.1:7001", "bob=10.0.0.2:7001"]
    assert run(["init", *parties, "--out", str(tmp_path)]) == 2
    assert "insecure" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert run(["init", *parties, "--insecure", "--out", str(tmp_path)]) == 0
    assert load_config(tmp_path / "alice.toml").insecure is True


@pytest.mark.parametrize(
    ("parties", "said"),
    [
        (["alice"], "name=host:port"),
        (["=127.0.0.1:1"], "name=host:port"),
        (["alice=127.0.0.1"], "host:port"),
        (["alice=127.0.0.1:port"], "not a port"),
        (["alice=::1:7001"], "needs brackets"),
        (["alice=[bob]:7001"], "not an IPv6 address"),
        (["alice=unix:run/a.sock"], "absolute path"),
        ([f"alice=unix:/{'x' * 107}"], "shorter folder"),
        (["alice=unix:/a", "bob=unix:/a"], "same address"),
        (["alice=127.0.0.1:1", "alice=127.0.0.1:2"], "twice"),
        (["alice=127.0.0.1:1", "bob=127.0.0.1:1"], "same address"),
        (["alice=127.0.0.1:1"], "between 2 and"),
        (["../alice=127.0.0.1:1", "bob=127.0.0.1:2"], "name of a file"),
        (["al ice=127.0.0.1:1", "bob=127.0.0.1:2"], "spaces"),
    ],
)
def test_parties_that_make_no_sense_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], parties: list[str], said: str
) -> None:
    assert run(["init", *parties, "--out", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert run(["init", *PARTIES, "--out", str(tmp_path / "file" / "parties")]) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--help"], ["partywire run digits", "partywire init", "Exit codes", "130", "plaintext"]),
        (["run", "--help"], ["Examples", "--config alice.toml", "digits", "module"]),
        (["run", "digits", "--help"], ["--local", "--config", "--probes", "--gallery", "--json", "default: 3"]),
        (["run", "digits", "-h"], ["--sessions"]),
        (["init", "--help"], ["name=host:port", "name=unix:", "Examples", "--insecure"]),
        (["check", "--help"], ["Exit codes", "--timeout", "Examples", "does not notice"]),
        (["--version"], ["partywire", "."]),
    ],
)
def test_help_teaches(capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]) -> None:
    assert run(arguments) == 0
    said = capsys.readouterr().out
    for word in words:
        assert word in said


@pytest.mark.parametrize("arguments", [[], ["run"]])
def test_a_command_without_its_object_shows_the_help(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert run(arguments) == 2
    assert "Examples" in (said := capsys.readouterr().out) or "Try it" in said
