"""The inbox against a simple model: whatever is put, asked for, given up and put back, each message is given once, and
those of one id in order."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from partywire.workers.pool.inbox import MESSAGE_OVERHEAD, Arrival, Entry, Inbox, Places, Unread

IDS = st.sampled_from([0, 1, "1", ("a", 1)])


class Matching(RuleBasedStateMachine):
    """The model: per id a list of messages, and a list of who waits."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.total = Unread()
        self.inbox = Inbox(self.total)
        self.messages = 0
        self.unread: dict[object, list[int]] = {}
        self.waiting: dict[object, list[Arrival]] = {}
        self.expected: dict[Arrival, int] = {}

    def teardown(self) -> None:
        self.loop.close()

    def _give(self, msg_id: object, message: int) -> bool:
        line = self.waiting.get(msg_id, [])
        if not line:
            return False
        self.expected[line.pop(0)] = message
        return True

    @rule(msg_id=IDS)
    def arrive(self, msg_id: object) -> None:
        message, self.messages = self.messages, self.messages + 1
        was_waited_for = self._give(msg_id, message)
        if not was_waited_for:
            self.unread.setdefault(msg_id, []).append(message)
        assert self.inbox.put(msg_id, Entry(message, 10)) == was_waited_for

    @rule(msg_id=IDS)
    def receive(self, msg_id: object) -> None:
        line = self.unread.get(msg_id, [])
        entry = self.inbox.take(msg_id)
        if line:
            assert entry is not None
            assert entry.value == line.pop(0)
            return
        assert entry is None
        arrival = Arrival(loop=self.loop)
        self.inbox.wait(msg_id, arrival)
        self.waiting.setdefault(msg_id, []).append(arrival)

    @rule(msg_id=IDS, which=st.integers(0, 3), leaves=st.booleans())
    def give_up(self, msg_id: object, which: int, leaves: bool) -> None:
        line = self.waiting.get(msg_id, [])
        if which < len(line):
            arrival = line.pop(which)
            arrival.cancel()
            if leaves:
                self.inbox.leave(msg_id, arrival)

    @rule(msg_id=IDS)
    def put_back_what_was_taken(self, msg_id: object) -> None:
        line = self.unread.get(msg_id, [])
        if line:
            entry = self.inbox.take(msg_id)
            assert entry is not None
            self.inbox.put_back(msg_id, entry)

    @rule()
    def fail(self) -> None:
        self.inbox.fail_waiting(lambda _: KeyError())
        for line in self.waiting.values():
            for arrival in line:
                assert isinstance(arrival.exception(), KeyError)
        self.waiting.clear()

    @invariant()
    def everybody_has_what_the_model_says(self) -> None:
        for arrival, message in self.expected.items():
            assert arrival.result() == message
        assert self.inbox.unread == {msg_id: line[0] for msg_id, line in self.unread.items() if line}
        assert self.total.size == self.inbox.size
        assert self.inbox.size == sum(len(line) for line in self.unread.values()) * (10 + MESSAGE_OVERHEAD)
        for line in self.waiting.values():
            assert not any(arrival.done() for arrival in line)


TestMatching = Matching.TestCase
TestMatching.settings = settings(max_examples=20, stateful_step_count=30, deadline=None)


@given(st.lists(st.tuples(st.sampled_from(["automatic", "explicit"]), st.integers(0, 2))))
def test_receives_that_are_repeated_until_they_succeed_count_as_the_sends_do(program: list[tuple[str, int]]) -> None:
    """Each step is one message; the receiver gives up so many times before it gets it."""
    sender, receiver = Places(), Places()
    for kind, failures in program:
        sent, sender.next = sender.next, sender.next + 1
        for is_last in [False] * failures + [True]:
            if kind == "explicit":
                receiver.begin_explicit("id")
                if not is_last:
                    receiver.give_back_explicit("id")
            else:
                place = receiver.begin()
                assert place == sent
                if not is_last:
                    receiver.give_back(place)
    assert receiver.next == sender.next
