"""All links of a party in the opener's own process: supervisor, gateway and I/O process as objects of one LinkLoop.

Between the opener's worker, which drives it, strangers, and the parties of the peers. The one invariant: towards the
opener it keeps the contract of a supervisor, on a control socket of the same kind; towards peers and strangers the same
code keeps the same bounds as in processes of their own.

What processes buy is not here: nobody answers heartbeats while the opener computes, nothing is started again, and what
strangers do at the door takes the opener's time.
"""

from __future__ import annotations

import asyncio
import os
import time
import traceback
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from partywire.shm import fence
from partywire.shm.doorbell import Bell, create_doorbell

from ..addresses import parse_address
from ..bulk_commands import OpenBulk
from ..commands import (
    Close,
    LinkEnded,
    LinkFailed,
    LinkProgress,
    OpenLinks,
    Refused,
    RemakeLink,
    Serve,
    Started,
    Stopped,
    Welcome,
)
from ..control_socket import ControlClosed, ControlSocket, ControlTimeout, close_all
from ..gateway import REPORT_INTERVAL_S, make_gateway
from ..keeper import EXIT_TIMEOUT_S
from ..link_transport import transport_of
from ..listening import Listening, open_listening
from ..topology import dials
from .loop import LinkLoop
from .multiplexer import InProcessKeeper

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from ..bulk_commands import BulkFailed, BulkLane
    from ..commands import Lanes, LinkClaimed, LinkNews, Start
    from ..gateway import Gateway
    from ..pump_states import JoinedLane
    from .loop import Watcher

ROLE: Final = "the links in this process"


class Welcomed(NamedTuple):
    """What a worker is made of. Whoever has it owns the socket and both descriptors."""

    control: ControlSocket
    welcome: Welcome
    doorbell: list[int]


class InProcessLinks:
    """Driven by the worker of the opener. `end` gives everything back, whatever state it is in."""

    def __init__(self, start: Start, listener: socket.socket | None) -> None:
        """Listens. `listener` stays the caller's.

        Raises:
            ListenError: our address cannot be listened on.
            OSError, ShmError: the machine lacks something.
        """
        self.loop = LinkLoop()
        self._listening = Listening()
        self._untaken: Welcomed | None = None  # until the worker has it
        self._opener: ControlSocket | None = None
        self._keepers: list[InProcessKeeper] = []
        self._runs: list[asyncio.Task[None]] = []
        self._bells: list[Bell] = []
        self._gateway: Gateway | None = None
        self._gateway_timer: asyncio.TimerHandle | None = None
        self._refused = Refused(0, 0, 0)  # as last told
        self._refused_at = 0.0  # when the next may be told
        self._is_closing = False
        self._is_over = False
        self._complaints: list[str] = []
        try:
            self._begin(start, listener)
        except BaseException:
            self.end()
            raise

    def _begin(self, start: Start, listener: socket.socket | None) -> None:
        self.loop.set_exception_handler(self._on_bug)
        if listener is not None:
            self._listening.adopt(listener.dup())
        else:
            self._listening = open_listening([parse_address(text, listening=True, port_min=0) for text in start.listen])
        ours, theirs = ControlSocket.pair()
        self._opener = ControlSocket(ours, "the opener")
        control = ControlSocket(theirs, ROLE)
        doorbell = create_doorbell()
        self._untaken = Welcomed(control, Welcome(0, 1, start.party, start.options, None), list(doorbell))
        self._bells = [Bell.from_fds(*map(os.dup, doorbell))]
        self._make_links(start)

    def _make_links(self, start: Start) -> None:
        party = start.party
        peers = [peer.index for peer in party.peers]
        command = OpenLinks(party, peers, 1, start.options)
        pairs = {peer: ControlSocket.pair() for peer in peers if dials(party.parties[peer].name, party.name)}
        fence_ = fence.probe()
        transport = transport_of(self.loop, command.options)
        for peer in peers:
            accepted = ControlSocket(pairs[peer][1], "the gateway") if peer in pairs else None
            self._keepers.append(
                InProcessKeeper(self, self.loop, command, peer, self._bells, fence_, accepted, transport)
            )
        listeners = [os.dup(sock.fileno()) for sock in self._listening.sockets]
        serve = Serve(party, sorted(pairs), len(listeners), 1, start.options)
        self._gateway = make_gateway(serve, [*listeners, *(pairs[peer][0].detach() for peer in sorted(pairs))])

    # Driven by the worker.

    def take_welcome(self) -> Welcomed:
        """What the opener's worker is made of, once; it is the caller's."""
        welcomed, self._untaken = self._untaken, None
        assert welcomed is not None
        return welcomed

    def begin(self, watcher: Watcher) -> None:
        """Make the links, in turns that `watcher` gives from now on."""
        assert self._opener is not None
        assert self._gateway is not None
        self.loop.attach(watcher)
        self.loop.add_reader(self._opener.fileno(), self._on_command)
        self.loop.add_reader(self._gateway.fileno(), self._serve_gateway)
        for keeper in self._keepers:
            run = self.loop.create_task(keeper.run())
            run.add_done_callback(self._link_over)
            self._runs.append(run)
        self._post(Started({}))

    def hold(self) -> None:
        """The worker publishes; `serve` follows."""
        for keeper in self._keepers:
            if (multiplexer := keeper.multiplexer) is not None:
                multiplexer.hold()

    def serve(self) -> None:
        """Give what the worker has published to the kernel. Never waits."""
        for keeper in self._keepers:
            if (multiplexer := keeper.multiplexer) is not None:
                multiplexer.serve()

    def join(self, peer: int, connection: int, epoch: int, lane: JoinedLane) -> bool:
        """Have a lane of the worker pass bytes by its rings. False: what moves them is not there yet."""
        for keeper in self._keepers:
            if keeper.peer == peer and (multiplexer := keeper.multiplexer) is not None:
                return multiplexer.join(connection, epoch, lane)
        return False

    def joined_fds(self) -> set[int]:
        """What the worker takes in at once when it is readable, frame by frame."""
        fds: set[int] = set()
        for keeper in self._keepers:
            if (multiplexer := keeper.multiplexer) is not None:
                fds |= multiplexer.joined_fds
        return fds

    def forsake(self, cause: str) -> None:
        """Lose all links at once: nobody knows what of their bytes was moved. They are made anew."""
        for keeper in self._keepers:
            if (multiplexer := keeper.multiplexer) is not None:
                try:
                    multiplexer.break_off(cause)
                except Exception as error:
                    self.fail(error)

    @property
    def is_due(self) -> bool:
        """Whether a turn would do something without waiting for a descriptor."""
        return self.loop.is_due or self.loop.next_deadline() <= self.loop.time()

    def detach(self) -> None:
        """The worker is over; `end` follows."""
        self.loop.detach()

    def leave_to_parent(self) -> None:
        """This process is a fork of the worker's: let go of the sockets, or peers would not see the end of the parent
        while this process lives, and nobody could listen where it did. Nothing else is touched.

        Objects here go on knowing the descriptors by their numbers, so that these are kept, for /dev/null; and nothing
        is finalised, even at the end of the interpreter: the end of a task would close rings, which are the parent's.
        """
        gateway = () if self._gateway is None else self._gateway.descriptors
        listening = [sock.fileno() for sock in self._listening.sockets]
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for fd in {*self.loop.leave_to_parent(), *gateway, *listening}:
            os.dup2(nothing, fd, inheritable=False)
        os.close(nothing)
        _keep_for_ever(self)

    # What the opener says.

    def _on_command(self) -> None:
        assert self._opener is not None
        try:
            self._opener.flush()
            while (received := self._opener.try_receive()) is not None:
                command, fds = received
                close_all(fds)
                if isinstance(command, Close):
                    self._begin_close()
                elif isinstance(command, RemakeLink):
                    for keeper in self._keepers:
                        keeper.remake(command)
                elif isinstance(command, OpenBulk):
                    for keeper in self._keepers:
                        keeper.open_bulk(command)
        except ControlClosed:
            self._hang_up()  # the worker is closed; `end` follows

    def _begin_close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            self._close_gateway()
            for keeper in self._keepers:
                keeper.begin_close()

    def _link_over(self, run: asyncio.Task[None]) -> None:
        if not run.cancelled() and (error := run.exception()) is not None:
            self.fail(error)
        elif self._is_closing and all(other.done() for other in self._runs):
            self._post(Stopped(self._complaints))

    # What links say (Home).

    def tell(
        self,
        message: LinkProgress | LinkFailed | LinkEnded | LinkNews | LinkClaimed | Lanes | BulkLane | BulkFailed,
        fds: Sequence[int] = (),
    ) -> None:
        """Send to the opener what a supervisor would pass on."""
        if not isinstance(message, LinkEnded):
            self._post(message, fds)
        elif self._is_closing and not message.clean:
            self._complaints.append(message.cause)

    def fail(self, error: BaseException) -> None:
        """A bug: the party fails, and the traceback is told."""
        traceback.print_exception(error)
        self._hang_up()

    def _on_bug(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An exception escaped from a callback."""
        self.fail(context.get("exception") or RuntimeError(context["message"]))

    def _post(self, message: Any, fds: Sequence[int] = ()) -> None:
        if self._opener is None:
            return
        try:
            self._opener.post(message, fds)
        except (ControlClosed, ControlTimeout):
            self._hang_up()

    def _hang_up(self) -> None:
        opener, self._opener = self._opener, None
        if opener is not None:
            self.loop.remove_reader(opener.fileno())
            opener.close()

    # Who dials us.

    def _serve_gateway(self) -> None:
        gateway = self._gateway
        if gateway is None:
            return
        now = time.monotonic()
        gateway.do_work(now)
        self._tell_refused(now)
        if self._gateway_timer is not None:
            self._gateway_timer.cancel()
            self._gateway_timer = None
        if (deadline := gateway.next_deadline()) is not None:
            self._gateway_timer = self.loop.call_later(max(0.0, deadline - now), self._serve_gateway)

    def _tell_refused(self, now: float) -> None:
        assert self._gateway is not None
        if self._gateway.refused != self._refused and now >= self._refused_at:
            self._refused, self._refused_at = self._gateway.refused, now + REPORT_INTERVAL_S
            self._post(self._refused)

    def _close_gateway(self) -> None:
        gateway, self._gateway = self._gateway, None
        if gateway is not None:
            self.loop.remove_reader(gateway.fileno())
            gateway.close()
        if self._gateway_timer is not None:
            self._gateway_timer.cancel()

    # Ending.

    def end(self) -> None:
        """Close every socket and ring at once; what was not said is not said any more. May be called again."""
        if self._is_over:
            return
        self._is_over = True
        for run in self._runs:
            run.cancel()
        self.loop.detach()
        if self._runs:
            self.loop.complete(asyncio.wait(self._runs, timeout=2 * EXIT_TIMEOUT_S))
        for keeper in self._keepers:
            keeper.discard()  # there was no turn for it
        self._close_gateway()
        self._hang_up()
        for bell in self._bells:
            bell.close()
        if self._untaken is not None:
            self._untaken.control.close()
            close_all(self._untaken.doorbell)
        self._listening.close()
        self.loop.close()


def _keep_for_ever(thing: object) -> None:
    import ctypes  # only here: few processes fork

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
