"""The connection table: every pair of state and event."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywire.engine.connection import (
    TRANSITIONS,
    ConnectionEvent,
    ConnectionMachine,
    ConnectionState,
)
from partywire.engine.errors import LocalProtocolError

S = ConnectionState
E = ConnectionEvent

# Written down a second time, by state, so that a slip in the table is seen.
EXPECTED = {
    S.FRESH: {
        E.LISTEN_REQUESTED: S.LISTENING_RESOLVING,
        E.BIND_REQUESTED: S.BINDING,
        E.CONNECT_REQUESTED: S.CONNECTING_RESOLVING,
        E.ACCEPTED: S.CONNECTED,
    },
    S.LISTENING_RESOLVING: {
        E.LISTEN_SUCCEEDED: S.LISTENING,
        E.LISTEN_FAILED: S.LISTENING_FAILED,
        E.RESOLVE_FAILED: S.RESOLVING_FAILED,
    },
    S.LISTENING: {},
    S.LISTENING_FAILED: {},
    S.RESOLVING_FAILED: {E.RECONNECT_REQUESTED: S.CONNECTING_RESOLVING},
    S.BINDING: {E.BIND_SUCCEEDED: S.CONNECTING_RESOLVING, E.BIND_FAILED: S.BINDING_FAILED},
    S.BINDING_FAILED: {E.RECONNECT_REQUESTED: S.BINDING},
    S.CONNECTING_RESOLVING: {
        E.ADDRESS_CHOSEN: S.CONNECTING,
        E.ADDRESSES_EXHAUSTED: S.CONNECTING_FAILED,
        E.RESOLVE_FAILED: S.RESOLVING_FAILED,
    },
    S.CONNECTING: {E.CONNECT_SUCCEEDED: S.CONNECTED, E.ADDRESS_FAILED: S.CONNECTING_RESOLVING},
    S.CONNECTING_FAILED: {E.RECONNECT_REQUESTED: S.CONNECTING_RESOLVING},
    S.CONNECTED: {E.CONNECTION_LOST: S.DISCONNECTED},
    S.DISCONNECTED: {E.RECONNECT_REQUESTED: S.RECONNECTING},
    S.RECONNECTING: {E.HANDLE_CLOSED: S.FRESH},
}


def paths_from_fresh() -> dict[ConnectionState, list[ConnectionEvent]]:
    """A shortest list of events to every state, so that each is reached as in life."""
    paths: dict[ConnectionState, list[ConnectionEvent]] = {S.FRESH: []}
    waiting = [S.FRESH]
    while waiting:
        state = waiting.pop(0)
        for (source, event), following in TRANSITIONS.items():
            if source is state and following not in paths:
                paths[following] = [*paths[state], event]
                waiting.append(following)
    return paths


PATHS = paths_from_fresh()


def machine_in(state: ConnectionState) -> ConnectionMachine:
    machine = ConnectionMachine("socket to bob")
    for event in PATHS[state]:
        machine.apply(event)
    assert machine.state is state
    return machine


@pytest.mark.parametrize(("state", "event"), list(itertools.product(S, E)), ids=lambda value: value.name)
def test_every_event_in_every_state_moves_as_expected_or_is_refused_by_name(
    state: ConnectionState, event: ConnectionEvent
) -> None:
    machine = machine_in(state)
    following = EXPECTED[state].get(event)
    if following is not None:
        assert machine.apply(event) is following
        assert machine.state is following
        return
    with pytest.raises(LocalProtocolError) as raised:
        machine.apply(event)
    assert (raised.value.machine, raised.value.state, raised.value.event) == ("socket to bob", state.name, event.name)
    assert machine.state is state


def test_every_state_can_be_reached_and_every_event_can_happen() -> None:
    assert set(PATHS) == set(S)
    assert {event for _, event in TRANSITIONS} == set(E)


def test_a_failed_state_is_left_by_a_reconnect_only() -> None:
    for state in (S.LISTENING_FAILED, S.RESOLVING_FAILED, S.BINDING_FAILED, S.CONNECTING_FAILED, S.DISCONNECTED):
        assert set(EXPECTED[state]) <= {E.RECONNECT_REQUESTED}


def test_only_a_listener_stays_for_good() -> None:
    assert {state for state in S if not EXPECTED[state]} == {S.LISTENING, S.LISTENING_FAILED}


@given(st.lists(st.sampled_from(E), max_size=40))
def test_any_sequence_of_events_moves_along_the_table(events: list[ConnectionEvent]) -> None:
    machine = ConnectionMachine()
    for event in events:
        before = machine.state
        if event in EXPECTED[before]:
            assert machine.apply(event) is EXPECTED[before][event]
        else:
            with pytest.raises(LocalProtocolError):
                machine.apply(event)
            assert machine.state is before


def test_a_dial_that_fails_twice_tries_the_next_address_and_then_looks_the_name_up_again() -> None:
    machine = ConnectionMachine()
    walk = [
        (E.CONNECT_REQUESTED, S.CONNECTING_RESOLVING),
        (E.ADDRESS_CHOSEN, S.CONNECTING),
        (E.ADDRESS_FAILED, S.CONNECTING_RESOLVING),
        (E.ADDRESS_CHOSEN, S.CONNECTING),
        (E.ADDRESS_FAILED, S.CONNECTING_RESOLVING),
        (E.ADDRESSES_EXHAUSTED, S.CONNECTING_FAILED),
        (E.RECONNECT_REQUESTED, S.CONNECTING_RESOLVING),
        (E.ADDRESS_CHOSEN, S.CONNECTING),
        (E.CONNECT_SUCCEEDED, S.CONNECTED),
        (E.CONNECTION_LOST, S.DISCONNECTED),
        (E.RECONNECT_REQUESTED, S.RECONNECTING),
        (E.HANDLE_CLOSED, S.FRESH),
    ]
    assert [machine.apply(event) for event, _ in walk] == [state for _, state in walk]
