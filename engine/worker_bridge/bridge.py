"""Bridge: the opener's way to the connections of another process of its party, and the peers' way to its handlers.

Between a ConnectionManager (the peer of a link in the link's I/O process, or all peers in the node process) and the
opener, by one stream; what is said on its substreams is in `heads`. The one invariant: behind the end of a bridge,
whoever ended it, nothing of it is left: no task, no protocol that is served, no substream of a peer that waits.

An opener that computes for minutes is not gone: its substreams stand still, each for itself and within bounds
(`limits`), and a peer that offers it a substream meanwhile is refused after OFFER_TIMEOUT_S.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from ..errors import PartyWireError
from ..peers.peer_id import PeerId
from ..substreams.connection import SubstreamConnection
from ..yamux.errors import SubstreamClosed, SubstreamRefused, SubstreamReset, SubstreamSessionOver
from . import heads
from .failures import failed
from .heads import HeadError, shortened
from .limits import BRIDGE_LIMITS, EVENTS_MAX, OFFER_TIMEOUT_S, WRITE_TIMEOUT_S
from .news import News, Numbers
from .offers import Offers
from .splicing import Ends, splice
from .talk import HeadTaker, read_head_untrusted, write_head

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine

    from ..peers.contract import ConnectionManager, PeerConnection
    from ..peers.events import PeerEvent
    from ..substreams.streams import SubstreamReader, SubstreamWriter
    from ..transport import Stream
    from .heads import Head
    from .offers import Counted

Result = TypeVar("Result")

_GONE: Final = (SubstreamReset, SubstreamSessionOver, SubstreamClosed)


class Bridge:
    """Runs in one event loop, from `start` to `closed`. Driven by the opener's substreams, the manager's events and
    the substreams that it is offered."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        stream: Stream,
        manager: ConnectionManager,
        *,
        name: str = "",
        connect_link: Callable[[], Awaitable[PeerConnection]] | None = None,
        offer_timeout_s: float = OFFER_TIMEOUT_S,
    ) -> None:
        """Owns the stream, not the manager. Of one link: `name` is that of the party at its other end, and
        `connect_link` gives the connection to whoever that is."""
        self._loop = loop
        self._manager = manager
        self._name = name
        self._connect_link = connect_link
        self._offer_timeout_s = offer_timeout_s
        self._connection = SubstreamConnection(
            loop,
            stream,
            is_client=False,
            on_substream=self._on_substream,
            peer="the opener",
            limits=BRIDGE_LIMITS,
            write_timeout_s=WRITE_TIMEOUT_S,
        )
        self.closed: Final[asyncio.Future[str]] = loop.create_future()
        """Done when the bridge is over, with the cause; empty if one of the two said goodbye before."""
        self._numbers = Numbers()
        self._standing: SubstreamWriter | None = None  # the standing substream
        self._drain = asyncio.Lock()  # of the standing substream: several write to it
        self._served: set[str] = set()
        self._offers = Offers(is_of_many=connect_link is None)
        self._splices = 0  # that move bytes
        self._idle = asyncio.Event()  # set when there may be none
        self._tasks: set[asyncio.Task[None]] = set()  # ours, and those of peers' substreams that are with us

    def start(self) -> None:
        """Begin."""
        self._connection.closed.add_done_callback(self._on_closed)
        self._connection.start()

    def _on_closed(self, closed: asyncio.Future[str]) -> None:
        self.closed.set_result("" if self._connection.is_leaving else closed.result())
        self._cancel_all()

    def abort(self, cause: str) -> None:
        """End at once; `cause` is not empty."""
        self._connection.abort(cause)

    async def finish(self, timeout_s: float) -> None:
        """All connections to peers are over: let what had come of them reach the opener, for at most `timeout_s`, and
        end."""
        deadline = self._loop.time() + timeout_s
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                while self._splices:
                    self._idle.clear()
                    await self._idle.wait()
        if (standing := self._standing) is not None:
            self._standing = None
            standing.close()
        await self._connection.aclose(max(deadline - self._loop.time(), 0.0))

    async def aclose(self) -> None:
        """End, and wait until nothing of it is left."""
        await self._connection.aclose(0.0)
        self._cancel_all()
        if tasks := self._tasks - {asyncio.current_task()}:
            await asyncio.wait(tasks)

    def _cancel_all(self) -> None:
        self._unserve_all()
        for task in self._tasks - {asyncio.current_task()}:
            task.cancel()

    # What the opener asks for.

    def _on_substream(self, reader: SubstreamReader, writer: SubstreamWriter) -> None:
        self._spawn(self._answer(Ends(reader, writer)))

    def _spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._loop.call_exception_handler({"message": "a bug in a bridge", "exception": error, "task": task})

    async def _answer(self, near: Ends) -> None:
        try:
            head = await read_head_untrusted(near.reader)
            match head:
                case heads.Open():
                    await self._open(near, head)
                case heads.Attend():
                    await self._attend(near)
                case heads.Connect() | heads.Disconnect() | heads.Ping() | heads.Ban() | heads.Unban():
                    await write_head(near.writer, await self._result(near, self._do(head)))
                case None:
                    pass
                case _:
                    raise HeadError(f"{type(head).__name__} at the beginning of a substream")
            near.writer.close()
        except HeadError as error:
            self.abort(str(error))
        except _GONE:
            pass  # the opener has given it up, or the bridge is over
        except asyncio.CancelledError:
            near.writer.reset("the bridge has ended")
            raise

    async def _result(self, near: Ends, work: Coroutine[object, object, Head]) -> Head:
        """What comes of `work`, as a head. Given up when the opener gives up its substream.

        Raises:
            SubstreamReset, SubstreamSessionOver: that happened.
        """
        try:
            return await _while_open(near.writer, work)
        except (PartyWireError, ValueError, OSError) as error:
            if near.writer.failure is not None:
                raise near.writer.failure from error
            return failed(error)

    async def _do(self, head: heads.Connect | heads.Disconnect | heads.Ping | heads.Ban | heads.Unban) -> Head:
        match head:
            case heads.Connect(peer):
                return heads.ConnectedTo(self._numbers.note(await self._connection_to(peer)))
            case heads.Disconnect(number):
                if (connection := self._numbers.find(number)) is not None:
                    await connection.aclose()
                return heads.Done()
            case heads.Ping(number):
                return heads.Done(await self._by_number(number).ping())
            case heads.Ban(peer, reason, seconds):
                await self._manager.ban(PeerId.parse(peer), reason, seconds)
                return heads.Done(1.0)
            case heads.Unban(peer):
                return heads.Done(float(self._manager.unban(PeerId.parse(peer))))

    def _by_number(self, number: int) -> PeerConnection:
        if (connection := self._numbers.find(number)) is None:
            raise SubstreamSessionOver("", "the connection is over")
        return connection

    # Substreams to peers.

    async def _open(self, near: Ends, head: heads.Open) -> None:
        far: Ends | None = None

        async def open_() -> Head:
            nonlocal far
            if not 0 < len(head.protocols) <= heads.OPEN_PROTOCOLS_MAX:
                raise ValueError(f"{len(head.protocols)} protocols, 1 to {heads.OPEN_PROTOCOLS_MAX} can be asked for")
            connection = await self._connection_for(head)
            protocol, reader, writer = await connection.open(head.protocols)
            far = Ends(reader, writer)
            note = None if head.connection else self._numbers.note(connection)
            return heads.Opened(protocol, near.writer.id, note)

        try:
            answer = await self._result(near, open_())
            await write_head(near.writer, answer)
            if far is not None and isinstance(answer, heads.Opened):
                await self._join(near, far)
        except BaseException:
            if far is not None:
                far.writer.reset("its user has gone")
            raise

    async def _connection_for(self, head: heads.Open) -> PeerConnection:
        if head.connection:
            return self._by_number(head.connection)
        return await self._connection_to(head.peer)

    async def _connection_to(self, peer: str) -> PeerConnection:
        if peer:
            return await self._manager.connect(PeerId.parse(peer))
        if self._connect_link is None:
            raise ValueError("no peer is named, and this is the way to many")
        return await self._connect_link()

    async def _join(self, near: Ends, far: Ends) -> None:
        """Splice a substream of the opener's with one of a peer's, to whatever end."""
        self._splices += 1
        try:
            breach = await splice(near, far)
            if breach is None:
                return
            if breach.is_far:
                await self._explain(near.writer.id, breach.cause)
        except BaseException:
            for end in (near, far):
                end.writer.reset("the bridge has ended")
            raise
        finally:
            self._splices -= 1
            if not self._splices:
                self._idle.set()
        if breach.is_far and breach.is_told_all:
            with suppress(*_GONE):
                if not await near.reader.read(1):
                    return  # the opener has read to the end, and had nothing more to say
        for end in (near, far):
            end.writer.reset(breach.cause)

    async def _explain(self, number: int, cause: str) -> None:
        """Tell the opener why a substream will be reset: it is on its way when this returns."""
        if self._standing is not None and self._standing.is_open:
            self._standing.write(heads.encode(heads.Broken(number, shortened(cause))))
            await asyncio.sleep(0)  # behind the flush that the write has asked for

    # Substreams of peers.

    async def _offer(
        self, protocol: str, connection: PeerConnection, reader: SubstreamReader, writer: SubstreamWriter
    ) -> None:
        """Serves a protocol of the opener's (ProtocolHandler)."""
        if self._offers.is_full_for(connection.peer_id) or self.closed.done():
            writer.reset("whoever serves this has too much to do")
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with self._offers.held(connection.peer_id):
                await self._pass_on(protocol, connection, Ends(reader, writer))
        finally:
            self._tasks.discard(task)

    async def _pass_on(self, protocol: str, connection: PeerConnection, far: Ends) -> None:
        """Offer the opener a substream of a peer. What the peer sends goes along, whatever the opener will say."""
        try:
            note = self._numbers.note(connection)
            # This waits for no room: of those that the opener has not answered there are at most OFFERS_MAX.
            near = Ends(*await self._connection.open())
            near.writer.write(heads.encode(heads.Offer(protocol, note, near.writer.id)))
        except (*_GONE, SubstreamRefused) as error:
            far.writer.reset(str(error))
            return
        asked = _Asked(near, far, self._offers.waiting(connection.peer_id), self._offer_timeout_s)
        try:
            await self._join(near, far)
        except HeadError as error:
            self.abort(str(error))
        finally:
            asked.end()

    # The standing substream.

    async def _attend(self, near: Ends) -> None:
        if self._standing is not None:
            await write_head(near.writer, failed(ValueError("there is a standing substream already")))
            return
        self._standing = near.writer
        self._numbers.is_attended = True
        events = self._manager.events(EVENTS_MAX)
        telling: asyncio.Task[None] | None = None
        try:
            await self._say(near.writer, heads.Attending(str(self._manager.peer_id), self._name))
            telling = self._spawn(self._tell(near.writer, events))
            while (head := await read_head_untrusted(near.reader)) is not None:
                await self._take_wish(near.writer, head)
        finally:
            self._standing = None
            self._numbers.is_attended = False
            events.close()
            self._unserve_all()
            if telling is not None:
                telling.cancel()

    async def _tell(self, writer: SubstreamWriter, events: AsyncIterable[PeerEvent]) -> None:
        news = News(self._manager, self._numbers)
        try:
            for head in news.standing(0):
                await self._say(writer, head)
            async for event in events:
                for head in news.tell(event):
                    await self._say(writer, head)
        except _GONE:
            pass  # the reading side hears it too

    async def _say(self, writer: SubstreamWriter, head: Head) -> None:
        async with self._drain:
            await write_head(writer, head)

    async def _take_wish(self, writer: SubstreamWriter, head: Head) -> None:
        match head:
            case heads.Serve(protocol):
                try:
                    self._manager.serve(protocol, partial(self._offer, protocol))
                    self._served.add(protocol)
                except ValueError as error:
                    await self._say(writer, heads.ServeFailed(protocol[:255], shortened(str(error))))
            case heads.Unserve(protocol):
                if protocol in self._served:
                    self._served.discard(protocol)
                    self._manager.unserve(protocol)
            case _:
                raise HeadError(f"{type(head).__name__} on the standing substream")

    def _unserve_all(self) -> None:
        while self._served:
            self._manager.unserve(self._served.pop())


class _Asked:
    """An offer, from the moment when the opener is asked to that when it has answered, or the substream is over."""

    def __init__(self, near: Ends, far: Ends, waiting: Counted, timeout_s: float) -> None:
        self._near = near
        self._far = far
        self._waiting = waiting
        self._waiting.begin()
        self._is_over = False
        self._timer = asyncio.get_running_loop().call_later(timeout_s, self._give_up)
        near.reader.expect(HeadTaker(self._take_answer))

    def end(self) -> None:
        """Nothing more is waited for."""
        if not self._is_over:
            self._is_over = True
            self._timer.cancel()
            self._waiting.end()

    def _take_answer(self, head: Head | None) -> None:
        self.end()
        match head:
            case heads.Taken():
                pass
            case heads.Refused(cause):
                self._far.writer.reset(cause)
            case _:
                raise HeadError("no answer to an offer")

    def _give_up(self) -> None:
        self.end()
        for end in (self._near, self._far):
            end.writer.reset("whoever serves this did not take it in time")
        self._near.writer.wake()  # whoever carries bytes between the two


async def _while_open(writer: SubstreamWriter, work: Coroutine[object, object, Result]) -> Result:
    """What comes of `work`, which is cancelled when the substream breaks that it is done for.

    Raises:
        SubstreamReset, SubstreamSessionOver: it broke.
    """
    task = asyncio.current_task()
    assert task is not None
    is_given_up = False

    def look() -> None:
        nonlocal is_given_up
        if writer.failure is not None and not is_given_up:
            is_given_up = True
            task.cancel()

    if (failure := writer.failure) is not None:
        work.close()
        raise failure
    writer.on_wake = look
    try:
        result = await work
        if is_given_up:
            await asyncio.sleep(0)  # where the cancelling arrives that `work` did not see
    except asyncio.CancelledError:
        if is_given_up and task.uncancel() == 0 and (failure := writer.failure) is not None:
            raise failure from None
        raise
    finally:
        writer.on_wake = None
    return result
