"""The programs of docs/control-plane.md, run by real parties, and what the page shows of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from partywire.workers.config import parse_config
from tests.docs.commands import run
from tests.docs.markdown import DOCS, EXAMPLES, blocks
from tests.support.reserved_ports import reserved_ports

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("alice", "bob", "charlie")


def test_what_the_page_shows_is_taken_from_the_examples_and_its_table_is_one() -> None:
    files = [file.read_text() for file in EXAMPLES.glob("*.py")]
    shown = [block.text for block in blocks(DOCS / "control-plane.md") if block.language == "python"]
    assert len(shown) == 2
    for text in shown:
        assert any(text in file for file in files), f"in no example:\n{text}"
    (table,) = [block.text for block in blocks(DOCS / "control-plane.md") if block.language == "toml"]
    parties = 'name = "a"\n[parties]\na = "127.0.0.1:1"\nb = "127.0.0.1:2"\n'
    assert parse_config(parties + table).node is not None


@pytest.mark.parametrize(
    ("example", "count", "expected"),
    [
        ("control_plane.py", 3, ["{a}: {b} read hello; {c} read hello; {b} saw ", "; total 2280"]),
        ("substream_files.py", 2, ["{a}: ['line 0 of {b}', 'line 1 of {b}', 'line 2 of {b}']", "{a}: total 380"]),
    ],
)
def test_real_parties_run_the_examples(tmp_path: Path, example: str, count: int, expected: list[str]) -> None:
    with reserved_ports(count) as ports:
        names = NAMES[:count]
        parties = " ".join(f"{name}=127.0.0.1:{port}" for name, port in zip(names, ports, strict=True))
        start = "; ".join(f"python {EXAMPLES / example} {name}.toml & pids+=($!)" for name in names)
        said = run(
            f"set -e; partywire init --node --out . {parties}; "
            f"sed -i 's/links_per_io_process = 1/links_per_io_process = 8/' *.toml; pids=(); {start}; "
            'for pid in "${pids[@]}"; do wait $pid; done',
            tmp_path,
        )
    assert said.code == 0, said.text
    for name in names:
        others = dict(zip("bc", (other for other in names if other != name), strict=False))
        for line in expected:
            assert line.format(a=name, **others) in said.text, said.text
