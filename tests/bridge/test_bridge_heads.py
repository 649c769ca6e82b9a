"""Heads of a bridge, and the errors that they carry: whatever is encoded decodes, and nothing else does."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywire.engine.errors import FrameTooLarge, LinkProtocolError
from partywire.engine.negotiation import NegotiationFailed
from partywire.engine.peers.errors import ConnectionsClosed, NegotiationTimedOut, PeerIsBanned, PeerNotReached
from partywire.engine.worker_bridge import heads
from partywire.engine.worker_bridge.failures import ERROR_TYPES, BridgeFailed, error_of, failed
from partywire.engine.worker_bridge.heads import Failed, HeadError
from partywire.engine.worker_bridge.talk import HeadTaker
from partywire.engine.yamux.errors import SubstreamRefused, SubstreamSessionOver
from tests.yamux.yamux_pair import Pair, output_of

NOTE = heads.ConnectionNote(7, "dialled", "/ip4/127.0.0.1/tcp/7201", bytes(range(256)))

EXAMPLES = (
    heads.Attend(),
    heads.Serve("/app/x/1"),
    heads.Unserve("/app/x/1"),
    heads.Open(("/app/x/2", "/app/x/1"), "ab" * 13),
    heads.Open(("/app/x/1",), connection=3),
    heads.Connect("ab" * 13),
    heads.Disconnect(7),
    heads.Ping(7),
    heads.Ban("ab" * 13, "rude", math.inf),
    heads.Unban("ab" * 13),
    heads.Taken(),
    heads.Refused("nobody"),
    heads.Offer("/app/x/1", NOTE, 5),
    heads.Opened("/app/x/1", 5, NOTE),
    heads.Opened("/app/x/1", 5, None),
    heads.ConnectedTo(NOTE),
    heads.Done(0.25),
    heads.Failed("PeerNotReached", ("bob", 3, ("one", "two"))),
    heads.Attending("cd" * 13, "bob"),
    heads.ServeFailed("/app/x/1", "it is served already"),
    heads.Standing((1, 2, 3), 4),
    heads.Connected(NOTE, True),
    heads.Disconnected(7, "ab" * 13, "gone"),
    heads.Updated(7, b"\x01\x02"),
    heads.ConnectFailed("ab" * 13, "nobody answered"),
    heads.InboundFailed("/ip4/1.2.3.4/tcp/5", "no handshake"),
    heads.Banned("ab" * 13, "rude", 1e9),
    heads.Broken(5, "the peer reset it"),
)


def body_of(encoded: bytes) -> bytes:
    assert int.from_bytes(encoded[: heads.LENGTH_SIZE], "big") == len(encoded) - heads.LENGTH_SIZE
    return encoded[heads.LENGTH_SIZE :]


def test_there_is_an_example_of_every_head() -> None:
    assert {type(example) for example in EXAMPLES} == set(heads.HEAD_TYPES.values())


@pytest.mark.parametrize("head", EXAMPLES, ids=lambda head: type(head).__name__)
def test_what_is_encoded_decodes(head: heads.Head) -> None:
    assert heads.decode_untrusted(body_of(heads.encode(head))) == head


def test_the_largest_claim_has_room_in_every_head() -> None:
    note = heads.ConnectionNote(2**32, "accepted", "/dns4/" + "a" * 250 + "/tcp/65535/wss", bytes(8192))
    for head in (heads.Offer("x" * 255, note, 2**32), heads.Opened("x" * 255, 1, note), heads.Updated(1, bytes(8192))):
        assert heads.decode_untrusted(body_of(heads.encode(head))) == head


def test_a_head_of_the_greatest_size_passes_and_one_byte_more_does_not() -> None:
    overhead = len(body_of(heads.encode(heads.Refused(""))))
    fits = heads.Refused("x" * (heads.HEAD_SIZE_MAX - overhead))
    assert heads.decode_untrusted(body_of(heads.encode(fits))) == fits
    with pytest.raises(HeadError, match="at most"):
        heads.encode(heads.Refused(fits.cause + "x"))


@pytest.mark.parametrize("size", [0, heads.HEAD_SIZE_MAX + 1, 2**32 - 1])
def test_a_size_that_no_head_has_is_refused_before_it_is_read(size: int) -> None:
    with pytest.raises(HeadError):
        heads.check_size_untrusted(size)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"head":"no-such"}',
        b'{"head":["open"]}',
        b'{"head":"serve"}',
        b'{"head":"serve","protocol":7}',
        b'{"head":"serve","protocol":"x","more":1}',
        b'{"head":"ping","connection":-1}',
        b'{"head":"ping","connection":true}',
        b'{"head":"open","protocols":"x","peer":"","connection":0}',
        b'{"head":"updated","connection":1,"claim":"*"}',
        b'{"head":"updated","connection":1,"claim":7}',
        b'{"head":"ban","peer":"x","reason":"y","seconds":-1}',
        b'{"head":"connected-to","connection":null}',
        b'{"head":"connected-to","connection":{"number":1}}',
        b'{"head":"failed","error":"x","arguments":[{}]}',
        b"\xff\xfe",
    ],
)
def test_what_is_no_head_is_refused_with_a_sentence(body: bytes) -> None:
    with pytest.raises(HeadError, match="two versions"):
        heads.decode_untrusted(body)


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_refused(body: bytes) -> None:
    try:
        head = heads.decode_untrusted(body)
    except HeadError:
        return
    assert heads.decode_untrusted(body_of(heads.encode(head))) == head


@pytest.mark.parametrize(
    "error",
    [
        ConnectionsClosed(),
        LinkProtocolError("bob", "an echo", "nothing", 3),
        LinkProtocolError("bob", "an echo", "nothing"),
        NegotiationFailed("bob", ("/app/x/1",), False),
        NegotiationTimedOut("bob", ("/app/x/1",), 10.0),
        PeerIsBanned("bob", "rude", math.inf),
        PeerNotReached("bob", 2, ("nobody", "refused")),
        SubstreamRefused("bob", "all ids are used", True),
        SubstreamSessionOver("bob", "gone"),
        ValueError("what is that"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_is_the_same_at_the_other_end(error: Exception) -> None:
    head = heads.decode_untrusted(body_of(heads.encode(failed(error))))
    assert isinstance(head, Failed)
    carried = error_of(head)
    assert type(carried) is type(error)
    assert str(carried) == str(error)


def test_an_error_of_another_type_is_carried_as_its_sentence() -> None:
    assert str(error_of(failed(OSError(2, "no such file")))) == "[Errno 2] no such file"
    assert type(error_of(failed(OSError(2, "no such file")))) is BridgeFailed
    too_large = error_of(failed(FrameTooLarge("bob", "a message", 7, 3)))
    assert type(too_large) is LinkProtocolError
    assert too_large.peer == "bob"


def test_an_error_with_long_texts_fits_a_head() -> None:
    for text in ("x" * 5000, "\0" * 5000, "\N{GRINNING FACE}" * 5000, "\udcff" * 5000):
        heads.encode(failed(PeerNotReached(text, 7, (text,) * 100)))
        heads.encode(failed(LinkProtocolError(text, text, text, text)))


def test_a_text_that_is_not_unicode_is_refused() -> None:
    with pytest.raises(HeadError, match="Unicode"):
        heads.encode(heads.Serve("\udcff"))


@pytest.mark.parametrize("name", sorted(ERROR_TYPES))
def test_an_error_with_fields_of_other_types_is_refused(name: str) -> None:
    kinds = ERROR_TYPES[name][1]
    with pytest.raises(HeadError):
        error_of(Failed(name, (*(7 if kind is str else "x" for kind in kinds), "one more")))
    if kinds:
        with pytest.raises(HeadError):
            error_of(Failed(name, tuple(7 if kind is str else "x" for kind in kinds)))


def test_an_unknown_error_is_refused() -> None:
    with pytest.raises(HeadError):
        error_of(Failed("KeyboardInterrupt", ()))


@given(st.integers(1, 40))
def test_a_head_is_taken_off_a_substream_in_whatever_slices_it_comes_and_nothing_behind_it(size: int) -> None:
    pair = Pair()
    ours, theirs = pair.substreams()
    taken: list[heads.Head | None] = []
    take = HeadTaker(taken.append)
    head = heads.Refused("nobody")
    encoded = heads.encode(head)
    ours.write(encoded + b"behind")
    data = output_of(pair.client)
    for start in range(0, len(data), size):
        assert not taken
        pair.server.receive_untrusted(data[start : start + size])
        if take(theirs):
            break
    pair.server.receive_untrusted(data[start + size :])
    assert taken == [head]
    assert theirs.read(99) == b"behind"


@pytest.mark.parametrize("size", [0, 1, 4, 5])
def test_an_end_in_the_place_of_a_head_is_told_and_one_in_its_midst_is_refused(size: int) -> None:
    pair = Pair()
    ours, theirs = pair.substreams()
    taken: list[heads.Head | None] = []
    ours.write(heads.encode(heads.Taken())[:size])
    ours.close_write()
    pair.flow()
    if size:
        with pytest.raises(HeadError, match="in its midst"):
            HeadTaker(taken.append)(theirs)
        assert not taken
    else:
        assert HeadTaker(taken.append)(theirs)
        assert taken == [None]


def test_a_head_that_would_be_too_large_is_refused_by_its_length() -> None:
    pair = Pair()
    ours, theirs = pair.substreams()
    ours.write((heads.HEAD_SIZE_MAX + 1).to_bytes(4, "big"))
    pair.flow()
    with pytest.raises(HeadError, match="allowed"):
        HeadTaker(print)(theirs)
