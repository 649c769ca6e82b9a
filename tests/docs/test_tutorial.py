"""Every command of docs/tutorial.md is run, as far as one host can, and says what the page shows."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

from tests.docs.commands import Running, missing_lines, replaced, run
from tests.docs.markdown import DOCS, EXAMPLES, Block, blocks
from tests.support.reserved_ports import reserved_ports

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

TUTORIAL = DOCS / "tutorial.md"
NAMES = ("alice", "bob", "charlie")
HOSTS = ("10.0.0.1", "10.0.0.2", "10.0.0.3")
SCP = """#!/bin/bash
mkdir -p "${@: -1}" && cp "$@"
"""


def halves() -> tuple[list[Block], list[Block]]:
    """The blocks about one host, and those about three."""
    shown = [block for block in blocks(TUTORIAL) if block.language in ("sh", "text")]
    first = next(index for index, block in enumerate(shown) if HOSTS[0] in block.text)
    return shown[:first], shown[first:]


def check(commands: str, said: str, code: int, expected: str) -> None:
    assert not missing_lines(expected, said), f"{commands}\n{said}"
    fails = any(line.startswith(("FAIL", "partywire:")) for line in expected.splitlines())
    assert (code != 0) == fails, f"{commands}\n{said}"
    assert "Traceback" not in said


def text_after(shown: list[Block], index: int) -> str:
    following = shown[index + 1 : index + 2]
    return following[0].text if following and following[0].language == "text" else ""


def copy_examples(folder: Path) -> None:
    shutil.copytree(EXAMPLES, folder / "docs" / "examples", ignore=shutil.ignore_patterns("__pycache__"))


def test_two_parties_on_this_host(tmp_path: Path) -> None:
    copy_examples(tmp_path)
    shown, _ = halves()
    with reserved_ports(2) as ports:
        words = {f"127.0.0.1:{7101 + index}": f"127.0.0.1:{port}" for index, port in enumerate(ports)}
        said = {}
        for index, block in enumerate(shown):
            if block.language != "sh" or block.lines[0] == "# install":
                continue
            commands = replaced(block.text, words)
            outcome = run(commands, tmp_path)
            check(commands, outcome.text, outcome.code, replaced(text_after(shown, index), words))
            said[block.text] = outcome.text
    tosses = next(text for commands, text in said.items() if "coins.py" in commands)
    seen = [set(re.findall(f"{name}: (.*)", tosses)) for name in NAMES[:2]]
    assert seen[0] == seen[1]
    assert len(seen[0]) == 1


def test_three_parties_on_three_hosts(tmp_path: Path) -> None:
    """Hosts are folders, and their addresses ports of this host."""
    copy_examples(tmp_path)
    shims = tmp_path / "shims"
    shims.mkdir()
    (shims / "scp").write_text(SCP)
    (shims / "scp").chmod(0o755)
    _, shown = halves()
    with reserved_ports(3) as ports:
        words = {f"{host}:7101": f"127.0.0.1:{port}" for host, port in zip(HOSTS, ports, strict=True)}
        waiting: list[tuple[str, Running]] = []
        for index, block in enumerate(shown):
            where = re.match(r"# (at every host|at (\w+)'s host|through ssh)", block.text)
            if block.language == "text":
                continue
            expected = text_after(shown, index)
            if where is None:
                is_refused = "insecure: ..." in expected  # which addresses of this host would not be
                commands = block.text if is_refused else replaced(block.text, words)
                outcome = run(commands, tmp_path, shims)
                check(commands, outcome.text, outcome.code, expected)
            elif where[1] == "at every host":
                at_every_host(tmp_path, block, expected, words)
            elif where[2]:
                host = tmp_path / f"{HOSTS[NAMES.index(where[2])]}:"
                waiting.append((block.text, Running(block.text, host)))
                if expected:
                    outcomes = [running.finish() for _, running in waiting]
                    said = "\n".join(outcome.text for outcome in outcomes)
                    check("\n".join(text for text, _ in waiting), said, max(o.code for o in outcomes), expected)
    assert len(waiting) == 3


def at_every_host(folder: Path, block: Block, expected: str, words: Mapping[str, str]) -> None:
    """The page shows it for alice."""
    running = {
        name: Running(block.text.replace(NAMES[0], name), folder / f"{host}:")
        for name, host in zip(NAMES, HOSTS, strict=True)
    }
    outcomes = {name: one.finish() for name, one in running.items()}
    check(block.text, outcomes[NAMES[0]].text, outcomes[NAMES[0]].code, replaced(expected, words))
    for name, outcome in outcomes.items():
        assert outcome.code == 3, outcome.text
        assert f"{name}.toml: {name}, party {NAMES.index(name)} of 3" in outcome.text
        assert outcome.text.count("connection refused\n") == 2
