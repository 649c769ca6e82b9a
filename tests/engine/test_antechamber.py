"""Who has not shown who it is: bounded in all, shared out between addresses, and never at the cost of who just came."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywire.engine.antechamber import THIS_HOST, Antechamber, origin_of


@pytest.mark.parametrize(
    ("address", "origin"),
    [
        ("192.0.2.7:4711", "192.0.2.7"),
        ("127.0.0.1:1", THIS_HOST),
        ("127.255.0.9:1", THIS_HOST),
        ("[::1]:1", THIS_HOST),
        ("a unix socket", THIS_HOST),
        ("", THIS_HOST),
        ("[::ffff:192.0.2.7]:1", "192.0.2.7"),
        ("[::ffff:127.0.0.1]:1", THIS_HOST),
        ("[2001:db8::1]:1", "20010db800000000/64"),
        ("[2001:db8::ffff:1]:9", "20010db800000000/64"),
        ("[2001:db8:0:1::1]:1", "20010db800000001/64"),
        ("[fe80::1%eth0]:1", "fe80000000000000/64"),
    ],
)
def test_an_origin_is_an_address_a_network_or_this_host(address: str, origin: str) -> None:
    assert origin_of(address) == origin


def test_who_takes_more_than_its_share_takes_it_from_its_own() -> None:
    room: Antechamber[str] = Antechamber(8, 2)
    assert [room.enter(guest, "a") for guest in ("a1", "a2", "a3")] == [None, None, "a1"]
    assert room.enter("b1", "b") is None
    assert room.oldest == "a2"


def test_a_full_room_is_made_by_the_origin_that_has_most() -> None:
    room: Antechamber[str] = Antechamber(4, 3)
    for guest, origin in (("b1", "b"), ("a1", "a"), ("a2", "a"), ("c1", "c")):
        assert room.enter(guest, origin) is None
    assert room.enter("d1", "d") == "a1"
    assert room.enter("d2", "d") == "b1"  # all have one but the oldest of them all
    assert len(room) == 4


def test_this_host_may_take_every_place_but_not_that_of_who_comes_from_elsewhere() -> None:
    room: Antechamber[int] = Antechamber(8, 2)
    for guest in range(8):
        assert room.enter(guest, THIS_HOST) is None
    assert room.enter(100, "a") == 0
    assert [room.enter(guest, THIS_HOST) for guest in (8, 9)] == [1, 2]
    room.leave(100)
    room.leave(100)
    assert len(room) == 7


def test_an_empty_room_has_nobody_to_send_away() -> None:
    room: Antechamber[int] = Antechamber(1, 1)
    assert room.make_room() is None
    assert room.oldest is None


@pytest.mark.parametrize(("guests_max", "share_max"), [(0, 0), (4, 0), (4, 5)])
def test_a_room_without_places_is_refused(guests_max: int, share_max: int) -> None:
    with pytest.raises(ValueError, match="share"):
        Antechamber(guests_max, share_max)


@given(st.lists(st.tuples(st.sampled_from(["enter", "leave", "make_room"]), st.integers(0, 4)), max_size=60))
def test_whatever_happens_the_bounds_hold_and_who_came_is_in(acts: list[tuple[str, int]]) -> None:
    room: Antechamber[int] = Antechamber(6, 2)
    inside: list[int] = []
    for number, (act, which) in enumerate(acts):
        gone = None
        if act == "enter":
            gone = room.enter(number, ("", "a", "b", "c", "d")[which])
            inside.append(number)
        elif act == "make_room":
            gone = room.make_room()
            assert (gone is None) == (not inside)
        elif inside:
            room.leave(inside.pop(which % len(inside)))
        if gone is not None:
            assert gone != number
            inside.remove(gone)
        room.check_invariants()
        assert len(room) == len(inside)
        assert room.oldest == (inside[0] if inside else None)
