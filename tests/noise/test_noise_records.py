"""The record layer: every stream arrives whole however it is cut, and nothing that was changed arrives at all."""

from __future__ import annotations

import random

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import example, given, settings
from hypothesis import strategies as st

from partywire.engine.errors import LocalProtocolError
from partywire.engine.noise import CIPHERS, NonceExhausted, RecordOpener, RecordRefused, RecordSealer, records
from partywire.engine.noise.cipher import NONCE_MAX, CipherState, InvalidTag
from partywire.engine.noise.records import PLAINTEXT_SIZE_MAX, RECORD_OVERHEAD, SEAL_SIZE_MAX, STRAIGHT_SIZE_MIN
from tests.noise.noise_pair import collect, open_all, record_pair, records_of, seal_all

NOISE = random.Random(1).randbytes(2 * SEAL_SIZE_MAX)


def collect_to_the_end(opener: RecordOpener, stream: bytes, collected: bytearray) -> None:
    collect(opener, [stream], collected)
    opener.receive_end_of_file()


def refuse(opener: RecordOpener, stream: bytes) -> tuple[bytes, RecordRefused]:
    """What is delivered of a stream before it is refused, at the latest when it ends. The opener is dead then."""
    collected = bytearray()
    with pytest.raises(RecordRefused) as caught:
        collect_to_the_end(opener, stream, collected)
    for _ in range(2):
        with pytest.raises(LocalProtocolError, match="failed"):
            opener.feed(stream)
        with pytest.raises(LocalProtocolError, match="failed"):
            opener.open_into(memoryview(bytearray(9)))
        with pytest.raises(LocalProtocolError, match="failed"):
            opener.receive_end_of_file()
    return bytes(collected), caught.value


# Any split of any messages.

SIZES = st.one_of(
    st.integers(0, 300),
    st.sampled_from(
        [STRAIGHT_SIZE_MIN - 1, STRAIGHT_SIZE_MIN, PLAINTEXT_SIZE_MAX, PLAINTEXT_SIZE_MAX + 1, 2 * PLAINTEXT_SIZE_MAX]
    ),
    st.integers(0, SEAL_SIZE_MAX + 5000),
)


@settings(max_examples=60)
@given(
    sizes=st.lists(SIZES, max_size=12),
    seal_size=st.sampled_from([1_000, 70_000, SEAL_SIZE_MAX, 2 * SEAL_SIZE_MAX]),
    slice_sizes=st.lists(st.integers(1, 90_000), min_size=1, max_size=5),
    room=st.sampled_from([700, 65_518, 65_519, 65_520, 300_000]),
    cipher=st.sampled_from(CIPHERS),
)
@example([1] + [STRAIGHT_SIZE_MIN, 1] * 8, SEAL_SIZE_MAX, [1], 300_000, "AESGCM")
@example([STRAIGHT_SIZE_MIN - 1] * 9, SEAL_SIZE_MAX, [2, 65_535], 65_519, "AESGCM")
@example([SEAL_SIZE_MAX], SEAL_SIZE_MAX, [SEAL_SIZE_MAX + 1000], 1_000_000, "ChaChaPoly")
def test_any_split_of_any_messages_arrives_whole_and_in_order(
    sizes: list[int], seal_size: int, slice_sizes: list[int], room: int, cipher: str
) -> None:
    views = [memoryview(NOISE)[index : index + size] for index, size in enumerate(sizes)]
    sent = b"".join(views)
    sealer, opener = record_pair(cipher)
    stream = bytearray()
    while any(views):
        sealed, count = sealer.seal(views, seal_size)
        assert 1 <= count <= min(seal_size, SEAL_SIZE_MAX)
        assert count == min(seal_size, SEAL_SIZE_MAX) or count == sum(map(len, views))
        stream += sealed
        while count:
            part = min(count, len(views[0]))
            views[0] = views[0][part:]
            count -= part
            if not views[0]:
                del views[0]
    stream += sealer.seal_end()
    slices: list[bytes] = []
    position = 0
    while position < len(stream):
        # The slices grow, so that a long stream is not cut into millions.
        size = slice_sizes[len(slices) % len(slice_sizes)] + len(slices) ** 2
        slices.append(bytes(stream[position : position + size]))
        position += size
    assert open_all(opener, slices, room) == sent
    assert opener.is_ended
    assert opener.open_into(memoryview(bytearray(1))) == 0
    opener.receive_end_of_file()


def test_a_stream_arrives_byte_by_byte() -> None:
    sealer, opener = record_pair()
    stream = seal_all(sealer, [b"a", b"bc"]) + seal_all(sealer, [bytes(300)]) + sealer.seal_end()
    assert open_all(opener, [stream[index : index + 1] for index in range(len(stream))]) == b"abc" + bytes(300)
    assert opener.is_ended


# How much goes into a record.


def test_small_views_share_one_record() -> None:
    sealer, _ = record_pair()
    sealed, count = sealer.seal([b"x" * 64] * 1000)
    assert count == 64_000
    assert [len(record) for record in records_of(bytes(sealed))] == [64_000 + RECORD_OVERHEAD]


@pytest.mark.parametrize(
    ("sizes", "records_expected"),
    [
        ([PLAINTEXT_SIZE_MAX], [PLAINTEXT_SIZE_MAX]),
        ([PLAINTEXT_SIZE_MAX + 1], [PLAINTEXT_SIZE_MAX, 1]),
        ([PLAINTEXT_SIZE_MAX + 1, 5], [PLAINTEXT_SIZE_MAX, 6]),
        ([1] * PLAINTEXT_SIZE_MAX, [PLAINTEXT_SIZE_MAX]),
        ([1] * (PLAINTEXT_SIZE_MAX + 1), [PLAINTEXT_SIZE_MAX, 1]),
        ([5, STRAIGHT_SIZE_MIN - 1], [STRAIGHT_SIZE_MIN + 4]),
        ([5, STRAIGHT_SIZE_MIN], [5, STRAIGHT_SIZE_MIN]),
        ([STRAIGHT_SIZE_MIN, 5, 0, 6], [STRAIGHT_SIZE_MIN, 11]),
    ],
)
def test_records_are_filled_up_to_their_limit(sizes: list[int], records_expected: list[int]) -> None:
    sealer, _ = record_pair()
    sealed, count = sealer.seal([memoryview(NOISE)[:size] for size in sizes])
    assert count == sum(sizes)
    assert [len(record) - RECORD_OVERHEAD for record in records_of(bytes(sealed))] == records_expected


def test_one_call_seals_no_more_than_its_bound() -> None:
    sealer, _ = record_pair()
    assert sealer.seal([NOISE])[1] == SEAL_SIZE_MAX
    assert sealer.seal([NOISE[:SEAL_SIZE_MAX]])[1] == SEAL_SIZE_MAX
    assert sealer.seal([NOISE[: SEAL_SIZE_MAX + 1]])[1] == SEAL_SIZE_MAX
    for size_max in (1, 2, 3, 4, 5):
        sealed, count = sealer.seal([b"abc", b"def"], size_max)
        assert (count, len(sealed)) == (size_max, size_max + RECORD_OVERHEAD)


def test_the_views_may_change_as_soon_as_they_are_sealed() -> None:
    sealer, opener = record_pair()
    views = [bytearray(b"abc"), bytearray(bytes(STRAIGHT_SIZE_MIN))]
    sealed, _ = sealer.seal(views)
    for view in views:
        view[:] = b"\xff" * len(view)
    assert open_all(opener, [bytes(sealed)]) == b"abc" + bytes(STRAIGHT_SIZE_MIN)


@pytest.mark.parametrize("views", [[], [b""], [b"", b""]])
def test_nothing_cannot_be_sealed_and_that_harms_nothing(views: list[bytes]) -> None:
    sealer, opener = record_pair()
    with pytest.raises(ValueError, match="nothing"):
        sealer.seal(views)
    assert open_all(opener, [bytes(sealer.seal([b"abc"])[0])]) == b"abc"


def test_a_record_without_room_is_delivered_in_parts_and_what_follows_behind_them() -> None:
    sealer, opener = record_pair()
    opener.feed(bytes(sealer.seal([b"abcde"])[0]) + bytes(sealer.seal([b"fg"])[0]) + sealer.seal_end())
    view = memoryview(bytearray(4))
    parts = []
    while not opener.is_ended:
        count = opener.open_into(view)
        assert count is not None
        parts.append(bytes(view[:count]))
    assert parts == [b"abcd", b"efg"]
    assert opener.open_into(view) == 0


def test_a_record_without_room_is_refused_like_any_other() -> None:
    sealer, opener = record_pair()
    sealed = bytearray(sealer.seal([b"abcde"])[0])
    sealed[5] ^= 1
    opener.feed(sealed)
    view = memoryview(bytearray(4))
    with pytest.raises(RecordRefused):
        opener.open_into(view)
    assert bytes(view) == bytes(4)


def test_the_end_that_came_with_the_last_bytes_is_told_behind_them() -> None:
    sealer, opener = record_pair()
    opener.feed(bytes(sealer.seal([b"abc"])[0]) + sealer.seal_end())
    view = memoryview(bytearray(9))
    assert (opener.open_into(view), opener.has_more) == (3, True)
    assert (opener.open_into(view), opener.has_more) == (0, False)


# What is refused.

MESSAGES = [b"first", b"second message", b"x" * 300, b"fourth"]


def three_records() -> tuple[list[bytes], RecordOpener]:
    sealer, opener = record_pair()
    return [bytes(sealer.seal([message])[0]) for message in MESSAGES], opener


@settings(max_examples=80)
@given(bit=st.integers(0, 8 * (sum(map(len, MESSAGES)) + 4 * RECORD_OVERHEAD) - 1))
def test_behind_a_flipped_bit_nothing_is_delivered(bit: int) -> None:
    sealed, opener = three_records()
    stream = bytearray(b"".join(sealed))
    stream[bit // 8] ^= 1 << bit % 8
    whole = 0
    while sum(map(len, sealed[: whole + 1])) <= bit // 8:
        whole += 1
    delivered, error = refuse(opener, bytes(stream))
    assert delivered == b"".join(MESSAGES[:whole])
    assert error.position == whole
    assert error.peer == "bob"


@pytest.mark.parametrize(
    ("order", "whole"),
    [
        ([1, 2, 3], 0),
        ([1, 0, 2, 3], 0),
        ([0, 0, 1, 2, 3], 1),
        ([0, 2, 3], 1),
        ([0, 2, 1, 3], 1),
        ([0, 1, 3, 2], 2),
        ([0, 1, 2, 3, 0], 4),
        ([0, 1, 2, 3, 3], 4),
    ],
)
def test_records_that_are_left_out_replayed_or_reordered_are_refused(order: list[int], whole: int) -> None:
    sealed, opener = three_records()
    delivered, error = refuse(opener, b"".join(sealed[index] for index in order))
    assert delivered == b"".join(MESSAGES[:whole])
    assert error.what == "its tag does not fit"


def test_a_record_of_the_other_direction_or_another_connection_is_refused() -> None:
    for key in (bytes(31) + b"\1", b"\1" + bytes(31)):
        sealed, _ = RecordSealer(CipherState("AESGCM", key)).seal([b"abc"])
        assert refuse(record_pair()[1], bytes(sealed))[0] == b""


def test_a_stream_that_is_cut_anywhere_is_told_from_one_that_ended() -> None:
    sealer, _ = record_pair()
    stream = bytes(sealer.seal([b"abc"])[0]) + bytes(sealer.seal([b"d"])[0]) + sealer.seal_end()
    for size in range(len(stream)):
        opener = record_pair()[1]
        delivered, error = refuse(opener, stream[:size])
        assert delivered == (b"abcd" if size >= 40 else b"abc" if size >= 21 else b"")
        assert "cut off" in error.what
    _, opener = record_pair()
    assert open_all(opener, [stream]) == b"abcd"
    opener.receive_end_of_file()


def test_bytes_behind_the_end_are_refused() -> None:
    sealer, opener = record_pair()
    stream = bytes(sealer.seal([b"abc"])[0]) + sealer.seal_end()
    delivered, error = refuse(opener, stream + b"\0")
    assert delivered == b"abc"
    assert "behind the end" in error.what
    opener = record_pair()[1]
    assert open_all(opener, [stream]) == b"abc"
    assert refuse(opener, b"\0")[0] == b""


@pytest.mark.parametrize("size", [0, 1, 15])
def test_a_length_below_a_tag_is_refused_before_its_bytes_have_come(size: int) -> None:
    opener = record_pair()[1]
    opener.feed(b"\0")
    assert not opener.has_more
    delivered, error = refuse(opener, bytes([size]))
    assert delivered == b""
    assert f"announces {size} bytes" in error.what


def test_the_largest_length_is_waited_for_and_no_more_is_kept() -> None:
    opener = record_pair()[1]
    opener.feed(b"\xff\xff" + bytes(65_534))
    assert not opener.has_more
    assert opener.open_into(memoryview(bytearray(1))) is None
    assert refuse(opener, b"\0")[1].what == "its tag does not fit"


def test_what_no_tag_vouches_for_is_not_left_in_the_memory_of_the_caller() -> None:
    sealer, opener = record_pair()
    sealed = bytearray(sealer.seal([b"secret" * 10])[0])
    sealed[-1] ^= 1
    opener.feed(sealed)
    room = bytearray(100)
    with pytest.raises(RecordRefused):
        opener.open_into(memoryview(room))
    assert room == bytes(100)


@settings(max_examples=40)
@given(slices=st.lists(st.binary(min_size=1, max_size=120), max_size=6))
def test_random_bytes_are_refused_or_waited_for(slices: list[bytes]) -> None:
    opener = record_pair()[1]
    try:
        assert open_all(opener, slices) == b""
        opener.receive_end_of_file()
    except RecordRefused:
        with pytest.raises(LocalProtocolError):
            opener.feed(b"x")
    else:
        pytest.fail("random bytes were taken for the end of a stream")


# Calls that the state does not allow.


def test_what_was_sealed_last_is_still_there_when_the_end_is_sealed() -> None:
    sealer, opener = record_pair()
    sealed, _ = sealer.seal([b"abc"])
    end = sealer.seal_end()
    assert open_all(opener, [bytes(sealed) + end]) == b"abc"
    assert opener.is_ended


def test_nothing_is_sealed_behind_the_end() -> None:
    sealer, _ = record_pair()
    sealer.seal_end()
    with pytest.raises(LocalProtocolError, match="ended"):
        sealer.seal([b"x"])
    with pytest.raises(LocalProtocolError, match="ended"):
        sealer.seal_end()


def test_an_opener_with_more_is_not_fed() -> None:
    sealer, opener = record_pair()
    opener.feed(bytes(sealer.seal([b"abc"])[0]))
    with pytest.raises(LocalProtocolError, match="feed"):
        opener.feed(b"x")
    with pytest.raises(LocalProtocolError, match="receive_end_of_file"):
        opener.receive_end_of_file()
    with pytest.raises(ValueError, match="room"):
        opener.open_into(memoryview(b""))
    view = memoryview(bytearray(2))
    assert (opener.open_into(view), bytes(view)) == (2, b"ab")
    with pytest.raises(LocalProtocolError, match="feed"):
        opener.feed(b"x")
    assert (opener.open_into(view), bytes(view[:1])) == (1, b"c")
    assert opener.open_into(view) is None


# Keys and nonces.


@pytest.mark.parametrize("cipher", CIPHERS)
def test_both_ends_take_new_keys_in_step(cipher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "REKEY_RECORDS", 3)
    sealer, opener = record_pair(cipher)
    plain = CipherState(cipher, bytes(32))
    keys = 0
    for index in range(10):
        sealed = bytes(sealer.seal([bytes([index])])[0])
        if index in (3, 6, 9):
            plain.rekey()
            keys += 1
        assert plain.encrypt(b"", bytes([index])) == sealed[2:]
        assert open_all(opener, [sealed]) == bytes([index])
    assert keys == 3


def test_ends_that_do_not_agree_on_when_to_rekey_find_out(monkeypatch: pytest.MonkeyPatch) -> None:
    sealer = record_pair()[0]
    monkeypatch.setattr(records, "REKEY_RECORDS", 2)
    opener = record_pair()[1]
    sealed = b"".join(bytes(sealer.seal([b"x"])[0]) for _ in range(3))
    assert refuse(opener, sealed)[0] == b"xx"


def test_rekeying_is_that_of_the_specification() -> None:
    """The new key is what the old one makes of 32 zero bytes under the last nonce; the counter goes on."""
    state = CipherState("AESGCM", b"k" * 32)
    state.encrypt(b"", b"one")
    state.rekey()
    key = AESGCM(b"k" * 32).encrypt(bytes(4) + b"\xff" * 8, bytes(32), None)[:32]
    assert state.encrypt(b"", b"two") == AESGCM(key).encrypt(bytes(11) + b"\1", b"two", None)


@pytest.mark.parametrize("cipher", CIPHERS)
def test_the_last_nonce_is_used_and_none_behind_it(cipher: str) -> None:
    sending, receiving = CipherState(cipher, bytes(32), "bob"), CipherState(cipher, bytes(32), "bob")
    sending._nonce = receiving._nonce = NONCE_MAX - 1
    sealer, opener = RecordSealer(sending), RecordOpener(receiving)
    sealed = bytes(sealer.seal([b"last"])[0])
    assert open_all(opener, [sealed]) == b"last"
    with pytest.raises(NonceExhausted):
        sealer.seal([b"more"])
    with pytest.raises(LocalProtocolError, match="failed"):
        sealer.seal([b"more"])
    opener.feed(sealed)
    with pytest.raises(NonceExhausted):
        opener.open_into(memoryview(bytearray(9)))
    with pytest.raises(LocalProtocolError, match="failed"):
        opener.open_into(memoryview(bytearray(9)))
    for call in (sending.encrypt, receiving.decrypt):
        with pytest.raises(NonceExhausted):
            call(b"", bytes(16))


def test_a_failed_decryption_spends_no_nonce() -> None:
    sending, receiving = CipherState("ChaChaPoly", bytes(32)), CipherState("ChaChaPoly", bytes(32))
    sealed = sending.encrypt(b"context", b"abc")
    for associated_data, ciphertext in ((b"other", sealed), (b"context", sealed[:-1]), (b"context", b"")):
        with pytest.raises(InvalidTag):
            receiving.decrypt(associated_data, ciphertext)
    assert receiving.position == 0
    assert receiving.decrypt(b"context", sealed) == b"abc"
    assert (sending.position, receiving.position) == (1, 1)
