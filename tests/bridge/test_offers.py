"""How many substreams of peers a bridge takes, in all and of each peer."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final

from partywire.engine.peers.peer_id import PeerId
from partywire.engine.worker_bridge.limits import OFFERS_MAX, OFFERS_SHARE_MAX, SUBSTREAMS_SHARE_MAX
from partywire.engine.worker_bridge.offers import Offers

BOB: Final = PeerId.parse("b0" * 13)
CAROL: Final = PeerId.parse("ca" * 13)


def test_one_of_many_peers_has_its_share_of_what_waits_and_another_one_the_rest() -> None:
    offers = Offers(is_of_many=True)
    with ExitStack() as theirs:
        for _ in range(OFFERS_SHARE_MAX):
            assert not offers.is_full_for(BOB)
            theirs.enter_context(offers.waiting(BOB))
        assert offers.is_full_for(BOB)
        assert not offers.is_full_for(CAROL)
        for _ in range(OFFERS_MAX - OFFERS_SHARE_MAX):
            theirs.enter_context(offers.waiting(CAROL))
        assert offers.is_full_for(PeerId.parse("da" * 13))
    assert not offers.is_full_for(BOB)


def test_one_of_many_peers_has_its_share_of_what_was_taken() -> None:
    offers = Offers(is_of_many=True)
    with ExitStack() as theirs:
        for _ in range(SUBSTREAMS_SHARE_MAX):
            assert not offers.is_full_for(BOB)
            theirs.enter_context(offers.held(BOB))
        assert offers.is_full_for(BOB)
        assert not offers.is_full_for(CAROL)
    assert not offers.is_full_for(BOB)


def test_the_one_peer_of_a_link_has_all_of_it() -> None:
    offers = Offers(is_of_many=False)
    with ExitStack() as theirs:
        for _ in range(SUBSTREAMS_SHARE_MAX):
            theirs.enter_context(offers.held(BOB))
        for _ in range(OFFERS_MAX):
            assert not offers.is_full_for(BOB)
            theirs.enter_context(offers.waiting(BOB))
        assert offers.is_full_for(BOB)
