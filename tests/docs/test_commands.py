"""The commands that the pages name exist, with the options that they are shown with. The tutorial's are run as well."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from typing import TYPE_CHECKING

import click

from partywire.workers.cli import cli
from partywire.workers.cli_perf import MODULE, PerfCommand
from partywire.workers.exit_code import UsageMistake
from tests.docs.markdown import DOCS, EXAMPLES, ROOT, blocks, code_spans, page_id, pages

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

PLACEHOLDERS = ("JOB", "module:Class")


def commands(page: Path, program: str) -> set[str]:
    """What a page shows of a program, in blocks and within text; comments and explanations behind it are cut off."""
    shown = [line.strip() for block in blocks(page) if block.language in ("sh", "") for line in block.lines]
    lines = [*shown, *([] if page == DOCS / "wire.md" else code_spans(page))]  # there they are labels of digests
    return {re.split(r" {2,}|\s#", line)[0] for line in lines if line.startswith(f"{program} ")}


def fault_of(command: str) -> str | None:
    """What is wrong with a command line of `partywire`; None if nothing is."""
    words = shlex.split(command)[1:]
    found: click.Command = cli
    context = click.Context(found)
    while isinstance(found, click.Group) and words and not words[0].startswith("-"):
        name = words.pop(0)
        if name in PLACEHOLDERS:
            name = "sum"
        try:
            below = found.get_command(context, name)
        except UsageMistake as error:
            return str(error)
        if below is None:
            return f"there is no command {name}"
        found = import_module(MODULE).perf_command if isinstance(below, PerfCommand) else below
        context = click.Context(found, parent=context)
    if not found.context_settings.get("allow_interspersed_args", True):
        words = words[: next((at for at, word in enumerate(words) if not word.startswith("-")), None)]
    known = {option for parameter in found.get_params(context) for option in parameter.opts}
    unknown = {word.partition("=")[0] for word in words if word.startswith("-") and len(word) > 1} - known
    return f"has no {', '.join(sorted(unknown))}" if unknown else None


def test_every_command_of_a_page_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    shown = [(page_id(page), command) for page in pages() for command in commands(page, "partywire")]
    assert [(*line, fault) for line in shown if (fault := fault_of(line[1]))] == []
    assert len(shown) > 50


def test_a_command_that_does_not_exist_is_found() -> None:
    assert fault_of("partywire run sum --local 2") is None
    assert "no command" in (fault_of("partywire walk") or "")
    assert "--global" in (fault_of("partywire run sum --global 2") or "")
    assert "nothing" in (fault_of("partywire run nothing") or "")
    assert fault_of("partywire mpyc program.py --options-of the program") is None
    assert "--options-of" in (fault_of("partywire mpyc --options-of the program") or "")


def test_every_target_of_make_of_a_page_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = {command.split()[1] for page in pages() for command in commands(page, "make")}
    assert shown <= targets
    assert "docs" in shown
