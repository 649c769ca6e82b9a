"""Both ends of every limit of messages and sessions, with budgets so small that they are cheap to reach.

Messages of their largest size are in test_sizes_end_to_end.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from partywire.engine import limits
from partywire.engine.frames import LINK_SESSION, Descriptor
from partywire.engine.sessions import SessionProposal
from partywire.workers import mailbox as mailbox_module
from partywire.workers.array_meta import array_meta
from partywire.workers.config import PartyConfig
from partywire.workers.errors import ConfigError, InboxOverflow, MessageTooLarge, PeerAborted, SessionClosed
from partywire.workers.mailbox import MESSAGE_OVERHEAD
from partywire.workers.values import VecRing16
from tests.workers.harness import Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from partywire.workers.session import Session

MIB = 1 << 20


async def nothing() -> None:
    pass


async def send_all(session: Session, *values: Any) -> None:
    for value in values:
        await session.send(1, value)


def array_of(size: int) -> np.ndarray[Any, Any]:
    """An array whose message, description included, has `size` bytes."""
    return np.zeros(size - len(array_meta(np.zeros(size, np.uint8))), np.uint8)


# The size of a message.


@pytest.mark.parametrize("limit", [1000, 200_000, MIB], ids=["small", "whole", "cut"])
@pytest.mark.parametrize("make", [bytes, bytearray, array_of], ids=["bytes", "bytearray", "array"])
def test_a_message_of_the_limit_arrives_and_one_byte_more_is_refused(limit: int, make: Callable[[int], Any]) -> None:
    with Table(2, message_size_max=limit) as table:
        [_, (ours, theirs)] = table.sessions(0, 1)
        error = table.run(ours.send(1, make(limit + 1)))[0]
        assert isinstance(error, MessageTooLarge)
        assert (error.session, error.peer, error.size, error.limit) == (1, "bob", limit + 1, limit)
        assert error.setting == "limits.message_mib"
        assert f"session 1: a message of {limit + 1} bytes to bob" in str(error)
        assert f"the limit of {limit}, the smaller limits.message_mib of the two parties" in str(error)
        received = table.ok(ours.send(1, make(limit)), theirs.recv(0))[1]
        assert np.frombuffer(received, np.uint8).nbytes in (limit, len(make(limit)))


def test_the_smaller_limit_of_two_parties_holds_at_both() -> None:
    with Table(2, message_size_max=1000) as table:  # what the handshake made of it
        table.workers[0].message_size_max = 5000
        [(ours, theirs)] = table.sessions(0)
        assert isinstance(table.run(ours.send(1, bytes(20_000)))[0], MessageTooLarge)
        assert isinstance(table.run(nothing(), theirs.send(0, bytes(20_000)))[1], MessageTooLarge)


def test_a_vector_of_more_bits_than_the_wire_can_count_is_refused() -> None:
    """A real one has 4 GiB; `make large` sends that."""
    with Table(2) as table:
        [(ours, theirs)] = table.sessions(0)
        bits = (Descriptor.VEC_RING_BIT.value, 2**32, b"", bytes(2**29 // 1024))
        error = table.run(ours._send_encoded(ours._mailboxes[1], bits, None))[0]
        assert isinstance(error, MessageTooLarge)
        assert error.limit == error.size - 1
        assert table.ok(ours.send(1, b"alive"), theirs.recv(0))[1] == b"alive"


def test_at_the_largest_limit_there_is_nothing_to_raise() -> None:
    error = MessageTooLarge(0, "bob", 2**32, limits.MESSAGE_SIZE_MAX, "limits.message_mib")
    assert "limits.message_mib" not in str(error)
    assert str(error).endswith("send pieces")


# The inbox.


@pytest.mark.parametrize("size", [1000, 200_000, MIB], ids=["small", "whole", "cut"])
def test_an_inbox_may_be_exactly_full_and_not_a_byte_fuller(size: int) -> None:
    """Two messages of another session, then one that just fits, or does not."""
    waiting = 2 * (500 + MESSAGE_OVERHEAD)
    for missing in (0, 1):
        with Table(2, inbox_size_max=waiting + size + MESSAGE_OVERHEAD - missing) as table:
            [(first, first_theirs), (ours, theirs)] = table.sessions(0, 1)
            table.ok(send_all(first, bytes(500), bytes(500)))
            table.run(ours.send(1, bytes(size)))
            worker = table.workers[1]
            if not missing:
                assert worker.inbox_size == worker.inbox_size_max
                assert len(table.ok(nothing(), theirs.recv(0))[1]) == size
            else:
                error = table.run(nothing(), theirs.recv(0))[1]
                assert isinstance(error, InboxOverflow)
                assert (error.session, error.peer, error.size) == (1, "alice", size)
                assert (error.limit, error.setting) == (worker.inbox_size_max, "limits.inbox_mib")
                for words in ("session 1", f"{size} bytes from alice", str(error.limit), "raise limits.inbox_mib"):
                    assert words in str(error)
                assert isinstance(ours.failure, PeerAborted)
                assert ours.failure.reason == str(error)
            assert worker.inbox_size == waiting
            assert table.ok(nothing(), first_theirs.recv(0))[1] == bytes(500)


@pytest.mark.parametrize("size", [300_000, MIB])
def test_an_array_that_a_receiver_waits_for_may_be_larger_than_the_inbox(size: int) -> None:
    with Table(2, inbox_size_max=1000) as table:
        [(ours, theirs)] = table.sessions(0)
        sent = np.arange(size, dtype=np.uint32)
        out = np.zeros_like(sent)
        slot = table.schedulers[1].spawn(theirs.recv(0, out=out))
        table.settle()
        table.ok(ours.send(1, sent))
        assert slot.result is out
        assert np.array_equal(out, sent)
        assert isinstance(table.run(ours.send(1, sent), theirs.recv(0))[1], InboxOverflow)


def test_a_message_without_memory_for_it_fails_its_session_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(size: int, is_writable: bool) -> None:
        raise MemoryError

    with Table(2) as table:
        [(ours, theirs), (other, other_theirs)] = table.sessions(0, 1)
        with monkeypatch.context() as patch:
            patch.setattr(mailbox_module, "Filler", no_memory)
            error = table.run(ours.send(1, bytes(MIB)), theirs.recv(0))[1]
        assert isinstance(error, SessionClosed)
        assert error.reason == f"there is no memory for a message of {MIB} bytes from alice"
        assert isinstance(ours.failure, PeerAborted)
        assert ours.failure.reason == error.reason
        assert table.workers[1].inbox_size == 0
        assert table.ok(other.send(1, b"alive"), other_theirs.recv(0))[1] == b"alive"


@pytest.mark.parametrize("leaves", ["because another one came", "because the receiver left"])
def test_an_array_that_leaves_the_receivers_memory_and_finds_none(
    monkeypatch: pytest.MonkeyPatch, leaves: str
) -> None:
    def no_memory(size: int, is_writable: bool) -> None:
        raise MemoryError

    sent = np.zeros(16 * MIB, np.uint8)
    with Table(2, ring_size=1 << 18) as table:
        [(ours, theirs)] = table.sessions(0)
        out = np.zeros(16 * MIB, np.uint8 if "left" in leaves else np.int8)
        receiver = table.schedulers[1].spawn(theirs.recv(0, out=out, timeout=1.0))
        table.settle()
        monkeypatch.setattr(mailbox_module, "Filler", no_memory)
        sender = table.schedulers[0].spawn(ours.send(1, sent))
        for _ in range(3):
            table.turn()
        if "left" in leaves:
            table.clock.now += 2.0
        table.settle()
        assert receiver.error is not None
        assert theirs.failure is not None
        assert "no memory" in str(theirs.failure) or "left" in leaves
        assert isinstance(sender.error, PeerAborted)
        # It does not go on with a session that is over.
        assert table.workers[0].link_life.totals().bytes_sent < len(sent)
        assert table.workers[1].inbox_size == 0


# Settings.


@pytest.mark.parametrize(
    ("setting", "least", "most"),
    [
        ("message_mib", 1, 4096),
        ("inbox_mib", 1, 1 << 20),
        ("ring_mib", 1, 1024),
        ("workers", 1, 64),
        ("links_per_io_process", 1, 8),
    ],
)
def test_a_setting_is_refused_outside_its_bounds_and_named(setting: str, least: int, most: int) -> None:
    parties = {"alice": ("127.0.0.1", 7001), "bob": ("127.0.0.1", 7002)}
    for value in (least, most):
        values: dict[str, Any] = {setting: value}
        assert getattr(PartyConfig(name="alice", parties=parties, **values), setting) == value
    for value in (least - 1, most + 1):
        values = {setting: value}
        with pytest.raises(ConfigError, match=rf"{setting}: {value} is not between {least} and {most}"):
            PartyConfig(name="alice", parties=parties, **values)


def test_the_largest_setting_is_the_largest_message_of_the_wire() -> None:
    config = PartyConfig(name="alice", parties={"alice": ("127.0.0.1", 7001), "bob": ("127.0.0.1", 7002)})
    assert config.message_mib == 4096
    assert config.link_options.message_size_max == 2**32 - 1 == limits.MESSAGE_SIZE_MAX


# Numbers of sessions, and their ids.


@pytest.mark.parametrize(("count", "is_allowed"), [(0, False), (1, True), (65_536, True), (65_537, False)])
def test_one_call_makes_between_one_session_and_the_most(count: int, is_allowed: bool) -> None:
    assert limits.SESSIONS_MAX == 65_536  # as docs/memory.md says
    if is_allowed:
        assert SessionProposal(count, 0).count == count
    else:
        with pytest.raises(ValueError, match=f"{count} sessions, between 1 and 65536 are allowed"):
            SessionProposal(count, 0)


@pytest.mark.parametrize("count", [2.5, True, "5", None])
def test_what_is_no_number_of_sessions_is_refused_before_a_peer_hears_of_it(count: Any) -> None:
    with pytest.raises(TypeError, match="number of sessions is a whole number"):
        SessionProposal(count, 0)


def test_a_number_of_numpy_is_one() -> None:
    assert type(SessionProposal(np.int64(5), 0).count) is int  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("session_id", "is_allowed"), [(-1, False), (0, True), (LINK_SESSION - 1, True), (LINK_SESSION, False)]
)
def test_a_session_id_is_any_but_that_of_the_link(session_id: int, is_allowed: bool) -> None:
    with Table(2) as table:
        if not is_allowed:
            with pytest.raises(ValueError, match="not a session id"):
                table.workers[0].make_session(session_id)
            return
        [(ours, theirs)] = table.sessions(session_id)
        assert table.ok(ours.send(1, VecRing16([7])), theirs.recv(0))[1].values[0] == 7
