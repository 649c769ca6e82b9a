"""The SOCKS5 client, byte by byte; the bytes are those of RFC 1928 and 1929."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywire.engine.transports import errors
from partywire.engine.transports.socks import SocksClient, SocksCommand, SocksCredentials

PROXY = "/ip4/127.0.0.1/tcp/9050"
SECRET = "geheim-7"
DONE = b"\x05\0\0\x01\x7f\0\0\x01\x1f\x90"

REPLIES = {
    1: errors.SocksServerFailure,
    2: errors.SocksNotAllowed,
    3: errors.SocksNetworkUnreachable,
    4: errors.SocksHostUnreachable,
    5: errors.SocksConnectionRefused,
    6: errors.SocksTtlExpired,
    7: errors.SocksCommandNotSupported,
    8: errors.SocksAddressNotSupported,
}


def client(
    host: str = "bob.example", credentials: SocksCredentials | None = None, command: SocksCommand = SocksCommand.CONNECT
) -> SocksClient:
    return SocksClient(command, host, 258, credentials, PROXY)


def feed(core: SocksClient, data: bytes, size: int = 1000) -> bytes:
    """Give it `data` in pieces as a socket would, and return what it says and what it did not take."""
    said = core.data_to_send()
    while data and core.missing:
        part = data[: min(size, core.missing)]
        data = data[len(part) :]
        core.receive_data_untrusted(part)
        said += core.data_to_send()
    assert core.missing == 0 or not data
    return said + b"|" + data


@pytest.mark.parametrize("size", [1000, 1])
@pytest.mark.parametrize(
    ("host", "encoded"),
    [
        ("10.0.0.1", b"\x01\x0a\0\0\x01"),
        ("::2", b"\x04" + bytes(15) + b"\x02"),
        ("bob.example", b"\x03\x0bbob.example"),
        ("bücher.example", b"\x03\x15xn--bcher-kva.example"),
    ],
)
def test_connect_is_asked_for_and_what_follows_the_reply_is_left(host: str, encoded: bytes, size: int) -> None:
    core = client(host)
    said = feed(core, b"\x05\0" + DONE + b"hello", size)
    assert said == b"\x05\x01\0" + b"\x05\x01\0" + encoded + b"\x01\x02" + b"|hello"
    assert core.result == "127.0.0.1"


@pytest.mark.parametrize("size", [1000, 1])
def test_a_password_is_sent_when_the_proxy_wants_it(size: int) -> None:
    core = client("10.0.0.1", SocksCredentials("bob", SECRET))
    said = feed(core, b"\x05\x02\x01\0" + DONE, size)
    assert said.startswith(b"\x05\x02\0\x02" + b"\x01\x03bob\x08geheim-7" + b"\x05\x01\0")
    assert core.result is not None


def test_a_password_is_not_sent_to_a_proxy_that_wants_none() -> None:
    said = feed(client("10.0.0.1", SocksCredentials("bob", SECRET)), b"\x05\0" + DONE)
    assert b"geheim" not in said


@pytest.mark.parametrize("size", [1, 255])
def test_both_ends_of_the_length_of_a_password(size: int) -> None:
    assert b"\xff" + b"p" * 255 in feed(client("a", SocksCredentials("u", "p" * 255)), b"\x05\x02\x01\0" + DONE)
    SocksCredentials("u" * size, "p" * size)
    for username, password in (("", "p"), ("u", ""), ("u" * 256, "p"), ("u", "ü" * 128)):
        with pytest.raises(ValueError, match="1 to 255"):
            SocksCredentials(username, password)


def test_tor_resolves_a_name_to_an_address_of_either_family() -> None:
    core = client("bob.example", command=SocksCommand.RESOLVE)
    assert feed(core, b"\x05\0\x05\0\0\x04" + bytes(15) + b"\x01\0\0").startswith(b"\x05\x01\0\x05\xf0\0\x03")
    assert core.result == "::1"


@pytest.mark.parametrize("code", [*REPLIES, 9, 0x5B, 0xF0, 0xF7, 255])
def test_every_reply_code_is_a_typed_error_as_soon_as_it_is_there(code: int) -> None:
    with pytest.raises(errors.SocksReplyError, match=f"{code:#04x}") as caught:
        feed(client(), bytes((5, 0, 5, code)))
    assert type(caught.value) is REPLIES.get(code, errors.SocksReplyError)
    assert caught.value.code == code
    assert "bob.example:258" in str(caught.value)
    assert PROXY in str(caught.value)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), again.args, str(again)) == (type(caught.value), caught.value.args, str(caught.value))


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (b"\x05\xff", errors.SocksMethodRefused, "wants a user name"),
        (b"\x05\x02", errors.SocksMethodRefused, "not offered"),
        (b"\x05\x01", errors.SocksMethodRefused, "not offered"),
        (b"HT", errors.SocksProtocolError, "version 72"),
        (b"\x05\0\x04\0", errors.SocksProtocolError, "version 4"),
        (b"\x05\0\x05\0\x01\x01\0", errors.SocksProtocolError, "reserved byte of 1"),
        (b"\x05\0\x05\0\0\x02\0", errors.SocksProtocolError, "kind 2"),
    ],
)
def test_what_is_not_allowed_is_a_typed_error(data: bytes, kind: type[errors.SocksError], words: str) -> None:
    with pytest.raises(kind, match=words):
        feed(client(), data)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\x05\x02\x01\x01", errors.SocksPasswordRefused),
        (b"\x05\x02\x05\0", errors.SocksProtocolError),
        (b"\x05\xff", errors.SocksMethodRefused),
    ],
)
def test_a_refused_password_is_never_shown(data: bytes, kind: type[errors.SocksError]) -> None:
    credentials = SocksCredentials("bob", SECRET)
    with pytest.raises(kind) as caught:
        feed(client("a", credentials), data)
    assert SECRET not in str(caught.value) + repr(caught.value) + repr(credentials)


@pytest.mark.parametrize("size", [0, 255])
def test_the_bound_address_may_be_a_name_of_any_length(size: int) -> None:
    core = client()
    assert feed(core, b"\x05\0\x05\0\0\x03" + bytes((size,)) + b"n" * size + b"\0\0tail").endswith(b"|tail")
    assert core.result == "n" * size


@pytest.mark.parametrize("host", ["", "a" * 256, "fe80::1%eth0", "\udcff", "." * 3 + "ü"])
def test_a_host_that_cannot_be_sent_is_not_supported(host: str) -> None:
    with pytest.raises(errors.AddressNotSupported):
        client(host)


def test_an_early_end_says_so() -> None:
    assert "before it had answered" in str(client().receive_end_of_file())


@given(st.booleans(), st.binary(max_size=300), st.integers(1, 8))
def test_any_answer_is_a_result_an_error_or_a_beginning(has_password: bool, data: bytes, size: int) -> None:
    core = client("a", SocksCredentials("u", SECRET) if has_password else None)
    try:
        feed(core, data, size)
    except errors.SocksError:
        return
    assert (core.result is None) == (core.missing > 0)
