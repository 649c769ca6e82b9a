"""The gateway: accepts every connection of a party, reads 32 bytes, and hands the descriptor to the right I/O process.

Between strangers and the I/O processes. The one invariant: a stranger costs at most one descriptor for at most
PREAMBLE_TIMEOUT_S, learns nothing, and delays nobody: the gateway never waits for a single socket, and all that wait
have a bound, in which each address has a share (`antechamber`).

A peer whose link speaks iris-mpc's protocol has no preamble: it is told apart at its first byte, and answered here as
far as it takes to hear its name (`iris_handshake`). If it speaks TLS, nothing in the clear tells who it is: it has a
port of its own, and what comes there is handed over as soon as it shows that it begins like TLS.

If the party has a node, a connection that begins with one of the node's first bytes (its network's, and that of
liveness echoes if it gives any) goes to the node's process with nothing read from it. What follows, the node bounds.

A probe (`probe`) is answered here, from what the configuration says, so that no link ever notices one.

It runs on `selectors`, without asyncio, because it must listen as early as possible and does very little. Early dials
need no care: the link socket to an I/O process that is still starting holds them (they are parked in the kernel). The
listening socket belongs to the supervisor, so a new gateway goes on where a dead one stopped.
"""

from __future__ import annotations

import errno
import selectors
import socket
import time
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

from partywire.shm import fence

from . import limits
from .addresses import format_address
from .allowance import Allowance
from .antechamber import Antechamber, origin_of
from .channel.errors import CredentialError
from .channel.link_security import refusal_of_mode, security_of
from .channel.maker import ChannelMaker
from .child_process import begin_child
from .commands import Accepted, CommandError, Refused, Serve
from .control_socket import ControlClosed, ControlSocket, ControlTimeout
from .errors import HandshakeRejected, LinkProtocolError
from .first_bytes import TLS_HANDSHAKE
from .handshake import HandshakeState, Role
from .hello import hello_of
from .iris_handshake import Introducing, may_be_iris
from .preamble import PREAMBLE_SIZE, ConnectionClass, Preamble, SecurityMode
from .probe import Probe
from .secure_probe import RefusedProbe, SecureProbe
from .shortage import Complaint
from .topology import PartySpec, routing_tag

if TYPE_CHECKING:
    from collections.abc import Callable

ProbeAnswer: TypeAlias = Probe | SecureProbe | RefusedProbe
Answers: TypeAlias = "Callable[[Preamble, bytes], ProbeAnswer]"
"""Makes the acceptor's end of a probe from its preamble, decoded and as it came."""

PREAMBLE_TIMEOUT_S: Final = 5.0
"""For 32 bytes that a dialler sends together with its first packet: two lost packets are forgiven. A probe has as long
for everything, the reading of its answer included."""

SECURED_PROBES_PER_S: Final = 100
"""Probes of secured links that are begun; what comes beyond is closed. Each may cost the work of a handshake, most of
it before anything is proven, and who dials for a link would wait for it. `partywire check` makes one for each peer."""

_READ_SIZE: Final = 4096

ACCEPT_BATCH: Final = 64
"""Connections accepted before others are served."""

ACCEPT_PAUSE_S: Final = 0.1
"""How long nothing is accepted once descriptors or memory ran out: the listening socket stays readable meanwhile, so
without a pause this process would spin until somebody else gives something back."""

_OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

REPORT_INTERVAL_S: Final = 0.5
"""Least time between two reports of refused connections, so that a port scan does not flood the supervisor."""


class Waiting:
    """One accepted connection that has not shown its whole preamble."""

    __slots__ = ("address", "deadline", "introducing", "probe", "received", "route", "sock")

    def __init__(self, sock: socket.socket, address: str, deadline: float, route: ControlSocket | None) -> None:
        self.sock = sock
        self.address = address
        self.deadline = deadline
        self.route = route  # set if it came by a peer's own port: where that peer's connections go
        self.received = b""
        self.probe: ProbeAnswer | None = None  # set by a preamble of that class
        self.introducing: Introducing | None = None  # set by the first byte of that protocol

    @property
    def wanted(self) -> int:
        """Bytes that may be read now: exactly to the end of the beginning, since the rest is the I/O process's."""
        if self.probe is not None:
            return _READ_SIZE
        return PREAMBLE_SIZE - len(self.received) if self.introducing is None else self.introducing.missing

    @property
    def is_fresh(self) -> bool:
        """Whether nothing was read yet."""
        return not self.received and self.probe is None and self.introducing is None

    @property
    def is_answered(self) -> bool:
        """Whether it was a probe that has its answer, and is left to read it."""
        return self.probe is not None and self.probe.state in (HandshakeState.DONE, HandshakeState.FAILED)


class Gateway:
    """Listening sockets and their routes. Driven by `do_work`; time comes from the caller."""

    def __init__(
        self,
        listeners: list[socket.socket],
        routes: dict[bytes, ControlSocket],
        answers: dict[bytes, Answers] | None = None,
        unidentified_max: int = limits.UNIDENTIFIED_MAX,
        iris_routes: dict[str, ControlSocket] | None = None,
        peer_listeners: list[tuple[socket.socket, ControlSocket]] | None = None,
        node: tuple[bytes, ControlSocket] | None = None,
    ) -> None:
        """`routes`: routing tag -> link socket of an I/O process. Takes ownership of all.

        `answers`: routing tag -> the acceptor's end of a fresh probe by the peer of that tag. `unidentified_max`: how
        many connections may wait here, a quarter of them from one address. `iris_routes`: like `routes`, by the names
        of peers that dial us in iris-mpc's protocol. `peer_listeners`: listening sockets that are one peer's own, each
        with the link socket of its I/O process. `node`: the first bytes of connections that are our node's, and its
        socket.
        """
        self._node_bytes = b"" if node is None else node[0]
        self._node_route = None if node is None else node[1]
        self._listeners: dict[socket.socket, ControlSocket | None] = dict.fromkeys(listeners)
        self._listeners.update(peer_listeners or [])
        self._answers = answers or {}
        self._routes = routes
        self._iris_routes = iris_routes or {}
        self._selector = selectors.DefaultSelector()
        self._waiting: Antechamber[Waiting] = Antechamber(unidentified_max, unidentified_max // 4)
        self._unknown = self._garbage = self._silent = self._crowded = 0
        self._probes = Allowance(SECURED_PROBES_PER_S)
        self._now = 0.0  # of the present `do_work`
        self._resume_at: float | None = None  # while nothing is accepted for want of descriptors or memory
        self.shortage: OSError | None = None  # the latest such want, until somebody has told of it
        self._listen()

    def fileno(self) -> int:
        """For an outer selector."""
        return self._selector.fileno()

    @property
    def descriptors(self) -> list[int]:
        """Of every socket that is listened on, or has not shown yet whom it wants."""
        waiting = [key.fd for key in self._selector.get_map().values()]
        return [listener.fileno() for listener in self._listeners] + waiting

    @property
    def refused(self) -> Refused:
        """How many connections were closed for what they sent or did not send."""
        return Refused(self._unknown, self._garbage, self._silent, self._crowded)

    @property
    def waiting_count(self) -> int:
        """Connections whose preamble is incomplete."""
        return len(self._waiting)

    def next_deadline(self) -> float | None:
        """When `do_work` must be called again at the latest."""
        oldest = self._waiting.oldest  # all have as long, so its time is up first
        deadlines = [self._resume_at, oldest.deadline if oldest is not None else None]
        return min((at for at in deadlines if at is not None), default=None)

    def _listen(self) -> None:
        for listener in self._listeners:
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ)

    def do_work(self, now: float) -> int:
        """Accept, read and hand over whatever is ready; returns how many sockets moved on. Never waits."""
        work = 0
        self._now = now
        if self._resume_at is not None and now >= self._resume_at:
            self._resume_at = None
            self._listen()
        for key, _ in self._selector.select(0):
            if key.data is None:
                if self._resume_at is None:
                    work += self._accept(key.fd, now)
            elif key.data.sock.fileno() >= 0:  # not closed meanwhile to make room, for another with its number perhaps
                self._read(key.data)
                work += 1
        while (oldest := self._waiting.oldest) is not None and oldest.deadline <= now:
            self._give_up(oldest)
            work += 1
        return work

    def close(self) -> None:
        """Close every socket."""
        while (oldest := self._waiting.oldest) is not None:
            self._drop(oldest)
        self._selector.close()
        for listener in self._listeners:
            listener.close()
        routes = (*self._routes.values(), *self._iris_routes.values(), *self._listeners.values(), self._node_route)
        for route in routes:
            if route is not None:
                route.close()

    def _accept(self, fd: int, now: float) -> int:
        listener, route = next(entry for entry in self._listeners.items() if entry[0].fileno() == fd)
        for count in range(ACCEPT_BATCH):
            try:
                sock, address = listener.accept()
            except OSError as error:
                if error.errno in _OUT_OF_RESOURCES:
                    self.shortage = error
                    self._make_room(now)
                return count  # no more, or the one that came went away again
            sock.setblocking(False)
            waiting = Waiting(sock, address_of(address), now + PREAMBLE_TIMEOUT_S, route)
            if (crowded_out := self._waiting.enter(waiting, origin_of(waiting.address))) is not None:
                self._crowd_out(crowded_out)
            self._selector.register(sock, selectors.EVENT_READ, waiting)
            self._read(waiting)  # the preamble usually came with the connection
        return ACCEPT_BATCH

    def _make_room(self, now: float) -> None:
        """A connection could not be accepted: have one of those go that show nothing, or else wait a moment."""
        if (crowded_out := self._waiting.make_room()) is not None:
            self._crowd_out(crowded_out)
        else:
            self._resume_at = now + ACCEPT_PAUSE_S
            for listener in self._listeners:
                self._selector.unregister(listener)

    def _crowd_out(self, waiting: Waiting) -> None:
        if not waiting.is_answered:
            self._crowded += 1
        self._drop(waiting)

    def _give_up(self, waiting: Waiting) -> None:
        """It took too long, or is over."""
        if not waiting.is_answered:
            self._silent += 1
        self._drop(waiting)

    def _read(self, waiting: Waiting) -> None:
        try:
            if waiting.route is not None:
                data = waiting.sock.recv(len(TLS_HANDSHAKE), socket.MSG_PEEK)  # all of it is the I/O process's
            elif self._is_for_node(waiting):
                self._hand_over(waiting, self._node_route, b"")
                return
            else:
                data = waiting.sock.recv(waiting.wanted)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._give_up(waiting)
            return
        if waiting.route is not None:
            self._pass_on(waiting, waiting.route, data)
            return
        if waiting.probe is not None:
            self._answer(waiting, waiting.probe, data)
            return
        if waiting.introducing is None and not waiting.received and self._iris_routes and may_be_iris(data):
            waiting.introducing = Introducing()
        if waiting.introducing is not None:
            self._introduce(waiting, waiting.introducing, data)
            return
        waiting.received += data
        try:
            preamble = Preamble.decode_untrusted(waiting.received)
        except LinkProtocolError:
            self._garbage += 1
            self._drop(waiting)
            return
        if preamble is None:
            return
        if preamble.connection_class is ConnectionClass.PROBE:
            self._begin_probe(waiting, preamble)
        else:
            self._hand_over(waiting, self._routes.get(preamble.routing_tag), waiting.received)

    def _is_for_node(self, waiting: Waiting) -> bool:
        """Whether it begins like the node's. Raises as `recv` does."""
        if self._node_route is None or not waiting.is_fresh:
            return False
        first = waiting.sock.recv(1, socket.MSG_PEEK)  # which is the node's to read, with all that follows
        return bool(first) and first in self._node_bytes

    def _pass_on(self, waiting: Waiting, route: ControlSocket, first: bytes) -> None:
        """A connection that came by a peer's own port, and what it begins with."""
        if first == TLS_HANDSHAKE:
            self._hand_over(waiting, route, b"")
        else:
            self._garbage += 1
            self._drop(waiting)

    def _introduce(self, waiting: Waiting, introducing: Introducing, data: bytes) -> None:
        """More of what a connection of iris-mpc's protocol begins with."""
        try:
            introducing.receive_data(data)
        except LinkProtocolError:
            self._garbage += 1
            self._drop(waiting)
            return
        echo, introduction = introducing.data_to_send(), introducing.result
        try:
            is_said = not echo or waiting.sock.send(echo) == len(echo)
        except OSError:
            is_said = False
        if not is_said:
            self._drop(waiting)
        elif introduction is not None:
            self._hand_over(waiting, self._iris_routes.get(introduction.name), introducing.received)

    def _begin_probe(self, waiting: Waiting, preamble: Preamble) -> None:
        answer = self._answers.get(preamble.routing_tag)
        if answer is None:
            self._unknown += 1
            self._drop(waiting)
            return
        if preamble.mode is not SecurityMode.PLAINTEXT and not self._probes.take(self._now):
            self._crowd_out(waiting)
            return
        try:
            waiting.probe = answer(preamble, waiting.received)
        except CredentialError:
            self._drop(waiting)  # no link can be made either, and whoever runs this party has been told why
            return
        self._read(waiting)  # the question usually came with the preamble

    def _answer(self, waiting: Waiting, probe: ProbeAnswer, data: bytes) -> None:
        if waiting.is_answered:
            self._drop(waiting)  # whatever it says, nobody asked for it
            return
        try:
            probe.receive_data(data)
        except HandshakeRejected:
            pass  # the prober is told
        except LinkProtocolError:
            self._garbage += 1
        answer = probe.data_to_send()
        if answer and not _say(waiting.sock, answer, is_last=waiting.is_answered):
            self._drop(waiting)

    def _hand_over(self, waiting: Waiting, route: ControlSocket | None, beginning: bytes) -> None:
        if route is None:
            self._unknown += 1
        else:
            try:
                # No waiting: what the kernel does not park at once is dialled again.
                route.send(Accepted(beginning, waiting.address), [waiting.sock.fileno()], timeout_s=0)
            except (ControlClosed, ControlTimeout):
                pass  # its I/O process is gone, or hundreds of dials wait for it: this dialler comes again
        self._drop(waiting)

    def _drop(self, waiting: Waiting) -> None:
        self._waiting.leave(waiting)
        self._selector.unregister(waiting.sock)
        waiting.sock.close()


def _say(sock: socket.socket, data: bytes, *, is_last: bool) -> bool:
    """Send all of `data` at once; a fresh socket has room for an answer many times over.

    After the last of it the socket stays open until its peer has closed it: closing first could destroy what was not
    read yet.
    """
    try:
        if sock.send(data) != len(data):
            return False
        if is_last:
            sock.shutdown(socket.SHUT_WR)
    except OSError:
        return False
    return True


def address_of(sockaddr: object) -> str:
    """What `accept` gave, as text; whoever comes by a unix socket has no name."""
    return format_address((str(sockaddr[0]), int(sockaddr[1]))) if isinstance(sockaddr, tuple) else "a unix socket"


def serve(control: ControlSocket, gateway: Gateway, complaint: Complaint) -> None:
    """Run until the supervisor ends its control socket. What is short is said by `complaint`."""
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        selector.register(gateway, selectors.EVENT_READ)
        reported = Refused(0, 0, 0)
        report_at = 0.0
        while True:
            now = time.monotonic()
            if gateway.refused != reported and now >= report_at:
                reported, report_at = gateway.refused, now + REPORT_INTERVAL_S
                control.post(reported)
            deadlines = [gateway.next_deadline(), report_at if gateway.refused != reported else None]
            due = min((at for at in deadlines if at is not None), default=None)
            for key, _ in selector.select(None if due is None else max(0.0, due - now)):
                if key.fileobj is control:
                    control.try_receive()  # the supervisor says nothing more; this raises at its end
            gateway.do_work(time.monotonic())
            if gateway.shortage is not None:
                complaint.about("a connection cannot be accepted", gateway.shortage, time.monotonic())
                gateway.shortage = None


def make_routes(party: PartySpec, peers: list[int], sockets: list[ControlSocket]) -> dict[bytes, ControlSocket]:
    """Routing tags of the peers that dial us with a preamble."""
    routes = zip((party.parties[peer] for peer in peers), sockets, strict=True)
    return {routing_tag(party.name, peer.name): sock for peer, sock in routes if peer.iris is None}


def make_iris_routes(party: PartySpec, peers: list[int], sockets: list[ControlSocket]) -> dict[str, ControlSocket]:
    """Names of the peers that dial us in iris-mpc's protocol, in the clear."""
    routes = zip((party.parties[peer] for peer in peers), sockets, strict=True)
    return {peer.name: sock for peer, sock in routes if peer.iris is not None and not peer.iris.tls}


def make_answers(command: Serve) -> dict[bytes, Answers]:
    """Routing tags of all peers that know probes, also of those that we dial, with what answers a probe of each."""
    party = command.party

    def answer(
        peer: str, mode: SecurityMode, channels: ChannelMaker, preamble: Preamble, received: bytes
    ) -> ProbeAnswer:
        if (refusal := refusal_of_mode(party.name, peer, mode, preamble.mode)) is not None:
            return RefusedProbe(refusal)
        hello = hello_of(party, peer, command.workers, command.options)
        probe = Probe(Role.RESPONDER, hello, int(time.time() * 1000))
        if mode is SecurityMode.PLAINTEXT:
            return probe
        return SecureProbe(channels.make(Role.RESPONDER, received), probe)

    answers: dict[bytes, Answers] = {}
    for peer in party.peers:
        if peer.iris is None:
            security = security_of(command.options.security, peer.index)
            channels = ChannelMaker(party.name, peer.name, security)
            tag = routing_tag(party.name, peer.name)
            answers[tag] = partial(answer, peer.name, security.security_mode, channels)
    return answers


def make_gateway(command: Serve, fds: list[int]) -> Gateway:
    """What a Serve asks for, of the descriptors beside it.

    Raises:
        CommandError: they are not as many as it says.
    """
    shared, own = command.listeners, len(command.peer_listeners)
    linked = shared + own + len(command.peers)
    if len(fds) != linked + bool(command.node_bytes):
        raise CommandError(f"Serve with {len(fds)} descriptors")
    listeners = [socket.socket(fileno=fd) for fd in fds[: shared + own]]
    sockets = [
        ControlSocket.from_fd(fd, f"the I/O process of {command.party.parties[peer].name}")
        for peer, fd in zip(command.peers, fds[shared + own : linked], strict=True)
    ]
    node = [(command.node_bytes, ControlSocket.from_fd(fd, "the node")) for fd in fds[linked:]]
    links = dict(zip(command.peers, sockets, strict=True))
    return Gateway(
        listeners[:shared],
        make_routes(command.party, command.peers, sockets),
        make_answers(command),
        command.options.unidentified_max,
        make_iris_routes(command.party, command.peers, sockets),
        [(sock, links[peer]) for sock, peer in zip(listeners[shared:], command.peer_listeners, strict=True)],
        node[0] if node else None,
    )


def main() -> None:
    """The program of the gateway process."""
    fence.register()
    with ControlSocket.from_fd(begin_child(), "the supervisor") as control:
        try:
            command, fds = control.receive(60.0)
            if not isinstance(command, Serve):
                raise CommandError(f"{type(command).__name__} instead of Serve")
            gateway = make_gateway(command, fds)
            try:
                serve(control, gateway, Complaint(command.party.name, "the gateway"))
            finally:
                gateway.close()
        except ControlClosed:
            pass  # the supervisor ends, or has died
