"""One pair: our pool and one peer of it, known by an address or a certificate, over all starts of that peer.

Between the pair engine, which hands over what others dial, the opener's worker for this peer, and the link that is made
again and again (`pair_keeper`). The one invariant: at most one link is kept at a time, with who was met last; a
stranger who says to be the peer ends no link that is up and gives signs of life.

    introduce ourselves, or be introduced to -> keep the link -> lost: introduce ourselves again, keep trying meanwhile
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from ..addresses import is_loopback
from ..channel.errors import CredentialError
from ..commands import Lanes, LinkEnded, LinkProgress, OpenLinks
from ..control_socket import ControlClosed, ControlTimeout
from ..dialler import DialFailed, Dialler
from ..errors import HandshakeRejected, RejectCode
from ..greeting import GreetingFailed
from ..link_keeper import DUPLICATE_GRACE_S
from ..topology import PartySpec, PeerSpec
from .introducer import introduce, words_of
from .meeting import ID_SIZE, Introduction, link_name, we_dial
from .pair_keeper import PairKeeper
from .whereabouts import THIS_HOST, place_of, places_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from partywire.shm.doorbell import Bell
    from partywire.shm.fence import Fence

    from ..bulk_commands import BulkFailed, BulkLane
    from ..commands import LinkClaimed, LinkFailed, LinkNews
    from ..control_socket import ControlSocket
    from ..link_options import LinkOptions
    from ..transport import Transport
    from .meeting import Refusal
    from .pair_commands import AddPair
    from .pool_tls import PoolTls
    from .turned_away import TurnedAway

INTRODUCED_PAUSE_S: Final = 1.0
"""After an introduction that went well, until the next one if the link is not up by then: time for its handshakes over
any path. Only if the peer is started anew in the meantime is a further one of use."""

REFUSAL_GRACE_S: Final = 1.5
"""From a refused attempt until it is told, and ends calls and perhaps the program: the peer, which tries once a second
(dialler.BACKOFF_MAX_S), is to meet us until then and to hear of it as well. And files may just be being exchanged."""

OUR_NAME: Final = "this pool"
"""What we are called in what the user reads, in the place of the name that the link has for us."""


class Whom(NamedTuple):
    """With whom a link is kept, or to be kept."""

    theirs: Introduction
    is_dialling: bool
    """Whether we dial the link."""
    fingerprint: str
    """Of the certificate that was shown; empty without TLS."""

    def is_same(self, other: Whom) -> bool:
        """Whether a link with one is a link with the other."""
        ours = (self.theirs.id, self.is_dialling, self.fingerprint)
        return ours == (other.theirs.id, other.is_dialling, other.fingerprint)


class Surroundings(Protocol):
    """What a pair has of its engine."""

    loop: asyncio.AbstractEventLoop
    fence: Fence
    options: LinkOptions
    """With what secures the links at index 0 and 1."""
    tls: PoolTls | None
    turned_away: TurnedAway
    port: int
    """Where the pool listens; 0 if nowhere."""

    @property
    def transport(self) -> Transport:
        """What to dial by."""

    @property
    def pair_count(self) -> int:
        """How many pairs share the process."""

    def keeper_begins(self, keeper: PairKeeper, our_name: str, peer: str) -> None:
        """What is dialled to `our_name` by `peer` is this keeper's from now on."""

    def keeper_is_over(self, our_name: str, peer: str) -> None:
        """Nobody waits for such connections any more."""

    def fail(self, error: BaseException) -> None:
        """A bug: the process ends."""


class Pair:
    """Driven by its engine, by its own introductions, and by its keeper, whose home it is."""

    def __init__(self, engine: Surroundings, command: AddPair, control: ControlSocket, bell: Bell) -> None:
        """Owns the control socket of the worker, and the bell."""
        self.name = command.name
        self.certificate = command.certificate
        self._engine = engine
        self._host = command.host
        self._port = command.port
        self._control = control
        self._bell = bell
        self._id = os.urandom(ID_SIZE)
        place = THIS_HOST if is_loopback(self._host) else place_of(self._host)
        self._places = frozenset((place,))  # the hosts of its address, as last looked up
        self._keeper: PairKeeper | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._whom: Whom | None = None  # with whom the keeper keeps the link
        self._next: Whom | None = None  # with whom another one will, once it is over
        self._epoch = 1  # the least of the next keeper's links
        self._asked_at = 0.0  # when a link that is up was last asked for a sign of life
        self._down = asyncio.Event()  # set while there is no link
        self._down.set()
        self._is_closing = False
        self._attempt_cause = ""  # why there is no link, as an attempt of ours or the link last said
        self._cause = ""  # the same as last told, with who was turned away
        self._refusal: asyncio.TimerHandle | None = None  # set while one is to be told
        self._has_told_refusal = False  # and no attempt has ended otherwise since
        self._introducing: asyncio.Task[None] | None = None
        if self._host:
            self._introducing = engine.loop.create_task(self._introduce())
            self._introducing.add_done_callback(self._task_done)

    @property
    def is_up(self) -> bool:
        """Whether the link stands."""
        return self._keeper is not None and self._keeper.is_standing

    @property
    def introduction(self) -> Introduction:
        """What we say of ourselves to this peer."""
        return Introduction(self._id, self._engine.port, bool(self._host))

    def is_at(self, place: str, port: int = 0) -> bool:
        """Whether the peer was given with an address of this host, and with this port unless it is 0."""
        return bool(self._host) and place in self._places and port in (0, self._port)

    def fingerprints(self) -> frozenset[str]:
        """Of the certificate that the peer must show; empty: any.

        Raises:
            CredentialError: their file cannot be used.
        """
        if not self.certificate:
            return frozenset()
        from .pool_tls import fingerprint_of_file  # only here: a pool without TLS needs none of it

        return frozenset((fingerprint_of_file(self.certificate),))

    # Introducing ourselves.

    async def _introduce(self) -> None:
        """Whenever there is no link, look for the peer at its address until there is one."""
        engine = self._engine
        while True:
            await self._down.wait()
            dialler = Dialler(engine.transport, self.name, self._host, self._port)
            while self._down.is_set():
                try:
                    await self._look_up()
                    await self._introduce_once(dialler)
                except (DialFailed, GreetingFailed, HandshakeRejected, CredentialError) as error:
                    words = words_of(error) + self._whose_certificate(error)
                    if _is_refusal(error):
                        self._refused(words)
                    else:
                        self._has_told_refusal = False
                        self.say(words)
                    await dialler.back_off()
                else:
                    self._forget_refusal()
                    await asyncio.sleep(INTRODUCED_PAUSE_S)

    def _refused(self, words: str) -> None:
        """An attempt of ours was refused: told soon, and after each further one at once."""
        self.say(words, is_refusal=self._has_told_refusal)
        if not self._has_told_refusal and self._refusal is None:
            self._refusal = self._engine.loop.call_later(REFUSAL_GRACE_S, self._tell_refusal, words)

    def _tell_refusal(self, words: str) -> None:
        self._refusal = None
        self._has_told_refusal = True
        self.say(words, is_refusal=True)

    def _forget_refusal(self) -> None:
        self._has_told_refusal = False
        if self._refusal is not None:
            self._refusal.cancel()
            self._refusal = None

    def _whose_certificate(self, error: Exception) -> str:
        """Ours, if that is what the peer refuses: an alert of TLS cannot say which it was."""
        tls = self._engine.tls
        if tls is None or not isinstance(error, HandshakeRejected) or error.by_us:
            return ""
        if error.code is not RejectCode.CREDENTIALS:
            return ""
        try:
            return f" (ours: {tls.describe_ours()})"
        except CredentialError:
            return ""

    async def _look_up(self) -> None:
        """Where the peer's connections come from; a name that is not found is the dialler's to complain of."""
        try:
            found = await self._engine.transport.resolve(self._host, self._port)
        except OSError:
            return
        self._places = places_of(host for host, _ in found)

    async def _introduce_once(self, dialler: Dialler) -> None:
        engine = self._engine
        stream = await dialler.attempt()
        try:
            ours = self.introduction
            theirs, fingerprint = await introduce(engine.loop, stream, self.name, ours, engine.tls, self.fingerprints())
        finally:
            stream.close()
            dialler.lost()
        self.met(ours, theirs, fingerprint)

    # The peer is known.

    def refusal_of(self, theirs: Introduction) -> Refusal | None:
        """Why who says to be the peer cannot be, at the moment: we are linked with another start of it, which lives.

        Whoever hears BUSY comes again; by then a link that is silent has shown that it is.
        """
        keeper = self._keeper
        if theirs.id == self._id:
            return RejectCode.DUPLICATE_IDENTITY, "a pool was given its own address as that of a peer"
        if keeper is None or self._whom is None or theirs.id == self._whom.theirs.id or not keeper.is_standing:
            return None
        now = self._engine.loop.time()
        if not self._asked_at or keeper.last_heard >= self._asked_at:
            self._asked_at = now
            keeper.ask_for_sign_of_life()
        elif now >= self._asked_at + DUPLICATE_GRACE_S:
            return None
        return RejectCode.BUSY, "the pool that was dialled is linked with another one of that address or certificate"

    def met(self, ours: Introduction, theirs: Introduction, fingerprint: str) -> None:
        """An introduction went well: keep the link with who was met, unless that is under way."""
        whom = Whom(theirs, we_dial(ours, theirs), fingerprint)
        current = self._next or self._whom
        if self._is_closing or (current is not None and whom.is_same(current)):
            return
        if self._keeper is None:
            self._keep(whom)
        elif not (self.is_up and self._whom is not None and theirs.id == self._whom.theirs.id):
            self._next = whom
            self._keeper.abandon(f"{self.name} was started anew")

    def _keep(self, whom: Whom) -> None:
        engine = self._engine
        our_name = link_name(self.introduction, whom.is_dialling)
        peer = link_name(whom.theirs, not whom.is_dialling)
        parties = (PeerSpec(our_name, 0, "", 0), PeerSpec(peer, 1, self._host, self._port))
        command = OpenLinks(PartySpec(our_name, 0, parties), [1], 1, engine.options, {"1": self._epoch})
        tls = None
        if engine.tls is not None:
            from .pool_tls import PairTls

            tls = PairTls(engine.tls, self.name, whom.fingerprint)
        keeper = PairKeeper(
            self, engine.loop, command, self._bell, engine.fence, engine.transport, tls, engine.pair_count
        )
        self._keeper, self._whom, self._next, self._asked_at = keeper, whom, None, 0.0
        engine.keeper_begins(keeper, our_name, peer)
        self._keeping = engine.loop.create_task(keeper.run())
        self._keeping.add_done_callback(lambda task: self._keeper_over(task, our_name, peer))

    def _keeper_over(self, task: asyncio.Task[None], our_name: str, peer: str) -> None:
        self._engine.keeper_is_over(our_name, peer)
        self._keeper = self._whom = None
        self._down.set()
        self._task_done(task)
        if self._next is not None and not self._is_closing:
            self._keep(self._next)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._engine.fail(error)

    # What the link says (as its home), and what becomes known of who is not linked yet.

    def tell(
        self,
        message: LinkProgress | LinkFailed | LinkEnded | LinkNews | LinkClaimed | Lanes | BulkLane | BulkFailed,
        fds: Sequence[int] = (),
    ) -> None:
        """Tell the worker what it needs: its lanes, and why there are none."""
        if isinstance(message, Lanes):
            self._epoch = message.epoch + 1
            self._cause = ""
            self._down.clear()
            self._post(message, fds)
        elif isinstance(message, LinkEnded):
            self._down.set()
        elif isinstance(message, LinkProgress):
            self.say(message.cause)

    def fail(self, error: BaseException) -> None:
        """A bug of the keeper."""
        self._engine.fail(error)

    def say(self, cause: str, *, is_refusal: bool = False) -> None:
        """Why there is no link, and who was turned away meanwhile; told when it changes, if the worker reads what it is
        told.

        A refusal is told each time: whoever has begun to wait since the last one is told too. One is no refusal of the
        peer's while a link with it is being made over a connection that came from there.
        """
        is_refusal = is_refusal and self._keeper is None
        if self._whom is not None:
            cause = cause.replace(link_name(self._whom.theirs, not self._whom.is_dialling), self.name)
            cause = cause.replace(link_name(self.introduction, self._whom.is_dialling), OUR_NAME)
        self._attempt_cause = cause
        self._tell_cause(is_refusal=is_refusal)

    def callers_were_turned_away(self) -> None:
        """One of them may have been the peer with a wrong certificate."""
        self._tell_cause()

    def _tell_cause(self, *, is_refusal: bool = False) -> None:
        # A peer with a certificate may dial from anywhere.
        callers = self._engine.turned_away.words_at(None if self.certificate else self._places)
        cause = "; ".join(filter(None, (self._attempt_cause, callers)))
        if (cause != self._cause or is_refusal) and not self.is_up and not self._control.has_pending:
            self._cause = cause
            self._post(LinkProgress(1, cause, is_refusal))

    def _post(self, message: Lanes | LinkProgress, fds: Sequence[int] = ()) -> None:
        try:
            self._control.post(message, fds)
        except (ControlClosed, ControlTimeout):
            return  # the opener has given this peer up, or has not looked at hundreds of messages
        if self._control.has_pending:
            self._engine.loop.add_writer(self._control.fileno(), self._flush)

    def _flush(self) -> None:
        try:
            is_done = self._control.flush()
        except ControlClosed:
            is_done = True
        if is_done:
            self._engine.loop.remove_writer(self._control.fileno())

    # The end.

    def begin_close(self) -> None:
        """A link that is up says goodbye, any other is given up."""
        self._is_closing = True
        self._forget_refusal()
        if self._introducing is not None:
            self._introducing.cancel()
        if self._keeper is not None:
            self._keeper.begin_close()

    async def wait_closed(self) -> None:
        """Until the link is over."""
        if self._keeping is not None:
            await asyncio.wait([self._keeping])

    async def close(self) -> None:
        """Give everything back, whatever state it is in."""
        self._is_closing = True
        self._forget_refusal()
        tasks = [task for task in (self._introducing, self._keeping) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._control.fileno() >= 0:
            self._engine.loop.remove_writer(self._control.fileno())
        self._control.close()
        self._bell.close()


def _is_refusal(error: Exception) -> bool:
    """Whether an attempt to reach the peer has failed because one end does not accept who the other proves to be, or
    the files that prove it cannot be used: somebody has to change something."""
    if isinstance(error, HandshakeRejected):
        return error.code in (RejectCode.CREDENTIALS, RejectCode.SECURITY)
    return isinstance(error, CredentialError)
