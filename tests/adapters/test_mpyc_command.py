"""`partywire mpyc` around a program: what the program finds, and how its end is told. No MPyC is needed for it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from partywire.workers.adapters.mpyc_config import MpycSettings
from partywire.workers.adapters.mpyc_program import command_line, read_command_line
from partywire.workers.cli import run

if TYPE_CHECKING:
    from pathlib import Path

LOOKS_AROUND = """
import json, sys
print(json.dumps([sys.argv, sys.path[0], __name__, sys.modules["__main__"].__file__]))
"""


def test_a_program_finds_what_python_would_give_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = tmp_path / "looks_around.py"
    program.write_text(LOOKS_AROUND)
    before = sys.argv[:], sys.path[:], sys.meta_path[:]
    assert run(["mpyc", str(program), "-M3", "--insecure", "--help", "8"]) == 0
    arguments, first_of_path, name, main = json.loads(capsys.readouterr().out)
    assert arguments == [str(program), "-M3", "--insecure", "--help", "8"]
    assert first_of_path == str(tmp_path)
    assert name == "__main__"
    assert main == str(program)
    assert (sys.argv, sys.path, sys.meta_path) == before


@pytest.mark.parametrize(
    ("text", "code", "said", "is_traced"),
    [
        ("open('/nowhere/at/all')", 1, "FileNotFoundError", True),
        ("from partywire import PeerLost; raise PeerLost('party1', 0, 1, 'it died')", 3, "lost party1", False),
        ("import mpyc_that_is_not_there", 1, "mpyc_that_is_not_there", True),
        ("raise ModuleNotFoundError('no', name='mpyc')", 2, "pip install 'partywire[mpyc]'", False),
    ],
)
def test_the_end_of_a_program_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, code: int, said: str, is_traced: bool
) -> None:
    program = tmp_path / "ends.py"
    program.write_text(text)
    assert run(["mpyc", str(program)]) == code
    err = capsys.readouterr().err
    assert said in err
    assert ("Traceback" in err) == is_traced


def test_a_program_may_end_itself(tmp_path: Path) -> None:
    program = tmp_path / "ends.py"
    program.write_text("import sys; sys.exit(7)")
    with pytest.raises(SystemExit) as ended:
        run(["mpyc", str(program)])
    assert ended.value.code == 7


def test_a_program_that_is_not_there_is_the_users_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["mpyc", "nowhere.py", "-M3"]) == 2
    assert "there is no program nowhere.py" in capsys.readouterr().err


def test_parties_that_mpyc_starts_get_the_same_settings() -> None:
    assert command_line(MpycSettings()) == ["--inbox-mib=1024"]
    chosen = MpycSettings(insecure=True, connect_s=2.5, inbox_mib=7)
    assert command_line(chosen) == ["--insecure", "--connect-s=2.5", "--inbox-mib=7"]


@pytest.mark.parametrize(
    "settings",
    [MpycSettings(), MpycSettings(True, 2.5, 7, "processes"), MpycSettings(connect_s=86_400.0, inbox_mib=1 << 20)],
)
def test_what_is_said_to_parties_that_mpyc_starts_is_read_without_a_reader(settings: MpycSettings) -> None:
    words = [*command_line(settings), "program.py", "-M3", "--io=processes", "--help"]
    assert read_command_line(words) == ("program.py", ["-M3", "--io=processes", "--help"], settings)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--help", "program.py"],
        ["--inbox-mib", "7", "program.py"],
        ["--inbox-mib=0", "program.py"],
        ["--inbox-mib=1048577", "program.py"],
        ["--inbox-mib=many", "program.py"],
        ["--connect-s=0.09", "program.py"],
        ["--connect-s=nan", "program.py"],
        ["--io=threads", "program.py"],
        ["--insecure"],
    ],
)
def test_what_is_said_in_other_words_needs_the_reader(words: list[str]) -> None:
    assert read_command_line(words) is None


def test_a_program_begins_before_what_takes_long_is_imported(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("import sys; print(*({'click', 'numpy', 'partywire.workers.config'} & set(sys.modules)), 'end')")
    command = [sys.executable, "-m", "partywire.workers.adapters.mpyc", *command_line(MpycSettings()), str(program)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert said == "end\n"


@pytest.mark.parametrize(
    "options", [["--inbox-mib=7"], ["--inbox-mib", "7"]], ids=["as said to parties", "by the reader"]
)
def test_an_interrupted_program_ends_like_one(tmp_path: Path, options: list[str]) -> None:
    program = tmp_path / "program.py"
    program.write_text("raise KeyboardInterrupt")
    command = [sys.executable, "-m", "partywire.workers.adapters.mpyc", *options, str(program)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr.strip()) == (130, "")
