"""The handshake of iris-mpc's TCP stack: its bytes as they are written down, fed in every way, and what is refused."""

from __future__ import annotations

import pytest

from partywire.engine.errors import LinkProtocolError, LocalProtocolError
from partywire.engine.iris_handshake import (
    Exchange,
    Introducing,
    Introduction,
    accepting,
    dialling,
    introduction_untrusted,
    may_be_iris,
)
from partywire.engine.iris_options import CONNECTIONS_MAX, VERSION_READY, VERSION_VALIDATE, IrisOptions
from partywire.engine.preamble import MAGIC

NOW = IrisOptions(2, VERSION_VALIDATE)
READY = IrisOptions(2, VERSION_READY)
ID = bytes.fromhex("00000001")
CHARLIE = bytes.fromhex("00000007 63 68 61 72 6c 69 65")
TOKEN = bytes.fromhex("32 6f 6b")
SAYS_READY = bytes.fromhex("02 6f 6b")


def feed(core: Exchange, data: bytes) -> bytes:
    """One byte at a time; returns what it says on the way."""
    said = b""
    for at in range(len(data)):
        core.receive_data(data[at : at + 1])
        said += core.data_to_send()
    return said


def test_charlie_opens_connection_1_as_the_example_says() -> None:
    core = dialling("alice", "charlie", 1, NOW)
    assert core.data_to_send() == ID
    assert feed(core, ID) == CHARLIE
    assert feed(core, TOKEN) == b""
    assert core.result
    assert core.trailing_data == b""


def test_a_dialler_takes_everything_at_once_and_leaves_what_is_behind() -> None:
    core = dialling("alice", "charlie", 1, NOW)
    core.receive_data(ID + TOKEN + b"\x07\x00\x00\x00\x12")
    assert core.data_to_send() == ID + CHARLIE
    assert core.trailing_data == b"\x07\x00\x00\x00\x12"
    assert core.trailing_data == b""


def test_an_acceptor_says_its_token_and_waits_for_nothing() -> None:
    core = accepting("charlie", NOW)
    assert core.data_to_send() == TOKEN
    assert core.result is True


def test_both_say_ready_in_the_version_that_does() -> None:
    dialler, acceptor = dialling("alice", "charlie", 1, READY), accepting("charlie", READY)
    assert acceptor.data_to_send() == TOKEN + SAYS_READY
    assert acceptor.result is None
    dialler.data_to_send()
    assert feed(dialler, ID) == CHARLIE
    assert feed(dialler, TOKEN) == SAYS_READY
    assert dialler.result is None
    feed(dialler, SAYS_READY)
    feed(acceptor, SAYS_READY)
    assert dialler.result is acceptor.result is True


@pytest.mark.parametrize(
    ("options", "before", "wrong"),
    [
        (NOW, b"", b"\x00\x00\x00\x02"),  # the echo of another connection
        (NOW, b"", b"\x93"),
        (NOW, ID, b"2no"),
        (NOW, ID, SAYS_READY),
        (READY, ID + TOKEN, TOKEN),
    ],
)
def test_whoever_answers_something_else_is_told_apart_at_its_first_wrong_byte(
    options: IrisOptions, before: bytes, wrong: bytes
) -> None:
    core = dialling("alice", "charlie", 1, options)
    core.receive_data(before)
    with pytest.raises(LinkProtocolError, match="alice broke the wire protocol"):
        feed(core, wrong)
    with pytest.raises(LocalProtocolError):
        core.receive_data(b"")


@pytest.mark.parametrize("before", [b"", ID[:2], ID, ID + TOKEN[:2]])
def test_an_end_of_file_before_the_token_is_no_handshake(before: bytes) -> None:
    core = dialling("alice", "charlie", 1, NOW)
    core.receive_data(before)
    with pytest.raises(LinkProtocolError, match="the stream ended before"):
        core.receive_eof()


# The acceptor's first half, which a gateway plays.


def test_an_introduction_is_heard_byte_by_byte_and_never_beyond_its_end() -> None:
    core = Introducing()
    said, stream = b"", ID + CHARLIE + b"frames of a dialler that waits for nothing"
    while core.result is None:
        assert core.missing > 0
        piece, stream = stream[:1], stream[1:]
        core.receive_data(piece)
        said += core.data_to_send()
    assert core.result == Introduction(1, "charlie")
    assert said == ID
    assert core.missing == 0
    assert core.received == ID + CHARLIE
    assert core.trailing_data == b""
    assert introduction_untrusted(core.received) == core.result


def test_an_introduction_is_heard_in_the_pieces_that_it_asks_for() -> None:
    core, stream, sizes = Introducing(), ID + CHARLIE, []
    while (size := core.missing) > 0:
        sizes.append(size)
        core.receive_data(stream[:size])
        stream = stream[size:]
    assert sizes == [4, 4, 7]
    assert core.result == Introduction(1, "charlie")


@pytest.mark.parametrize(
    "stream",
    [
        ID + bytes.fromhex("00000000"),
        ID + bytes.fromhex("00000081"),
        ID + bytes.fromhex("ffffffff"),
        ID + bytes.fromhex("00000002 ff fe"),
        ID + CHARLIE + b"!",
    ],
    ids=["no name", "129 bytes", "4 GiB", "not UTF-8", "goes on"],
)
def test_what_is_no_introduction_is_refused(stream: bytes) -> None:
    with pytest.raises(LinkProtocolError):
        Introducing().receive_data(stream)


def test_a_name_of_128_bytes_is_heard() -> None:
    core = Introducing()
    core.receive_data(ID + bytes.fromhex("00000080") + b"n" * 128)
    assert core.result == Introduction(1, "n" * 128)


@pytest.mark.parametrize("stream", [b"", ID, ID + CHARLIE[:-1]])
def test_an_introduction_that_ends_too_early_is_none(stream: bytes) -> None:
    core = Introducing("charlie")
    core.receive_data(stream)
    assert core.result is None
    with pytest.raises(LinkProtocolError, match="charlie"):
        core.receive_eof()


def test_the_first_byte_tells_the_protocols_of_one_port_apart() -> None:
    assert may_be_iris(b"\x00")
    assert may_be_iris((CONNECTIONS_MAX - 1).to_bytes(4, "big"))
    for other in (MAGIC, MAGIC[:1], b"\x16\x03\x01", b"GET /"):
        assert not may_be_iris(other)
    assert not may_be_iris(b"\x00\x01")


@pytest.mark.parametrize("bad", [{"connections": 0}, {"connections": 97}, {"version": "2024-01"}])
def test_options_out_of_bounds_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"allowed|known"):
        IrisOptions(**bad)  # type: ignore[arg-type]
    assert IrisOptions(96).connections == 96
