"""The programs that docs/node.md speaks of, run as a reader would."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

from partywire import load_node_config
from partywire.workers.config import parse_config
from tests.docs.commands import run
from tests.docs.markdown import DOCS, EXAMPLES, blocks

if TYPE_CHECKING:
    from pathlib import Path

DEADLINE_S = 60.0


def test_what_the_page_shows_is_taken_from_the_examples() -> None:
    files = [file.read_text() for file in EXAMPLES.glob("*.py")]
    shown = [block.text for block in blocks(DOCS / "node.md") if block.language == "python"]
    assert shown
    for text in shown:
        assert any(text in file for file in files), f"in no example:\n{text}"


def test_the_file_that_the_page_shows_is_one(tmp_path: Path) -> None:
    file, in_party = [block.text for block in blocks(DOCS / "node.md") if block.language == "toml"]
    path = tmp_path / "node.toml"
    path.write_text(file)
    assert load_node_config(path).options.allowed
    parties = 'name = "a"\n[parties]\na = "127.0.0.1:1"\nb = "127.0.0.1:2"\n'
    party = parse_config(parties + in_party)
    assert party.node is not None
    assert party.node.options.network_byte == 38


def test_each_of_twenty_peers_hears_from_each(tmp_path: Path) -> None:
    said = run(f"python {EXAMPLES / 'memory_network.py'} 20", tmp_path)
    assert said.code == 0, said.text
    assert said.text == "20 peers: 380 messages over 190 connections\n"


def test_the_stress_program_verifies_and_reports(tmp_path: Path) -> None:
    small = "--substreams 20 --substream-kib 300 --messages 200 --calls 100"
    said = run(f"python {EXAMPLES / 'node_stress.py'} {small}", tmp_path)
    assert said.code == 0, said.text
    found = re.findall(r"([\d,]+) (\w+) +([\d,]+) bytes verified", said.text)
    assert found == [("20", "substreams", "6,144,000"), ("200", "messages", "2,090"), ("100", "calls", "570")]
    assert "connections made: 1; lost: 0" in said.text


class Chat:
    """One chat, with what is typed and shown."""

    def __init__(self, stack: ExitStack, folder: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, EXAMPLES / "chat.py", *arguments],
            cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1,
        )  # fmt: skip
        stack.callback(self.end)
        self.greeting = self.read()

    def read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def type(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text)

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def test_two_chats_over_tcp_show_what_the_other_types(tmp_path: Path) -> None:
    with ExitStack() as stack:
        alice = Chat(stack, tmp_path, "--identity", "alice.key", "--listen", "/ip4/127.0.0.1/tcp/0")
        match = re.match(r"We are (\w{26}) at (\S+)$", alice.greeting)
        assert match, alice.greeting
        bob = Chat(stack, tmp_path, "--peer", f"{match[1]}@{match[2]}")
        bob.type("hello \x1b[31m Alice\n")
        assert alice.read() == f"{bob.greeting.split()[2][:16]}: hello ?[31m Alice\n"
        alice.type("hello Bob\n")
        assert bob.read() == f"{match[1][:16]}: hello Bob\n"
        said, _ = bob.process.communicate(timeout=DEADLINE_S)  # closes what it reads: the end of the chat
        assert (said, bob.process.returncode) == ("", 0)
        assert (tmp_path / "alice.key").stat().st_mode & 0o777 == 0o600


def test_a_chat_explains_what_is_wrong(tmp_path: Path) -> None:
    said = run(f"python {EXAMPLES / 'chat.py'} --listen nonsense", tmp_path)
    assert said.code == 1
    assert said.text.startswith("chat: configuration: listen: 'nonsense' is not a multiaddress")
    assert "usage: chat.py" in run(f"python {EXAMPLES / 'chat.py'} --help", tmp_path).text
