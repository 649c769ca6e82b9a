"""The pages of docs/reference name every public object, and nothing that is not there or has no docstring."""

from __future__ import annotations

import importlib
import re

import partywire
from partywire.workers import jobs, mpc
from tests.docs.markdown import DOCS

PAGES = sorted((DOCS / "reference").glob("*.md"))
KINDS = {"class", "exception", "function", "data"}


def entries() -> dict[str, str]:
    """Full name -> kind, of all docstrings that the pages ask for."""
    lists = [text for page in PAGES for text in re.findall(r"<!-- docstrings\n(.*?)-->", page.read_text(), re.DOTALL)]
    lines = [line.split() for text in lists for line in text.strip().splitlines()]
    found = {name: kind for kind, name, *_ in lines}
    assert len(found) == len(lines), "a name occurs twice"
    return found


def test_every_public_name_has_an_entry() -> None:
    public = {f"{module.__name__}.{name}" for module in (partywire, mpc, jobs) for name in module.__all__}
    assert public - entries().keys() == {"partywire.workers.jobs.JOBS"}  # a table, shown in words


def test_every_entry_is_of_its_kind_and_has_a_docstring() -> None:
    for name, kind in entries().items():
        module, _, attribute = name.rpartition(".")
        found = getattr(importlib.import_module(module), attribute)
        assert kind in KINDS, name
        assert isinstance(found, type) == (kind in ("class", "exception")), name
        assert (kind == "exception") == (isinstance(found, type) and issubclass(found, BaseException)), name
        assert kind == "data" or found.__doc__, name
