"""Agreement on session ids: the same block everywhere, whatever each party proposes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywire.engine import limits
from partywire.engine.errors import LinkProtocolError, SetupMismatch
from partywire.engine.session_resets import RESET_IDS_FIRST
from partywire.engine.sessions import SessionBlock, SessionProposal, agree

NAMES = ("alice", "bob", "charlie")


def everybody(count: int, next_ids: tuple[int, ...], stride: int = 1) -> dict[str, SessionProposal]:
    return {name: SessionProposal(count, next_id, stride) for name, next_id in zip(NAMES, next_ids, strict=False)}


@given(
    st.integers(1, limits.SESSIONS_MAX),
    st.lists(st.integers(0, RESET_IDS_FIRST), min_size=3, max_size=3),
    st.integers(1, 48),
)
def test_all_parties_compute_the_same_unused_legal_block(count: int, next_ids: list[int], stride: int) -> None:
    proposals = everybody(count, tuple(next_ids), stride)
    blocks = {agree(0, name, proposals) for name in NAMES}
    assert len(blocks) == 1
    block = blocks.pop()
    assert len(block.ids) == count
    assert all(identifier % stride == 0 for identifier in (block.ids[0], block.ids[-1]))
    assert block.ids[-1] < RESET_IDS_FIRST
    assert block.next_id <= RESET_IDS_FIRST
    SessionProposal(count, block.next_id, stride)  # what follows can be proposed
    wrapped = block.first == 0
    assert wrapped or block.first >= max(next_ids)
    if wrapped and max(next_ids):
        assert max(next_ids) + stride - 1 + count * stride > RESET_IDS_FIRST


def test_a_restarted_party_skips_the_ids_that_it_does_not_remember() -> None:
    assert agree(0, "alice", everybody(10, (500, 500, 0))) == SessionBlock(500, 10)


def test_strided_ids_begin_at_a_multiple_and_stay_on_one_worker_everywhere() -> None:
    block = agree(0, "bob", everybody(4, (7, 3, 0), 6))
    assert list(block.ids) == [12, 18, 24, 30]
    for workers in (1, 2, 3, 6):
        assert {identifier % workers for identifier in block.ids} == {0}


def test_contiguous_ids_are_dealt_over_the_workers() -> None:
    block = agree(0, "bob", everybody(6, (7, 3, 0)))
    assert list(block.ids) == [7, 8, 9, 10, 11, 12]
    assert block.next_id == 13


@pytest.mark.parametrize(
    ("next_id", "count", "first"),
    [
        (RESET_IDS_FIRST - 10, 10, RESET_IDS_FIRST - 10),  # the last id is RESET_IDS_FIRST - 1
        (RESET_IDS_FIRST - 9, 10, 0),
        (RESET_IDS_FIRST, 1, 0),
        (RESET_IDS_FIRST - 1, 1, RESET_IDS_FIRST - 1),
    ],
)
def test_ids_start_again_below_those_of_resets(next_id: int, count: int, first: int) -> None:
    block = agree(0, "alice", everybody(count, (0, next_id, 5)))
    assert block.first == first
    assert RESET_IDS_FIRST not in block.ids


def test_after_a_wrap_all_parties_go_on_together() -> None:
    block = agree(0, "alice", everybody(10, (RESET_IDS_FIRST, RESET_IDS_FIRST, RESET_IDS_FIRST)))
    following = agree(1, "alice", everybody(5, (block.next_id,) * 3))
    assert (block.first, following.first) == (0, 10)


@pytest.mark.parametrize(
    ("changed", "field", "ours", "theirs"),
    [
        (SessionProposal(11, 0), "number of sessions", 10, 11),
        (SessionProposal(10, 0, 2), "stride of session ids", 1, 2),
        (SessionProposal(10, 0, is_bulk=True), "class of sessions", "normal", "bulk"),
    ],
)
def test_a_different_wish_is_an_error_at_every_party(
    changed: SessionProposal, field: str, ours: object, theirs: object
) -> None:
    proposals = everybody(10, (0, 0, 0)) | {"bob": changed}
    for name in NAMES:
        with pytest.raises(SetupMismatch) as raised:
            agree(3, name, proposals)
        assert raised.value.field == field
        assert {raised.value.ours, raised.value.theirs} == {ours, theirs}
        assert (raised.value.peer == "bob") == (name != "bob")


@given(st.integers(1, limits.SESSIONS_MAX), st.integers(0, RESET_IDS_FIRST), st.integers(1, 1024), st.booleans())
def test_a_proposal_round_trips_as_fields(count: int, next_id: int, stride: int, is_bulk: bool) -> None:
    proposal = SessionProposal(count, next_id, stride, is_bulk)
    assert SessionProposal.from_fields_untrusted(proposal.fields() | {"job": "digits"}) == proposal


@pytest.mark.parametrize(
    "change",
    [
        {"count": 0},
        {"count": limits.SESSIONS_MAX + 1},
        {"count": "10"},
        {"count": True},
        {"count": 1.5},
        {"next_id": -1},
        {"next_id": 2**32},
        {"next_id": None},
        {"stride": 0},
        {"stride": 1025},
        {"stride": []},
        {"class": "express"},
        {"class": ["bulk"]},
        {"class": None},
    ],
    ids=str,
)
def test_a_hostile_proposal_is_a_protocol_error_of_the_peer(change: dict[str, object]) -> None:
    fields = SessionProposal(10, 0).fields() | change
    with pytest.raises(LinkProtocolError) as raised:
        SessionProposal.from_fields_untrusted(fields, "bob")
    assert raised.value.peer == "bob"
    with pytest.raises(LinkProtocolError):
        SessionProposal.from_fields_untrusted({}, "bob")


def test_a_proposal_out_of_its_bounds_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="sessions"):
        SessionProposal(0, 0)
    assert SessionBlock(0, 1).ids == range(1)
