"""Commands and the sockets that carry them: nothing invalid decodes, descriptors arrive and never leak."""

from __future__ import annotations

import errno
import os
import resource
import socket
import typing

import orjson
import pytest

from partywire.engine import commands
from partywire.engine.commands import (
    Close,
    CommandError,
    Lanes,
    LinkProgress,
    Message,
    Start,
    Started,
    Stopped,
    Welcome,
)
from partywire.engine.control_socket import PENDING_MAX, ControlClosed, ControlSocket, ControlTimeout, DescriptorsLost
from partywire.engine.link_options import LinkOptions
from partywire.engine.topology import PartySpec, PeerSpec

PARTY = PartySpec("alice", 0, (PeerSpec("alice", 0, "127.0.0.1", 1), PeerSpec("bob", 1, "::1", 2)))

EXAMPLES: list[Message] = [
    Start(PARTY, ("[::1]:0", "unix:/a"), 2, LinkOptions(parameter_digest=bytes(range(32)), client_host="10.0.0.1")),
    Close(),
    Started({"gateway": 12, "link 1": 13}),
    LinkProgress(1, "refused"),
    commands.LinkNews(1, "connect failed", "10.0.0.1:7101", "connection refused", 2),
    commands.LinkClaimed(1, b"claim", "/ip4/10.0.0.1/tcp/7101"),
    Lanes(1, 2, 3, 4, [1, 3], 4, False, 1 << 32),
    Welcome(1, 2, PARTY, LinkOptions(close_timeout_s=1), "/tmp/x.py"),
    commands.Accepted(b"\x93" * 32, "127.0.0.1:5"),
    commands.Refused(1, 2, 3),
    Stopped([]),
]


def post_until_refused(sender: ControlSocket) -> int:
    for sent in range(100_000):
        try:
            sender.post(LinkProgress(1, str(sent)), [sender.fileno()] if sent % 64 == 0 else [])
        except ControlTimeout:
            return sent
    raise AssertionError("a sender that nobody reads held 100,000 messages")


@pytest.fixture
def ends() -> typing.Iterator[tuple[ControlSocket, ControlSocket]]:
    ours, theirs = ControlSocket.pair()
    with ControlSocket(ours, "b") as a, ControlSocket(theirs, "a") as b:
        yield a, b


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_every_message_survives_its_encoding(message: Message) -> None:
    assert commands.decode(commands.encode(message)) == message


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_a_missing_extra_or_wrong_field_is_refused(message: Message) -> None:
    document = orjson.loads(commands.encode(message))
    with pytest.raises(CommandError):
        commands.decode(orjson.dumps({**document, "surplus": 1}))
    for name in document:
        with pytest.raises(CommandError):
            commands.decode(orjson.dumps({key: value for key, value in document.items() if key != name}))
        with pytest.raises(CommandError):
            commands.decode(orjson.dumps({**document, name: {"no": ["such", {}]}}))


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"type": "Nothing"}', b'{"type": {}}', b"\xff" * 10])
def test_bytes_that_are_no_message_are_refused(data: bytes) -> None:
    with pytest.raises(CommandError):
        commands.decode(data)


def test_a_party_that_contradicts_itself_is_refused() -> None:
    document = orjson.loads(commands.encode(EXAMPLES[0]))
    document["party"]["index"] = 1
    with pytest.raises(CommandError, match="alice is not party 1"):
        commands.decode(orjson.dumps(document))


def test_a_message_arrives_with_its_descriptors(ends: tuple[ControlSocket, ControlSocket]) -> None:
    a, b = ends
    reader, writer = os.pipe()
    a.send(Close(), [writer])
    os.close(writer)
    message, fds = b.receive(5)
    assert message == Close()
    assert not os.get_inheritable(fds[0])
    os.write(fds[0], b"x")
    assert os.read(reader, 1) == b"x"
    os.close(fds[0])
    os.close(reader)


def test_nothing_there_is_none_and_a_deadline_is_kept(ends: tuple[ControlSocket, ControlSocket]) -> None:
    a, _ = ends
    assert a.try_receive() is None
    with pytest.raises(ControlTimeout, match=r"0\.01 s"):
        a.receive(0.01)


def test_end_of_file_comes_after_what_was_sent(ends: tuple[ControlSocket, ControlSocket]) -> None:
    a, b = ends
    a.send(LinkProgress(1, "x"))
    a.close()
    assert b.receive(5)[0] == LinkProgress(1, "x")
    for _ in range(2):
        with pytest.raises(ControlClosed):
            b.receive(5)
    with pytest.raises(ControlClosed):
        b.send(Close())


def test_last_words_are_heard_although_the_speaker_left_messages_unread(
    ends: tuple[ControlSocket, ControlSocket],
) -> None:
    """The kernel reports such an end as a reset, ahead of what was sent before."""
    a, b = ends
    a.send(Close())
    b.send(LinkProgress(1, "last words"))
    b.close()
    assert a.try_receive() == (LinkProgress(1, "last words"), [])
    with pytest.raises(ControlClosed):
        a.try_receive()


def test_last_words_are_heard_although_nothing_can_be_sent_any_more(ends: tuple[ControlSocket, ControlSocket]) -> None:
    a, b = ends
    b.send(LinkProgress(1, "last words"))
    b.close()
    for _ in range(2):
        with pytest.raises(ControlClosed):
            a.post(Close())
    assert not a.has_pending
    assert a.try_receive() == (LinkProgress(1, "last words"), [])
    with pytest.raises(ControlClosed):
        a.try_receive()


def test_a_peer_that_does_not_read_costs_a_bounded_number_of_messages(
    ends: tuple[ControlSocket, ControlSocket],
) -> None:
    a, b = ends
    sent = post_until_refused(a)
    assert a.has_pending
    assert sent > PENDING_MAX
    received = 0
    while received < sent:
        a.flush()
        while (got := b.try_receive()) is not None:
            assert got[0] == LinkProgress(1, str(received))
            for fd in got[1]:
                os.close(fd)
            received += 1
    assert not a.has_pending


def test_an_invalid_message_ends_the_socket_and_closes_its_descriptors(
    ends: tuple[ControlSocket, ControlSocket],
) -> None:
    a, b = ends
    raw = socket.socket(fileno=os.dup(a.fileno()))
    with raw:
        socket.send_fds(raw, [b"{}"], [0, 1])
    with pytest.raises(CommandError):
        b.try_receive()
    with pytest.raises(ControlClosed):
        b.try_receive()


def test_descriptors_that_there_is_no_room_for_are_not_lost_silently_and_the_socket_goes_on(
    ends: tuple[ControlSocket, ControlSocket],
) -> None:
    a, b = ends
    a.send(LinkProgress(1, "x"), [a.fileno()] * 10)
    a.send(LinkProgress(1, "y"), [a.fileno()])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    before = len(os.listdir("/proc/self/fd"))
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 2, hard))
        with pytest.raises(DescriptorsLost, match="is the limit of open files too low"):
            b.try_receive()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(os.listdir("/proc/self/fd")) == before
    received = b.try_receive()
    assert received is not None
    assert received[0] == LinkProgress(1, "y")
    os.close(*received[1])


class Exhausted:
    """A socket of a kernel that lacks something for the first `failures` messages."""

    def __init__(self, sock: socket.socket, failures: int) -> None:
        self.sock = sock
        self.failures = failures

    def sendmsg(self, *args: object) -> int:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.ENOBUFS, "No buffer space available")
        return self.sock.sendmsg(*args)  # type: ignore[arg-type]

    def fileno(self) -> int:
        return self.sock.fileno()

    def close(self) -> None:
        self.sock.close()


def test_a_kernel_that_lacks_memory_for_a_moment_delays_a_message_and_ends_nothing(
    ends: tuple[ControlSocket, ControlSocket],
) -> None:
    a, b = ends
    a._sock = Exhausted(a._sock, 3)  # type: ignore[assignment]
    a.send(LinkProgress(1, "x"))
    assert b.try_receive() == (LinkProgress(1, "x"), [])
    a._sock.failures = 1  # type: ignore[attr-defined]
    a.post(LinkProgress(1, "y"))
    assert a.has_pending
    assert a.flush()
    assert b.try_receive() == (LinkProgress(1, "y"), [])
    a._sock.failures = 10**6  # type: ignore[attr-defined]
    with pytest.raises(ControlTimeout):
        a.send(LinkProgress(1, "z"), timeout_s=0.02)
    assert b.try_receive() is None
