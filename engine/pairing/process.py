"""The pair engine: the one process behind a pool of a plain script, gateway and I/O process of all its links.

Between the opener (a pool, which gives it peers and listening sockets), strangers, and the pools of the peers. The one
invariant: it lives no longer than its opener and leaves nothing behind; what one peer does, or a stranger, ends no link
with another.

Everything runs in one uvloop. The gateway (`gateway.Gateway`) accepts and reads preambles as it does for a party,
within the same bounds; what it hands over stays in this process, and goes through a socket pair like everybody's.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from typing import TYPE_CHECKING, Any, Final

import uvloop

from partywire.shm import fence
from partywire.shm.doorbell import Bell

from .. import tcp
from ..callers import Callers
from ..channel.errors import CredentialError
from ..child_process import begin_child, parent_pidfd
from ..commands import Accepted, Close, CommandError
from ..control_socket import ControlClosed, ControlSocket, close_all
from ..errors import HandshakeRejected, RejectCode
from ..gateway import Gateway
from ..greeting import GreetingFailed
from ..handed_over import handed_over
from ..link_options import LinkOptions
from ..link_report import STRANGERS_INTERVAL_S
from ..preamble import Preamble, SecurityMode
from ..topology import routing_tag
from .introducer import be_introduced, words_of
from .meeting import INTRODUCTION_TAG
from .pair import Pair
from .pair_commands import AddPair, ListenPairs, StartPairs
from .turned_away import TurnedAway
from .whereabouts import host_of

if TYPE_CHECKING:
    from .meeting import Introduction, Refusal
    from .pair_keeper import PairKeeper
    from .pool_tls import PoolChannel, PoolTls

START_TIMEOUT_S: Final = 60.0
"""For the opener's first word, which it sends at once; a machine that swaps may take long to run either of us."""

INTRODUCTIONS_AT_ONCE: Final = 16
"""That one address may have under way: pools of one host behind one address introduce themselves at once."""


class PairEngine:
    """Driven by the opener's commands, by its gateway, and by its pairs, whose surroundings it is."""

    def __init__(self, loop: asyncio.AbstractEventLoop, control: ControlSocket, command: StartPairs) -> None:
        self.loop = loop
        self.transport = tcp.TcpTransport(loop)
        self.fence = fence.probe()
        security = command.security
        self.options = LinkOptions(
            ring_size=command.ring_size,
            message_size_max=command.message_size_max,
            security=(security, security),
        )
        self.tls: PoolTls | None = None
        if security.security_mode is SecurityMode.TLS:
            from .pool_tls import PoolTls  # only here: without it the process starts faster

            self.tls = PoolTls(security)
        self.port = 0
        self._control = control
        self._pairs: list[Pair] = []
        self._keepers: dict[bytes, PairKeeper] = {}  # by routing tag
        self._gateway: Gateway | None = None
        gateway, accepted = ControlSocket.pair()
        self._to_us = ControlSocket(gateway, "the pair engine")  # the gateway's end
        self._accepted = ControlSocket(accepted, "the gateway")
        self._routes: dict[bytes, ControlSocket] = {INTRODUCTION_TAG: self._to_us}
        self._gateway_timer: asyncio.TimerHandle | None = None
        self._callers = Callers(1, INTRODUCTIONS_AT_ONCE)
        self._introductions: set[asyncio.Task[None]] = set()
        self.turned_away = TurnedAway()
        self._strangers_at = 0.0  # when the next stranger may be told of
        self._over: asyncio.Future[None] = loop.create_future()
        self._closing: asyncio.Task[None] | None = None
        loop.set_exception_handler(self._on_bug)

    @property
    def pair_count(self) -> int:
        """How many pairs share the process."""
        return len(self._pairs)

    async def run(self, opener_pidfd: int) -> None:
        """Until the opener says so and all links are over, or it has ended."""
        self.loop.add_reader(self._control.fileno(), self._on_command)
        self.loop.add_reader(opener_pidfd, self._end)
        self.loop.add_reader(self._accepted.fileno(), self._on_accepted)
        try:
            await self._over
        finally:
            for fd in (self._control.fileno(), opener_pidfd, self._accepted.fileno()):
                self.loop.remove_reader(fd)
            self._close_gateway()
            for task in self._introductions:
                task.cancel()
            if self._closing is not None:
                self._closing.cancel()
            await asyncio.gather(*(pair.close() for pair in self._pairs))
            self._to_us.close()
            self._accepted.close()

    # The opener.

    def _on_command(self) -> None:
        try:
            while (received := self._control.try_receive()) is not None:
                self._obey(*received)
        except ControlClosed:
            self._end()  # the opener is gone

    def _obey(self, command: object, fds: list[int]) -> None:
        if isinstance(command, AddPair) and len(fds) == 3:
            control = ControlSocket.from_fd(fds[0], "the opener")
            self._pairs.append(Pair(self, command, control, Bell.from_fds(fds[1], fds[2])))
        elif isinstance(command, ListenPairs) and fds and self._gateway is None:
            self._listen(command.port, [socket.socket(fileno=fd) for fd in fds])
        elif isinstance(command, Close) and not fds and self._closing is None:
            self._closing = self.loop.create_task(self._close())
        else:
            close_all(fds)
            self.fail(CommandError(f"{type(command).__name__} with {len(fds)} descriptors"))

    async def _close(self) -> None:
        self._close_gateway()
        for pair in self._pairs:
            pair.begin_close()
        await asyncio.gather(*(pair.wait_closed() for pair in self._pairs))
        self._end()

    def _end(self) -> None:
        if not self._over.done():
            self._over.set_result(None)

    def fail(self, error: BaseException) -> None:
        """A bug: better no process than one that serves half a pool. It ends with its traceback."""
        if not self._over.done():
            self._over.set_exception(error)

    def _on_bug(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An exception escaped from a callback."""
        self.fail(context.get("exception") or RuntimeError(context["message"]))

    # Who dials us.

    def _listen(self, port: int, listeners: list[socket.socket]) -> None:
        self.port = port
        self._gateway = Gateway(listeners, self._routes)
        self.loop.add_reader(self._gateway.fileno(), self._serve_gateway)

    def _serve_gateway(self) -> None:
        gateway = self._gateway
        if gateway is None:
            return
        now = time.monotonic()
        gateway.do_work(now)
        if self._gateway_timer is not None:
            self._gateway_timer.cancel()
            self._gateway_timer = None
        if (deadline := gateway.next_deadline()) is not None:
            self._gateway_timer = self.loop.call_later(max(0.0, deadline - now), self._serve_gateway)

    def _close_gateway(self) -> None:
        gateway, self._gateway = self._gateway, None
        if gateway is not None:
            self.loop.remove_reader(gateway.fileno())
            gateway.close()
        if self._gateway_timer is not None:
            self._gateway_timer.cancel()

    def _on_accepted(self) -> None:
        try:
            for accepted, sock in handed_over(self._accepted):
                self._take(accepted, sock)
        except ControlClosed:
            self.loop.remove_reader(self._accepted.fileno())  # with the gateway, as the pool closes

    def _take(self, accepted: Accepted, sock: socket.socket) -> None:
        preamble = Preamble.decode_untrusted(accepted.preamble)
        assert preamble is not None  # the gateway routes complete ones only
        if preamble.routing_tag != INTRODUCTION_TAG:
            if (keeper := self._keepers.get(preamble.routing_tag)) is not None:
                keeper.take_accepted(accepted.preamble, sock)
            else:
                sock.close()  # it ended meanwhile
            return
        try:
            tcp.tune(sock)
        except OSError:
            sock.close()  # gone already
            return
        stream = tcp.TcpStream(sock, self.loop)
        task = self.loop.create_task(self._be_introduced(stream, accepted))
        task.add_done_callback(lambda task: stream.close() if task.cancelled() else None)
        self._introductions.add(task)
        task.add_done_callback(self._introduction_over)
        self._callers.enter(task, accepted.address)

    def _introduction_over(self, task: asyncio.Task[None]) -> None:
        self._introductions.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    async def _be_introduced(self, stream: tcp.TcpStream, accepted: Accepted) -> None:
        place = host_of(accepted.address)
        who = f"at {place}"
        met: list[tuple[Pair, Introduction, Introduction, str]] = []

        def answer(theirs: Introduction, channel: PoolChannel | None) -> Introduction | Refusal:
            """Who was heard is one of our peers, or is told why not."""
            nonlocal who
            who = (channel is not None and channel.result) or f"{who}, port {theirs.port}"
            pair = self._find(accepted.address, place, theirs, channel)
            if not isinstance(pair, Pair):
                return pair
            if (refusal := pair.refusal_of(theirs)) is not None:
                return refusal
            fingerprint = "" if channel is None else channel.result or ""
            met.append((pair, pair.introduction, theirs, fingerprint))
            return pair.introduction

        try:
            await be_introduced(self.loop, stream, accepted.preamble, self.tls, answer)
            for pair, ours, theirs, fingerprint in met:
                self.turned_away.forget(who)
                # Not before the answer was read: who does not know us yet would turn away what we dial.
                if pair.refusal_of(theirs) is None:
                    pair.met(ours, theirs, fingerprint)
        except (HandshakeRejected, GreetingFailed, CredentialError, OSError) as error:
            self._turn_away(error, who, place)

    def _turn_away(self, error: Exception, who: str, place: str) -> None:
        """Few of a crowd are told of, so that it cannot fill what the opener has to read."""
        words = words_of(error)
        if isinstance(error, HandshakeRejected):
            if error.code is RejectCode.BUSY:
                return  # it comes again
            words = error.detail if error.by_us else words
        self.turned_away.note(who, words, place)
        now = self.loop.time()
        if now >= self._strangers_at:
            self._strangers_at = now + STRANGERS_INTERVAL_S
            for pair in self._pairs:
                pair.callers_were_turned_away()

    def _find(self, address: str, place: str, theirs: Introduction, channel: PoolChannel | None) -> Pair | Refusal:
        """The peer whose certificate was shown; of those without one, the peer at the address that was told."""
        there = [pair for pair in self._pairs if pair.is_at(place, theirs.port)]
        where = _where(address, theirs.port)
        if channel is None:
            known = there
            seen = "a pool"
        else:
            from .pool_tls import describe_untrusted

            shown = channel.result or ""
            certified = [pair for pair in self._pairs if pair.certificate]
            matching = [pair for pair in certified if shown in self._fingerprints(pair)]
            if matching:
                return matching[0]
            seen = f"a pool with the certificate {describe_untrusted(channel.certificate)}"
            known = [pair for pair in there if not pair.certificate]
            if not known and any(pair.certificate for pair in there):
                detail = f"{seen} {where} is refused: another certificate was given for that peer"
                # Without a port it may be yet another peer of that host, who is still to be added.
                return RejectCode.CREDENTIALS if theirs.port else RejectCode.UNKNOWN_PEER, detail
        if len(known) == 1 or (known and theirs.port):
            return known[0]
        if known:
            detail = f"several peers were given with the host of {seen} {where}: let it listen, or use certificates"
            return RejectCode.UNKNOWN_PEER, detail
        return RejectCode.UNKNOWN_PEER, f"{seen} {where} was not added as a peer to the pool that was dialled (yet?)"

    def _fingerprints(self, pair: Pair) -> frozenset[str]:
        try:
            return pair.fingerprints()
        except CredentialError as error:
            pair.say(str(error))
            return frozenset()

    # What pairs need (Surroundings).

    def keeper_begins(self, keeper: PairKeeper, our_name: str, peer: str) -> None:
        """What is dialled to `our_name` by `peer` is this keeper's from now on."""
        tag = routing_tag(our_name, peer)
        self._keepers[tag] = keeper
        self._routes[tag] = self._to_us

    def keeper_is_over(self, our_name: str, peer: str) -> None:
        """Nobody waits for such connections any more."""
        tag = routing_tag(our_name, peer)
        self._keepers.pop(tag, None)
        self._routes.pop(tag, None)


def _where(address: str, port: int) -> str:
    host = address.rpartition(":")[0]
    return f"at {host} that listens at port {port}" if port else f"at {host} that does not listen"


async def serve(control: ControlSocket, opener_pidfd: int) -> None:
    """Serve the pool that the opener names first."""
    command, fds = control.receive(START_TIMEOUT_S)
    close_all(fds)
    if not isinstance(command, StartPairs):
        raise CommandError(f"{type(command).__name__} instead of StartPairs")
    await PairEngine(asyncio.get_running_loop(), control, command).run(opener_pidfd)


def main() -> None:
    """The program of a pair engine."""
    fence.register()
    opener_pidfd = parent_pidfd()
    with ControlSocket.from_fd(begin_child(dies_with_parent=False), "the opener") as control:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(serve(control, opener_pidfd))
        except ControlClosed:
            pass  # the opener ended before it told us anything
    os.close(opener_pidfd)
