"""Links of a pool over one session of a party: the peers are the other parties, by their names.

Between a Pool and a Session whose party an asyncio loop drives. The one invariant: a channel's life is a life of the
session, from its making or its `reset` to its end or the peer's goodbye.

In a job of a batch the session is lent: the next job's messages stand behind the peer's goodbye in the same line. So
there the end of a pool is a goodbye of every party to every other, behind which nothing is taken any more.

A message is one frame of the session: BYTES for small ones and for a raw value, OBJECT for others, whose memory is
writable. An empty BYTES is the goodbye of the peer's pool; its party and its other sessions go on. Arrivals are taken
out of the mailbox inside the worker's pass, without a future or a turn of the loop in between.

A session cannot hold a peer back. What a pool leaves unread stays in the mailbox, and above `limits.inbox_mib` the
session fails with InboxOverflow.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from partywire.engine.errors import PartyWireError
from partywire.engine.frames import HEADER, Descriptor

from ..errors import MessageTooLarge, PartyFailed, PeerClosed, PeerLost, SessionClosed, SessionError, UnknownPeer
from ..mailbox import MESSAGE_OVERHEAD, frame_of
from ..objects.calls import HEAD_SIZE_MAX
from ..objects.parts import PackedObject
from .errors import PoolFailed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from partywire.engine.frames import Buffer

    from ..mailbox import Mailbox
    from ..session import Session
    from .links import PeerChannel, Receiver

RESET_PAUSE_S: Final = 0.5
"""Between two attempts to begin the session again, when a link broke meanwhile."""

_BYTES: Final = Descriptor.BYTES.value
_OBJECT: Final = Descriptor.OBJECT.value
_JOB_END: Final = Descriptor.JOB_END.value
_pack_header = HEADER.pack


class SessionLinks:
    """See PoolLinks. The session is this object's from now on."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.loop: asyncio.AbstractEventLoop | None = None
        self._channels: dict[str, SessionChannel] = {}
        self._reset: asyncio.Task[None] | None = None
        self._is_over = False
        self.why_not_reset = "its party has not reset the session yet"

    def listen(self, addr: str, port: int) -> int:
        """A session's links stand already."""
        raise RuntimeError("a pool over a session needs no server")

    def add_peer(self, name: str, addr: str | None, port: int | None, cert: Path | None) -> PeerChannel:
        """See PoolLinks.

        Raises:
            UnknownPeer: the session has no such party.
        """
        session = self.session
        others = tuple(other for other in session.parties if other != session.parties[session.party_index])
        if name not in others:
            raise UnknownPeer.of(name, others)
        if name in self._channels:
            raise ValueError(f"{name} is a peer already")
        channel = self._channels[name] = SessionChannel(self, name)
        return channel

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """See PoolLinks."""
        self.loop = loop
        for channel in self._channels.values():
            loop.call_soon(channel.open)

    @property
    def _is_lent(self) -> bool:
        return bool(self.session.reset_refusal)

    async def close(self, timeout: float) -> None:
        """See PoolLinks. The session is closed, its party goes on. In a job of a batch the session stays, and the
        others' goodbyes are waited for, however long their jobs take."""
        if self._is_over:
            return
        for channel in self._channels.values():
            channel.say_goodbye()
        if self._is_lent:
            for channel in self._channels.values():
                await channel.wait_for_end()
        self._end()
        if not self._is_lent:
            self.session.close()

    def kill(self) -> None:
        """See PoolLinks."""
        if not self._is_over:
            self._end()
            self.session.abort("its pool was ended")

    def _end(self) -> None:
        self._is_over = True
        if self._reset is not None:
            self._reset.cancel()
        for channel in self._channels.values():
            channel.leave()

    # Beginning again.

    def reset(self) -> None:
        """Begin the session again, once for all channels."""
        if self._reset is None:
            assert self.loop is not None
            self._reset = self.loop.create_task(self._run_reset())

    async def _run_reset(self) -> None:
        try:
            while True:
                try:
                    await self.session.reset(timeout=None)
                    break
                except PartyFailed:
                    raise
                except PartyWireError as error:
                    self.why_not_reset = str(error)
                    await asyncio.sleep(RESET_PAUSE_S)
        except PartyFailed as error:
            for channel in self._channels.values():
                channel.fail(PoolFailed(str(error)))
            return
        finally:
            self._reset = None
        for channel in self._channels.values():
            channel.begin_again()


class SessionChannel:
    """See PeerChannel."""

    def __init__(self, links: SessionLinks, name: str) -> None:
        self._links = links
        self._session = links.session
        self.name = name
        self._receiver: Receiver | None = None
        self._mailbox: Mailbox = self._session._mailbox_of(name)
        self._is_paused = False
        # Whether arrivals are taken, and whether the receiver was told of the end of this life.
        self.is_open = False
        self.has_ended = False
        # Whether the pool wants the next life.
        self._is_renewed = True
        self._waker = self._take_arrivals
        # Behind this nothing more is for the pool.
        self._goodbye: SessionError | None = None
        self._has_said_goodbye = False
        self._ended: asyncio.Future[None] | None = None

    @property
    def why_not_open(self) -> str:
        """See PeerChannel."""
        return self._links.why_not_reset

    def attach(self, receiver: Receiver) -> None:
        """See PeerChannel."""
        self._receiver = receiver
        if self._links.loop is not None:
            self._links.loop.call_soon(self.open)

    # Lives.

    def open(self) -> None:
        """Tell that the life has begun, and take what has come already."""
        if self.is_open or self.has_ended or self._receiver is None or not self._is_renewed:
            return
        self._is_renewed = False
        self.is_open = True
        self._receiver.channel_opened()
        self._take_arrivals()

    def begin_again(self) -> None:
        """The session has a further life."""
        self._mailbox = self._session._mailbox_of(self.name)
        self._goodbye = None
        self._has_said_goodbye = False
        self.has_ended = False
        self.is_open = False
        if self._is_renewed:
            self.open()

    def renew(self) -> None:
        """See PeerChannel. All parties of the session have to reset it."""
        self._is_renewed = True
        loop = self._links.loop
        assert loop is not None
        if not self.has_ended:
            loop.call_soon(self.open)
        elif reason := self._session.reset_refusal:
            loop.call_soon(self._refuse_life, reason)
        else:
            self._links.reset()

    def _refuse_life(self, reason: str) -> None:
        """In a job of a batch there is one life only."""
        self._is_renewed = False
        if self._receiver is not None:
            epoch = self._mailbox.lane.epoch
            self._receiver.channel_ended(PeerLost(self.name, self._session.id, epoch, reason))

    def end(self, reason: str) -> None:
        """See PeerChannel; a session ends as a whole."""
        loop = self._links.loop
        if self.is_open and loop is not None:
            self._mailbox.waker = None
            self._session.abort(reason)
            loop.call_soon(self._take_arrivals)

    def say_goodbye(self) -> None:
        """The last message to the peer."""
        if not self._has_said_goodbye and self._mailbox.failure is None:
            self._has_said_goodbye = True
            self._mailbox.lane.post(_pack_header(self._session.id, _BYTES, 0))

    async def wait_for_end(self) -> None:
        """Wait for the goodbye of the peer, or the end of the session."""
        self.resume_reading()
        self.open()
        if not self.has_ended:
            self._ended = asyncio.get_running_loop().create_future()
            await self._ended

    def fail(self, error: PoolFailed) -> None:
        """The party can do nothing any more."""
        if self._receiver is not None:
            self._receiver.links_failed(error)

    def leave(self) -> None:
        """The pool is over: tell nobody of anything any more."""
        self._mailbox.waker = None
        self.is_open = False
        self.has_ended = True
        self._receiver = None

    def _tell_end(self, error: SessionError) -> None:
        if self.has_ended or self._receiver is None:
            return
        self.has_ended = True
        self.is_open = False
        self._receiver.channel_ended(self._as_peer_error(error))
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def _as_peer_error(self, error: SessionError) -> SessionError:
        """A pool's channel ends with a goodbye or a loss; what else can end a session is a loss with its reason."""
        if isinstance(error, (PeerLost, PeerClosed)):
            return error
        lost = PeerLost(self.name, self._session.id, self._mailbox.lane.epoch, str(error))
        lost.__cause__ = error
        return lost

    # Arrivals.

    def _take_arrivals(self) -> None:
        """Called by the mailbox inside the worker's pass, whenever something is new."""
        mailbox = self._mailbox
        receiver = self._receiver
        queue = mailbox.queue
        worker = mailbox.worker
        while queue and not self._is_paused and receiver is not None and not self.has_ended:
            entry = queue[0]
            data: Any
            if type(entry) is bytes:
                data = entry
            else:
                _, descriptor, _, data = frame_of(entry, self._session.id)
                if descriptor == _JOB_END:
                    epoch = mailbox.lane.epoch
                    self._goodbye = PeerLost(self.name, self._session.id, epoch, "its job ended, and its pool did not")
                    break
                if descriptor != _OBJECT:
                    self._session.abort(f"{self.name} sent what is no message of a pool")
                    return
            queue.popleft()
            worker.inbox_size -= len(data) + MESSAGE_OVERHEAD
            if not data:
                self._goodbye = PeerClosed(self.name, self._session.id, mailbox.lane.epoch, "pool")
                break
            receiver.message_arrived(data)
        failure = self._goodbye or mailbox.failure
        if failure is None:
            mailbox.waker = self._waker
        elif not (self._is_paused and queue):
            self._tell_end(failure)

    def pause_reading(self) -> None:
        """See PeerChannel."""
        self._is_paused = True

    def resume_reading(self) -> None:
        """See PeerChannel."""
        if self._is_paused:
            self._is_paused = False
            loop = self._links.loop
            assert loop is not None
            loop.call_soon(self._take_arrivals)

    # Sending.

    def check_size(self, nbytes: int) -> None:
        """See PeerChannel."""
        limit = min(self._session.worker.message_size_max, self._mailbox.lane.message_size_max)
        if nbytes > limit:
            raise MessageTooLarge(self._session.id, self.name, nbytes, limit, "limits.message_mib")

    def try_send(self, parts: Sequence[Buffer], nbytes: int, is_raw: bool = False) -> bool:
        """See PeerChannel."""
        mailbox = self._mailbox
        self._refuse_if_over()
        lane = mailbox.lane
        if nbytes > lane.small_size_max or lane.parts_size >= lane.parts_size_max or mailbox.is_sending:
            if nbytes > lane.small_size_max:
                self.check_size(nbytes)
            return False
        lane.parts_size += nbytes + HEADER.size
        if not lane.is_dirty:
            lane.mark_dirty()
        header = _pack_header(self._session.id, _BYTES, nbytes)
        lane.gather((header, *[part if type(part) is bytes else bytes(part) for part in parts]))
        return True

    async def send(self, parts: Sequence[Buffer], nbytes: int, is_raw: bool = False) -> None:
        """See PeerChannel."""
        if self.try_send(parts, nbytes, is_raw):
            return
        head = b""
        body: Any
        descriptor = _OBJECT
        if is_raw:
            descriptor = _BYTES
            (body,) = parts
        elif nbytes <= self._mailbox.lane.small_size_max:
            descriptor = _BYTES
            body = b"".join(parts)
        elif nbytes - len(parts[-1]) <= HEAD_SIZE_MAX:  # the usual large message: one array
            head = b"".join(parts[:-1])
            body = parts[-1]
        else:
            body = PackedObject(list(parts), nbytes)  # type: ignore[arg-type]
        await self._session._send_encoded(self._mailbox, (descriptor, nbytes, head, body), None)
        self._refuse_if_over()

    def _refuse_if_over(self) -> None:
        if self._goodbye is not None:
            raise self._goodbye.again()
        if self._mailbox.failure is not None:
            raise self._as_peer_error(self._mailbox.failure.again())
        if self.has_ended:
            raise SessionClosed(self._session.id, "its pool was shut down")
