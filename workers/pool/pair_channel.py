"""A channel of a pool over a link of its own: a session for each life, on whatever link stands at the time.

Between a Pool (`PeerChannel`) and the worker of the link. The one invariant: the lives on one link are sessions 0, 1, 2
... at both ends. A life ends for both at once: with the link, or by the RESET of whoever gives it up; so both count
alike, and what a peer sends in a life that has not begun here is kept until it has.

A message is one frame: BYTES if the receiver wants `bytes`, or small, OBJECT for others, whose memory is writable.
Arrivals are handed over inside the worker's pass, without a future or a turn of the loop in between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from partywire.engine.commands import LinkProgress
from partywire.engine.control_socket import close_all
from partywire.engine.frames import HEADER, Descriptor

from ..errors import MessageTooLarge, PeerClosed, PeerLost, SessionError
from ..mailbox import MESSAGE_OVERHEAD, frame_of
from ..objects.parts import PackedObject
from ..waiting import LoopDriver
from .errors import PoolFailed

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from partywire.engine.commands import Message
    from partywire.engine.frames import Buffer

    from ..mailbox import Mailbox
    from ..peer_link import PeerLink
    from ..session import Session
    from .links import Receiver
    from .pair_worker import PairWorker

_BYTES: Final = Descriptor.BYTES.value
_OBJECT: Final = Descriptor.OBJECT.value
_OURS: Final = frozenset((_BYTES, _OBJECT))
_pack_header = HEADER.pack


class PairChannel:
    """See PeerChannel. Driven by the pool and by its worker."""

    def __init__(self, name: str, worker: PairWorker) -> None:
        """Owns the worker."""
        self.name = name
        self._worker = worker
        self._loop: asyncio.AbstractEventLoop | None = None
        self._receiver: Receiver | None = None
        # Of the life that has begun and whose end was not told.
        self._session: Session | None = None
        self._mailbox: Mailbox | None = None
        self._next_life = 0  # the number of the next one on the present link
        self._is_renewed = True  # whether the pool wants it
        self._is_paused = False
        self._progress = ""  # why there is no link, as the pair engine last said
        worker.on_command = self._take_command
        worker.on_link_up = self._link_is_up
        worker.on_failure = self._worker_failed
        worker.agents.append(self._take_arrivals)
        worker.expect_sessions()

    # What the pool sees.

    @property
    def is_open(self) -> bool:
        """See PeerChannel."""
        return self._mailbox is not None

    @property
    def why_not_open(self) -> str:
        """See PeerChannel."""
        worker = self._worker
        if worker.failure is not None:
            return worker.failure.cause
        return self._progress or worker.link.cause or f"{self.name} has not been heard of yet"

    def attach(self, receiver: Receiver) -> None:
        """See PeerChannel."""
        self._receiver = receiver

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on the loop drives the worker."""
        self._loop = loop
        LoopDriver(self._worker, loop).attach()

    # Lives.

    def _take_command(self, message: Message, fds: list[int]) -> None:
        close_all(fds)
        if isinstance(message, LinkProgress):
            self._progress = message.cause
            if message.is_refusal and self._mailbox is None and self._receiver is not None:
                self._receiver.channel_refused(message.cause)

    def _worker_failed(self) -> None:
        if self._loop is not None:
            self._loop.call_soon(self._tell_failure)

    def _tell_failure(self) -> None:
        """What had arrived comes first."""
        self.resume_reading()
        self._take_arrivals()
        receiver, failure = self._receiver, self._worker.failure
        if receiver is not None and failure is not None:
            self._receiver = None
            receiver.links_failed(PoolFailed(failure.cause))

    def _link_is_up(self, link: PeerLink) -> None:
        """There are new lanes; what was on the old ones has failed."""
        self._progress = ""
        self._next_life = 0
        self._worker.table.skip_below(0)
        self._open_soon()

    def _open_soon(self) -> None:
        if self._loop is not None:
            self._loop.call_soon(self._open)

    def _open(self) -> None:
        """Begin the next life if the pool wants it, the last one is over and told, and there is a link."""
        receiver, worker = self._receiver, self._worker
        if receiver is None or self._mailbox is not None or not self._is_renewed or not worker.link.is_up:
            return
        self._is_renewed = False
        life, self._next_life = self._next_life, self._next_life + 1
        session = worker.make_session(life)
        self._session, self._mailbox = session, session._mailbox_of(1)
        if self._is_paused:
            worker.pause()
        receiver.channel_opened()
        self._take_arrivals()

    def renew(self) -> None:
        """See PeerChannel."""
        self._is_renewed = True
        self._open_soon()

    def end(self, reason: str) -> None:
        """See PeerChannel."""
        if self._session is not None and self._loop is not None:
            self._session.abort(reason)
            self._loop.call_soon(self._take_arrivals)

    def _tell_end(self, failure: SessionError) -> None:
        if self._session is not None:
            self._session.close()  # one that the peer said goodbye to is not over yet
        self._session = self._mailbox = None
        if self._receiver is not None:
            self._receiver.channel_ended(self._as_peer_error(failure))

    def _as_peer_error(self, failure: SessionError) -> SessionError:
        """A life ends with a goodbye or a loss; what else can end a session is a loss with its reason."""
        epoch = self._worker.link.epoch
        if isinstance(failure, PeerClosed):
            return PeerClosed(self.name, None, epoch, "pool")
        if self._worker.failure is not None:
            cause = str(self._worker.failure.cause)
        else:
            cause = failure.cause if isinstance(failure, PeerLost) else str(failure)
        lost = PeerLost(self.name, None, epoch, cause)
        lost.__cause__ = failure
        return lost

    # Arrivals.

    def _take_arrivals(self) -> int:
        """Called in every pass of the worker: hand over what has come. Returns how much."""
        mailbox = self._mailbox
        if mailbox is None:
            return 0
        queue, receiver, worker = mailbox.queue, self._receiver, self._worker
        count = 0
        while queue and not self._is_paused and receiver is not None:
            entry = queue.popleft()
            descriptor = _BYTES
            data: Any = entry
            if type(entry) is not bytes:
                _, descriptor, _, data = frame_of(entry, mailbox.session.id)
            worker.inbox_size -= len(data) + MESSAGE_OVERHEAD
            if descriptor not in _OURS:
                mailbox.session.abort(f"{self.name} sent what no pool sends")
                break
            receiver.message_arrived(data)
            count += 1
        if self._is_paused and mailbox.failure is None and worker.link.cause:
            worker.link_life.lose_link(worker.link, worker.link.cause)  # the end of the lane is not read meanwhile
        if mailbox is self._mailbox and mailbox.failure is not None and not queue:
            self._tell_end(mailbox.failure)
        return count

    def pause_reading(self) -> None:
        """See PeerChannel."""
        if not self._is_paused:
            self._is_paused = True
            self._worker.pause()

    def resume_reading(self) -> None:
        """See PeerChannel."""
        if self._is_paused:
            self._is_paused = False
            self._worker.resume()
            if self._loop is not None:
                self._loop.call_soon(self._take_arrivals)

    # Sending.

    def check_size(self, nbytes: int) -> None:
        """See PeerChannel."""
        limit = self._worker.message_size_max
        if self._mailbox is not None:
            limit = min(limit, self._mailbox.lane.message_size_max)
        if nbytes > limit:
            raise MessageTooLarge(self._next_life, self.name, nbytes, limit, "message_size_max")

    def try_send(self, parts: Sequence[Buffer], nbytes: int, is_raw: bool = False) -> bool:
        """See PeerChannel."""
        mailbox = self._living()
        lane = mailbox.lane
        if nbytes > lane.small_size_max:
            self.check_size(nbytes)
            return False
        if lane.parts_size >= lane.parts_size_max or mailbox.is_sending:
            return False
        lane.parts_size += nbytes + HEADER.size
        if not lane.is_dirty:
            lane.mark_dirty()
        header = _pack_header(mailbox.session.id, _BYTES, nbytes)
        lane.gather((header, *[part if type(part) is bytes else bytes(part) for part in parts]))
        return True

    async def send(self, parts: Sequence[Buffer], nbytes: int, is_raw: bool = False) -> None:
        """See PeerChannel."""
        if self.try_send(parts, nbytes, is_raw):
            return
        mailbox = self._living()
        encoded: Any
        if is_raw or nbytes <= mailbox.lane.small_size_max:
            encoded = (_BYTES, nbytes, b"", parts[0] if len(parts) == 1 else b"".join(parts))
        else:
            encoded = (_OBJECT, nbytes, b"", PackedObject(list(parts), nbytes))  # type: ignore[arg-type]
        try:
            await mailbox.session._send_encoded(mailbox, encoded, None)
        except SessionError as error:
            raise self._as_peer_error(error) from error

    def _living(self) -> Mailbox:
        mailbox = self._mailbox
        if mailbox is None:
            raise PeerLost(self.name, None, self._worker.link.epoch, self.why_not_open)
        if mailbox.failure is not None:
            raise self._as_peer_error(mailbox.failure)
        return mailbox

    # The end.

    async def finish(self, deadline: float) -> None:
        """Say goodbye behind everything that was sent; nobody is told of anything any more. `deadline` is monotonic."""
        self._receiver = None
        await self._worker.finish(deadline)

    def close(self) -> None:
        """Give everything back."""
        self._receiver = self._session = self._mailbox = None
        self._worker.close()
