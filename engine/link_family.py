"""The supervisor's part in the party's links: its I/O processes and its gateway, what they say, what their ends mean.

Between the Supervisor, which owns every child and decides whether one that died is replaced, these processes, and the
opener and the workers, who use the links. The one invariant: no epoch of a link that was up comes a second time,
whatever process serves it, and between the lanes from a process that died and those from the next, whoever uses its
links hears that they are lost.

Lanes and losses are held for whoever does not read; what the opener may miss is counted instead (`tidings`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from .bulk_commands import BulkFailed, BulkLane
from .children import Kind
from .commands import (
    CommandError,
    DropWorker,
    Lanes,
    LinkEnded,
    LinkEventKind,
    LinkFailed,
    LinkLost,
    LinkNews,
    LinkProgress,
    Refused,
)
from .restarts import STAYS_AWAY
from .tidings import Tidings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .bulk_commands import OpenBulk
    from .children import Child, Children
    from .commands import Message, RemakeLink, Start
    from .control_socket import ControlSocket
    from .node_family import NodeFamily
    from .shared_parts import SharedParts

GATEWAY_MODULE: Final = "partywire.engine.gateway"
IO_PROCESS_MODULE: Final = "partywire.engine.io_process"


class LinkSteps(NamedTuple):
    """What the supervisor does for this part of it."""

    send: Callable[[ControlSocket, Message, Sequence[int]], None]
    """Sends or holds a message; never waits."""
    ask: Callable[[ControlSocket, Message, Sequence[int]], bool]
    """Sends what may as well not be sent; False: there is a process that does not read."""
    tell_workers: Callable[[Message], None]
    """Sends or holds a message for each worker, the opener among them."""
    note: Callable[[Message], None]
    """Lets those who read figures see it."""


class LinkFamily:
    """Driven by the supervisor, at its single thread. Holds nothing that has to be given back."""

    def __init__(self, steps: LinkSteps, opener: ControlSocket, children: Children, parts: SharedParts) -> None:
        self._steps = steps
        self._opener = opener
        self._children = children
        self._parts = parts
        self._epochs: dict[int, int] = {}  # peers whose link was up -> the least epoch of its next attempt
        self._tidings = Tidings(lambda message: steps.ask(opener, message, ()), parts.gateway_ends)

    # I/O processes.

    def start_process(self, start: Start, peers: list[int]) -> str:
        """Start the I/O process of some links, for the first time or again. Returns its role.

        Raises:
            OSError: the machine cannot.
        """
        role = f"{Kind.LINK.value}{'s' if len(peers) > 1 else ''} {', '.join(map(str, peers))}"
        child = self._children.start(Kind.LINK, peers[0], IO_PROCESS_MODULE, role)
        child.links.update(peers)
        self._steps.send(child.control, *self._parts.open_links(start, peers, self._epochs))
        return role

    def hear(self, child: Child, message: Message, fds: Sequence[int], *, is_closing: bool) -> str:
        """An I/O process said something of its links. The descriptors stay the caller's. Returns what there is to
        complain of.

        Raises:
            CommandError: it is not an I/O process's to say.
        """
        match message:
            case Lanes(worker=worker, peer=peer, epoch=epoch):
                self._tidings.settled(peer)
                self._epochs[peer] = epoch + 1
                self._send_to_worker(worker, message, fds)
            case BulkLane(worker=worker):
                self._send_to_worker(worker, message, fds)
            case BulkFailed():
                self._steps.send(self._opener, message, ())
            case LinkProgress(peer, cause):
                self._tidings.progress(peer, cause)
            case LinkFailed(peer):
                child.links.discard(peer)
                self._tidings.settled(peer)
                self._steps.send(self._opener, message, ())
            case LinkNews():
                _note_connected(child, message)
                self._tidings.news(message)
            case LinkEnded(peer, clean, cause):
                if is_closing:
                    child.links.discard(peer)
                    return "" if clean else cause
            case _:
                raise CommandError(f"{type(message).__name__} from an I/O process")
        return ""

    def on_end(self, start: Start, child: Child, cause: str, *, is_closing: bool, is_replaced: bool) -> str:
        """An I/O process that had links has ended, and they with it; `cause` is empty if it ended as it should.
        `is_replaced`: another one follows. Returns what there is to complain of."""
        names = [start.party.parties[peer].name for peer in sorted(child.links)]
        whose = f"link to {names[0]}" if len(names) == 1 else f"links to {', '.join(names)}"
        reason = f"our I/O process of the {whose} {cause or ('ended' if is_closing else 'ended unexpectedly')}"
        for peer, address in child.connected.items():
            self._tidings.news(LinkNews(peer, LinkEventKind.CLOSED.value, address, reason))
        if is_closing and not cause:
            return ""
        for peer in sorted(child.links):
            self._tidings.settled(peer)
            lost = LinkLost(peer, reason if is_replaced or is_closing else reason + STAYS_AWAY)
            self._steps.note(lost)
            self._steps.tell_workers(lost)
        return reason if is_closing else ""

    def pass_on(self, message: RemakeLink | OpenBulk) -> None:
        """To the I/O process of the link that a worker or the opener speaks of; to nobody if that is over."""
        for child in self._children:
            if message.peer in child.links:
                self._steps.send(child.control, message, ())

    def drop_worker(self, index: int, cause: str, *, is_replaced: bool) -> None:
        """A worker has ended, and its end of the rings of every link with it."""
        for child in self._children:
            if child.kind is Kind.LINK:
                self._steps.send(child.control, DropWorker(index, cause, is_replaced), ())

    def _send_to_worker(self, worker: int, message: Message, fds: Sequence[int]) -> None:
        target = self._opener if worker == 0 else self._children.worker(worker)
        if target is not None:
            self._steps.send(target, message, fds)

    # The gateway.

    def start_gateway(self, start: Start, node: NodeFamily | None) -> None:
        """Start the gateway, for the first time or again.

        Raises:
            OSError: the machine cannot.
        """
        child = self._children.start(Kind.GATEWAY, 0, GATEWAY_MODULE)
        self._steps.send(child.control, *self._parts.serve(start, node))

    def hear_gateway(self, message: Message) -> None:
        """The gateway said something.

        Raises:
            CommandError: it is not a gateway's to say.
        """
        if not isinstance(message, Refused):
            raise CommandError(f"{type(message).__name__} from a gateway")
        self._steps.note(self._tidings.refused(message))

    def gateway_ended(self) -> None:
        """Another one counts strangers from zero."""
        self._tidings.gateway_ended()


def _note_connected(child: Child, news: LinkNews) -> None:
    if news.kind == LinkEventKind.CLOSED.value:
        child.connected.pop(news.peer, None)
    elif news.kind in (LinkEventKind.ACCEPTED.value, LinkEventKind.CONNECTED.value):
        child.connected[news.peer] = news.address
