"""The tutorial "write your own job": its example runs through the command, and the page shows the file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from examples.auction import BID_MAX, EXAMPLE_BIDS, AuctionJob, load_bids, open_winners
from hypothesis import given, settings
from hypothesis import strategies as st

from partywire.workers.jobs import JobInputError
from tests.cli.command import command
from tests.support.local_sessions import LocalSession, run_job, run_parties

if TYPE_CHECKING:
    from collections.abc import Sequence

DOCS = Path(__file__).resolve().parents[3] / "docs"
EXAMPLE = DOCS / "examples" / "auction.py"


def winners(bids: Sequence[list[int]]) -> Any:
    async def program(session: LocalSession) -> Any:
        return await open_winners(session, bids[session.party_index])

    outcomes, _ = run_parties(program)
    return outcomes


def test_the_example_runs_through_the_command() -> None:
    outcome = command("run", "auction:AuctionJob", "--local", "3", "--json", cwd=EXAMPLE.parent)
    assert outcome.code == 0, outcome.err
    assert outcome.document["checked"] is True
    assert outcome.document["result"] == {"winners": [0, 1, 0, 0], "prices": [300, 40, 7, 1000]}


def test_each_piece_on_the_page_is_in_the_example() -> None:
    pieces = re.findall(r"```python\n(.*?)```", (DOCS / "own-job.md").read_text(), re.DOTALL)
    assert len(pieces) == 5
    for piece in pieces:
        assert piece in EXAMPLE.read_text()


@settings(max_examples=20)
@given(st.lists(st.tuples(*[st.sampled_from([0, 1, BID_MAX]) | st.integers(0, BID_MAX)] * 3), min_size=1, max_size=5))
def test_the_first_of_the_highest_bidders_wins_each_lot(lots: list[tuple[int, int, int]]) -> None:
    columns = np.array(lots).T
    expected = list(zip(columns.argmax(axis=0).tolist(), columns.max(axis=0).tolist(), strict=True))
    assert winners(columns.tolist()) == [expected] * 3


def test_bidders_with_other_numbers_of_lots_all_get_the_same_sentence() -> None:
    refusals = winners([[1, 2], [3], [4]])
    assert [str(refusal) for refusal in refusals] == [str(refusals[0])] * 3
    assert "2, 1 and 1 lots" in str(refusals[0])


def test_bids_of_files_are_used_and_cannot_be_checked(tmp_path: Path) -> None:
    jobs = []
    for party, bids in enumerate(EXAMPLE_BIDS):
        path = tmp_path / f"{party}.txt"
        path.write_text("\n".join(map(str, reversed(bids))))
        jobs.append(AuctionJob(party, {"bids": str(path)}))
    for report in run_job(jobs):
        assert report.result == {"winners": [0, 0, 1, 0], "prices": [1000, 7, 40, 300]}
        assert report.checked is None
    assert AuctionJob.check({"bids": "any"}, {}) is None
    assert AuctionJob.check({}, {"winners": [0], "prices": [300]}) is False


@pytest.mark.parametrize("text", ["", "12x4", "-1", str(BID_MAX + 1)])
def test_a_file_that_holds_no_bids_is_refused_without_a_word_of_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bids.txt"
    path.write_text(text)
    with pytest.raises(JobInputError) as caught:
        load_bids(str(path))
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    if text:
        assert text not in str(caught.value).replace(str(tmp_path), "")


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(JobInputError, match="cannot be read"):
        AuctionJob(0, {"bids": str(tmp_path / "none.txt")})
