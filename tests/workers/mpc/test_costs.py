"""docs/protocols.md says what every protocol costs: the table is counted anew, and nothing public is missing in it."""

from __future__ import annotations

import inspect
import re

import numpy as np
import pytest

from partywire.workers import mpc
from partywire.workers.mpc import ArithmeticShare, BinaryShare, Replicated3
from tests.support.local_sessions import LocalSession, run_parties

from .costs import CALLS, PAGE, RINGS, with_fresh_costs


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


@pytest.mark.parametrize("name", [name for name in CALLS if not name.startswith(("open", "announce"))])
def test_a_call_made_twice_sends_nothing_twice_and_leaves_both_holders_of_a_seed_at_one_place(name: str) -> None:
    """The shares are zeros both times: a mask that comes again shows as a message that comes again."""

    async def program(session: LocalSession) -> tuple[int, int]:
        run = await Replicated3.setup(session)
        for _ in range(2):
            await CALLS[name](run, RINGS[1])
        return run._own.bytes_drawn, run._prev.bytes_drawn

    positions, sessions = run_parties(program)
    for party in range(3):
        assert positions[party][0] == positions[(party + 1) % 3][1]
    messages = [part.tobytes() for session in sessions for part in session.sent if isinstance(part, np.ndarray)]
    assert len(messages) == len(set(messages))
