"""The frames of calls: they read back, and nothing else is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywire.engine.errors import FrameTooLarge, LinkProtocolError
from partywire.engine.rpc import wire
from partywire.engine.rpc.wire import LENGTH, End, Item, Request, RpcStatus

calls = st.integers(1, wire.CALL_MAX)


def body_of(frame: bytes) -> bytes:
    (length,) = LENGTH.unpack_from(frame)
    assert length == len(frame) - LENGTH.size
    return frame[LENGTH.size :]


@given(
    calls,
    st.text(min_size=1, max_size=60).filter(lambda name: len(name.encode("utf-8", "replace")) == len(name.encode())),
    st.integers(0, wire.DEADLINE_MS_MAX),
    st.binary(max_size=100),
)
def test_requests_read_back(call: int, method: str, deadline_ms: int, payload: bytes) -> None:
    request = Request(call, method, deadline_ms, payload)
    assert wire.decode_request_untrusted(body_of(b"".join(wire.encode_request(request))), "bob") == request


@given(calls, st.binary(max_size=100))
def test_items_read_back(call: int, payload: bytes) -> None:
    item = Item(call, payload)
    assert wire.decode_answer_untrusted(body_of(b"".join(wire.encode_item(item))), "bob") == item


@given(st.integers(0, wire.CALL_MAX), st.sampled_from(RpcStatus), st.text(max_size=100))
def test_ends_read_back(call: int, status: RpcStatus, message: str) -> None:
    end = End(call, status, message.encode("utf-8", "replace").decode())
    assert wire.decode_answer_untrusted(body_of(wire.encode_end(end)), "bob") == end


def test_a_long_message_is_cut() -> None:
    end = wire.decode_answer_untrusted(body_of(wire.encode_end(End(1, RpcStatus.GENERAL, "x" * 5000))), "bob")
    assert isinstance(end, End)
    assert end.message == "x" * wire.MESSAGE_SIZE_MAX


@pytest.mark.parametrize("name", ["", "x" * 256])
def test_a_method_has_a_name_of_1_to_255_bytes(name: str) -> None:
    with pytest.raises(ValueError, match="name of a method"):
        wire.encode_request(Request(1, name, 1, b""))


@pytest.mark.parametrize("length", [0, 4, 100 + wire.OVERHEAD_MAX + 1, 2**32 - 1])
def test_lengths_are_checked_first(length: int) -> None:
    with pytest.raises(LinkProtocolError) as caught:
        wire.check_length_untrusted(length, 100, "bob")
    assert isinstance(caught.value, FrameTooLarge) == (length > 100)


@given(st.binary(min_size=5, max_size=60))
def test_any_other_bytes_are_refused(body: bytes) -> None:
    for decode in (wire.decode_request_untrusted, wire.decode_answer_untrusted):
        try:
            decode(body, "bob")
        except LinkProtocolError:
            pass
