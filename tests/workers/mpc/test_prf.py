"""The key stream: equal for equal seeds, never the same twice, and never shown."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from partywire.workers.mpc.prf import KeyStream, fresh_key
from partywire.workers.values import PrfKey

KEY = PrfKey(bytes(range(16)))
U8, U32, U64 = np.dtype(np.uint8), np.dtype(np.uint32), np.dtype(np.uint64)


def test_the_stream_is_aes_128_in_counter_mode() -> None:
    encryptor = Cipher(algorithms.AES(bytes(range(16))), modes.CTR(bytes(16))).encryptor()
    assert KeyStream(KEY).draw((100,), U8).tobytes() == encryptor.update(bytes(100))


@given(st.lists(st.tuples(st.integers(0, 50), st.sampled_from([U8, U32, U64])), max_size=8))
def test_draws_of_any_sizes_cut_one_stream_without_gap_or_repetition(
    draws: list[tuple[int, np.dtype[np.uint8]]],
) -> None:
    stream = KeyStream(KEY)
    drawn = b"".join(stream.draw((count,), dtype).tobytes() for count, dtype in draws)
    assert drawn == KeyStream(KEY).draw((len(drawn),), U8).tobytes()
    assert stream.bytes_drawn == len(drawn)


def test_a_draw_beyond_the_internal_block_is_the_same_stream() -> None:
    whole = KeyStream(KEY).draw((200_001,), U8)
    stream = KeyStream(KEY)
    parts = [stream.draw((n,), U8) for n in (70_000, 65_536, 64_465)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_a_draw_has_the_shape_asked_for_and_belongs_to_the_caller() -> None:
    words = KeyStream(KEY).draw((3, 4), U32)
    assert words.shape == (3, 4)
    words += 1


def test_fresh_keys_differ() -> None:
    assert len({bytes(fresh_key()) for _ in range(100)}) == 100


def test_neither_repr_nor_str_shows_the_seed() -> None:
    text = repr(KeyStream(KEY)) + str(KeyStream(KEY))
    assert "hidden" in text
    assert bytes(KEY).hex() not in text


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_stream_cannot_be_duplicated(duplicate) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(TypeError, match="cannot be copied"):
        duplicate(KeyStream(KEY))
