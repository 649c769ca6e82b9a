"""Doorbell and bell: one ring per sleep, none while awake, and descriptors that are what they say."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING

import pytest

from partywire.shm import Doorbell, RingClosed, SegmentError, create_doorbell, probe
from partywire.shm.doorbell import PAGE_SIZE
from partywire.shm.pure import WORD_TICKET
from tests.shm import ring_pair
from tests.shm.ring_pair import bell_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from partywire.shm import Bell

pytestmark = pytest.mark.both


def is_ringing(doorbell: Doorbell) -> bool:
    return bool(select.select([doorbell.fileno()], [], [], 0)[0])


@pytest.fixture
def doorbell() -> Iterator[Doorbell]:
    made = Doorbell.create()
    yield made
    made.close()


@pytest.fixture
def bell(doorbell: Doorbell) -> Iterator[Bell]:
    made = bell_of(doorbell)
    yield made
    made.close()


def test_nobody_rings_while_the_owner_is_awake(doorbell: Doorbell, bell: Bell) -> None:
    assert not bell.ring_if_asleep()
    assert not is_ringing(doorbell)


def test_one_sleep_is_rung_once(doorbell: Doorbell, bell: Bell) -> None:
    doorbell.arm()
    assert bell.ring_if_asleep()
    assert is_ringing(doorbell)
    assert not bell.ring_if_asleep()


def test_the_next_sleep_is_rung_again_without_a_disarm_between(doorbell: Doorbell, bell: Bell) -> None:
    for _ in range(3):
        doorbell.arm()
        assert bell.ring_if_asleep()
        doorbell.drain()
        assert not is_ringing(doorbell)
    assert doorbell.sleeps == 3


def test_a_disarmed_doorbell_is_not_rung(doorbell: Doorbell, bell: Bell) -> None:
    doorbell.arm()
    doorbell.disarm()
    assert not bell.ring_if_asleep()


def test_every_waker_rings_for_the_same_sleep(doorbell: Doorbell, bell: Bell) -> None:
    second = bell_of(doorbell)
    doorbell.arm()
    assert bell.ring_if_asleep()
    assert second.ring_if_asleep()
    second.close()


def test_an_unconditional_ring_is_sticky(doorbell: Doorbell, bell: Bell) -> None:
    bell.ring()
    bell.ring()
    assert is_ringing(doorbell)
    doorbell.drain()
    assert not is_ringing(doorbell)
    doorbell.drain()


def test_a_counter_at_its_limit_rings_all_the_same(doorbell: Doorbell, bell: Bell) -> None:
    os.eventfd_write(doorbell.fileno(), 0xFFFF_FFFF_FFFF_FFFE)
    bell.ring()
    doorbell.arm()
    assert bell.ring_if_asleep()
    assert is_ringing(doorbell)


def test_any_ticket_that_somebody_else_stores_costs_at_most_a_bell(doorbell: Doorbell, bell: Bell) -> None:
    for value in (1, 1 << 63, 0xFFFF_FFFF_FFFF_FFFF, 7):
        doorbell._words[WORD_TICKET] = value
        assert bell.ring_if_asleep()
        assert not bell.ring_if_asleep()


def test_a_new_owner_of_an_old_page_uses_fresh_tickets() -> None:
    fence = probe()
    eventfd, page_fd = create_doorbell()
    bell = ring_pair.writing.bell.from_fds(os.dup(eventfd), os.dup(page_fd))
    first = Doorbell.from_fds(os.dup(eventfd), os.dup(page_fd), fence)
    first.arm()
    assert bell.ring_if_asleep()
    first.close()
    second = Doorbell.from_fds(eventfd, page_fd, fence)
    assert not bell.ring_if_asleep()
    second.arm()
    assert bell.ring_if_asleep()
    bell.close()
    second.close()


def test_a_bell_cannot_write_the_page(bell: Bell) -> None:
    with pytest.raises(TypeError):
        bell._map[8 * WORD_TICKET] = 1


def test_the_page_cannot_be_shrunk_under_its_users(doorbell: Doorbell) -> None:
    page_fd = doorbell.fds[1]
    with pytest.raises(PermissionError):
        os.ftruncate(page_fd, 0)
    assert os.fstat(page_fd).st_size == PAGE_SIZE


def test_descriptors_that_are_no_doorbell_are_refused_and_closed() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(SegmentError, match="wrong size: 0, allowed is 4096"):
        ring_pair.writing.bell.from_fds(os.eventfd(0), os.memfd_create("partywire-test"))
    with pytest.raises(SegmentError, match="wrong size"):
        Doorbell.from_fds(os.eventfd(0), os.eventfd(0), probe())
    with pytest.raises(SegmentError, match="cannot be mapped"):
        Doorbell.from_fds(os.eventfd(0), -1, probe())
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_closed_doorbell_says_so_and_closing_again_does_nothing() -> None:
    doorbell = Doorbell.create()
    bell = bell_of(doorbell)
    for end in (doorbell, bell):
        end.close()
        end.close()
    for call in (doorbell.fileno, bell.ring_if_asleep, bell.ring):
        with pytest.raises(RingClosed):
            call()
    with pytest.raises(RingClosed):
        doorbell.fds  # noqa: B018
