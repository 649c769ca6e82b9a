"""docs/protocols.md says what every protocol costs: the table is counted anew, and nothing public is missing in it."""

from __future__ import annotations

import inspect
import re

from partywire.workers import mpc
from partywire.workers.mpc import ArithmeticShare, BinaryShare, Replicated3

from .costs import CALLS, PAGE, with_fresh_costs


def public_calls() -> set[str]:
    """The functions of the library, and the methods of a run that send something."""
    functions = {name for name in mpc.__all__ if inspect.iscoroutinefunction(getattr(mpc, name))}
    methods = {
        name
        for name, method in inspect.getmembers(Replicated3, inspect.iscoroutinefunction)
        if not name.startswith("_")
    }
    return functions | methods


def test_the_costs_on_the_page_are_those_that_are_counted() -> None:
    text = PAGE.read_text()
    assert "<!-- costs -->" in text
    assert with_fresh_costs(text) == text, "run `python -m tests.workers.mpc.costs`"


def test_every_protocol_has_its_cost_and_its_description_on_the_page() -> None:
    calls = public_calls()
    assert {"less_than", "shuffle", "open"} <= calls
    building_blocks = {"setup", "exchange"}  # told in prose: a fixed price, and the price of whatever is sent
    assert calls - {name.split("(")[0] for name in CALLS} == building_blocks
    described = set(re.findall(r"^\| `(?:mpc\.)?(\w+)\(", PAGE.read_text(), re.MULTILINE))
    assert not calls - described


def test_every_local_operation_is_described_on_the_page() -> None:
    text = PAGE.read_text()
    for kind in (ArithmeticShare, BinaryShare, Replicated3):
        for name, member in inspect.getmembers(kind):
            if inspect.isfunction(member) and not name.startswith("_") and name != "require_same":
                assert f"{name}(" in text, f"{kind.__name__}.{name}"
