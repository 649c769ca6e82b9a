"""Subscriptions: every event in order, or how many are missing."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partywire.engine.peers.events import EventHub, Lagged, PeerEvent, PeerUpdated
from partywire.engine.peers.peer_id import PeerId


def event(number: int) -> PeerUpdated:
    return PeerUpdated(PeerId(number.to_bytes(13, "big")))


def number_of(seen: PeerEvent) -> int:
    assert isinstance(seen, PeerUpdated)
    return int.from_bytes(seen.peer_id.raw, "big")


@given(st.integers(1, 5), st.lists(st.booleans(), max_size=60))
@settings(max_examples=60)
def test_what_a_slow_subscriber_missed_stands_where_it_was(size_max: int, steps: list[bool]) -> None:
    """True: something happens. False: the subscriber reads one."""

    async def main() -> None:
        hub = EventHub()
        subscription = hub.subscribe(size_max)
        published = expected = 0
        for is_published in (*steps, *[False] * 10):
            if is_published:
                hub.publish(event(published))
                published += 1
            elif expected < published:
                seen = await anext(subscription)
                if isinstance(seen, Lagged):
                    assert published - expected - seen.count == size_max
                    expected += seen.count
                else:
                    assert number_of(seen) == expected
                    expected += 1
        hub.close()
        rest = [seen async for seen in subscription]
        assert expected + sum(seen.count if isinstance(seen, Lagged) else 1 for seen in rest) == published
        assert hub.missed <= published

    asyncio.run(main())


def test_a_subscriber_that_waits_is_woken_and_others_are_not_held_up() -> None:
    async def main() -> None:
        hub = EventHub()
        waiting, slow = hub.subscribe(), hub.subscribe(1)
        task = asyncio.create_task(anext(waiting))
        await asyncio.sleep(0)
        hub.publish(event(1))
        assert await task == event(1)
        hub.publish(event(2))
        hub.publish(event(3))
        assert [await anext(slow), await anext(slow)] == [Lagged(2), event(3)]
        assert [await anext(waiting), await anext(waiting)] == [event(2), event(3)]
        assert hub.missed == 2

    asyncio.run(main())


def test_the_end_of_the_hub_ends_every_subscription_behind_what_waits() -> None:
    async def main() -> None:
        hub = EventHub()
        subscription, closed = hub.subscribe(), hub.subscribe()
        closed.close()
        hub.publish(event(1))
        hub.close()
        assert [seen async for seen in subscription] == [event(1)]
        assert [seen async for seen in closed] == []
        assert [seen async for seen in hub.subscribe()] == []

    asyncio.run(main())


def test_a_subscription_that_nobody_keeps_is_forgotten() -> None:
    async def main() -> None:
        hub = EventHub()
        for _ in range(3):
            hub.subscribe(1)
        hub.publish(event(1))
        hub.publish(event(2))
        assert hub.missed == 0

    asyncio.run(main())


def test_a_subscription_needs_room() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        EventHub().subscribe(0)
