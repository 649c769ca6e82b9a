"""Tests that are marked `both` run on rings in plain Python and in the compiled core; `mixed` adds rings whose two ends
differ. Without the compiled core its cases are skipped."""

from __future__ import annotations

import pytest

from partywire.shm import probe
from partywire.shm.fence import OVERRIDE_VARIABLE
from tests.shm import ring_pair
from tests.shm.implementations import implementation

BOTH = [("pure", "pure"), ("compiled", "compiled")]
MIXED = [*BOTH, ("pure", "compiled"), ("compiled", "pure")]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "both: runs on rings in plain Python and in the compiled core")
    config.addinivalue_line("markers", "mixed: runs on these, and on rings whose two ends differ")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marks = {mark.name for mark in metafunc.definition.iter_markers()}
    if marks & {"both", "mixed"}:
        ends = MIXED if "mixed" in marks else BOTH
        metafunc.parametrize("ends", ends, ids=["-to-".join(dict.fromkeys(pair)) for pair in ends], indirect=True)


@pytest.fixture(autouse=True)
def ends(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Choose what `ring_pair` makes its writers, readers and bells of."""
    if hasattr(request, "param"):
        writer, reader = request.param
        monkeypatch.setattr(ring_pair, "writing", implementation(writer))
        monkeypatch.setattr(ring_pair, "reading", implementation(reader))
        if "pure" in (writer, reader) and not probe().orders_plain_stores:
            monkeypatch.setenv(OVERRIDE_VARIABLE, "membarrier")
