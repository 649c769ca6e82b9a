"""Bodies put together from pieces, by both cores."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywire.engine.filler import PlainFiller
from partywire.shm.compiled import core

KINDS: list[Any] = [PlainFiller] if core is None else [PlainFiller, core.Filler]


@pytest.mark.parametrize("kind", KINDS)
@given(pieces=st.lists(st.binary(max_size=50)), is_writable=st.booleans())
def test_pieces_make_the_body(kind: Any, pieces: list[bytes], is_writable: bool) -> None:
    whole = b"".join(pieces)
    filler = kind(len(whole), is_writable)
    for piece in pieces:
        before = filler.filled
        filler.put(memoryview(piece))
        assert filler.filled == before + len(piece)
    body = filler.take()
    assert body == whole
    assert type(body) is (bytearray if is_writable else bytes)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_too_long_is_refused_and_nothing_put(kind: Any) -> None:
    filler = kind(4, False)
    filler.put(b"abc")
    with pytest.raises(ValueError, match="longer than what is missing"):
        filler.put(b"de")
    filler.put(b"d")
    assert filler.take() == b"abcd"
    with pytest.raises(ValueError, match="longer than what is missing"):
        filler.put(b"e")


@pytest.mark.parametrize("kind", KINDS)
def test_a_body_is_taken_once_and_whole(kind: Any) -> None:
    filler = kind(2, True)
    filler.put(b"a")
    with pytest.raises(ValueError, match="when it is whole"):
        filler.take()
    filler.put(b"b")
    assert filler.take() == b"ab"
    with pytest.raises(ValueError, match="taken once"):
        filler.take()


@pytest.mark.parametrize("kind", KINDS)
def test_impossible_sizes_are_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match="not negative"):
        kind(-1, False)
    with pytest.raises((MemoryError, OverflowError)):
        kind(2**62, True)


@pytest.mark.skipif(core is None, reason="the compiled core is not there, or not wanted")
def test_a_compiled_filler_is_made_once() -> None:
    assert core is not None
    filler = core.Filler(3, False)
    with pytest.raises(ValueError, match="made once"):
        filler.__init__(5, False)
    half_made = core.Filler.__new__(core.Filler)
    with pytest.raises(ValueError, match="longer than what is missing"):
        half_made.put(b"x")
    with pytest.raises(ValueError, match="when it is whole"):
        half_made.take()
