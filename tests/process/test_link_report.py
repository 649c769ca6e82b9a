"""What a link says of itself: each opening is closed once, before the one last word. What the opener hears of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from partywire.engine.commands import LinkEnded, LinkEventKind, LinkFailed, LinkNews, LinkProgress
from partywire.engine.connection import ConnectionState
from partywire.engine.control_socket import ControlSocket
from partywire.engine.link_report import LinkReport
from partywire.engine.supervisor import Supervisor
from partywire.engine.topology import PeerSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from partywire.engine.commands import Message

AT = "10.0.0.2:50123"


class Home:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[Message] = []

    def tell(self, message: Message, fds: Sequence[int] = ()) -> None:
        self.told.append(message)

    def fail(self, error: BaseException) -> None:
        raise AssertionError("a report has no bugs of its own") from error


def report() -> tuple[LinkReport, list[Message]]:
    home = Home()
    return LinkReport(home, PeerSpec("bob", 1, "bob.example", 7)), home.told


def news(kind: LinkEventKind, address: str, cause: str = "") -> LinkNews:
    return LinkNews(1, kind.value, address, cause)


def test_a_link_that_is_up_and_ends() -> None:
    for clean, cause in ((True, ""), (False, "it broke")):
        link, told = report()
        link.opened(LinkEventKind.ACCEPTED, AT)
        link.ended(clean, cause or "bob said goodbye")
        assert told == [
            news(LinkEventKind.ACCEPTED, AT),
            news(LinkEventKind.CLOSED, AT, cause),
            LinkEnded(1, clean, cause or "bob said goodbye"),
        ]


def test_every_failed_dial_is_news_and_progress_only_what_changed() -> None:
    link, told = report()
    for state in (ConnectionState.RESOLVING_FAILED, ConnectionState.CONNECTING_FAILED, ConnectionState.BINDING_FAILED):
        link.dial_failed(state, "no luck")
    failed = news(LinkEventKind.CONNECT_FAILED, "bob.example:7", "no luck")
    resolving = news(LinkEventKind.RESOLVE_FAILED, "bob.example:7", "no luck")
    assert told == [resolving, LinkProgress(1, "no luck"), failed, failed]


def test_a_dialled_connection_whose_handshake_fails_did_not_come_about() -> None:
    link, told = report()
    link.attempt_failed(AT, "another party listens there")
    assert told == [news(LinkEventKind.CONNECT_FAILED, AT, "another party listens there")]


def test_nothing_is_said_of_a_strangers_handshake() -> None:
    link, told = report()
    link.attempt_failed("", "a stranger")
    assert told == []


def test_an_attempt_that_was_opened_is_closed_and_the_next_one_opens_again() -> None:
    link, told = report()
    link.opened(LinkEventKind.CONNECTED, AT)
    link.attempt_failed(AT, "lost on the way")
    link.opened(LinkEventKind.CONNECTED, AT)
    link.failed("TIMEOUT", "no link within 1 s")
    assert told == [
        news(LinkEventKind.CONNECTED, AT),
        news(LinkEventKind.CLOSED, AT, "lost on the way"),
        news(LinkEventKind.CONNECTED, AT),
        news(LinkEventKind.CLOSED, AT, "no link within 1 s"),
        LinkFailed(1, "TIMEOUT", "no link within 1 s"),
    ]


def fill(sock: ControlSocket) -> None:
    """Until the kernel takes no more."""
    while not sock.has_pending:
        sock.post(LinkProgress(1, "busy"))


def test_an_opener_that_does_not_read_hears_how_much_it_missed() -> None:
    """News must not fill the room that is left for what the opener needs to hear."""
    ours, theirs = ControlSocket.pair()
    with ControlSocket(ours, "the opener") as opener, ControlSocket(theirs, "the supervisor") as supervisor:
        family = Supervisor(opener, os.pidfd_open(os.getpid()))
        try:
            fill(opener)
            for _ in range(1000):
                family._link_family._tidings.news(news(LinkEventKind.CONNECT_FAILED, AT, "refused"))
            while not opener.flush() or supervisor.try_receive() is not None:
                supervisor.try_receive()
            family._link_family._tidings.news(news(LinkEventKind.ACCEPTED, AT))
            family._link_family._tidings.news(news(LinkEventKind.CLOSED, AT))
            heard = [supervisor.receive(10)[0], supervisor.receive(10)[0]]
        finally:
            family._end_everything()
    missed = LinkNews(1, LinkEventKind.ACCEPTED.value, AT, "", dropped=1000)
    assert heard == [missed, news(LinkEventKind.CLOSED, AT)]
