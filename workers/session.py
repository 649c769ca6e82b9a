"""A session: a numbered, ordered message channel that spans all parties, as the user of PartyWire sees it.

Between the user's protocol code and the lanes to each peer. Per peer and direction messages arrive in order, exactly
once, or the call raises. The one invariant: after a SessionError the session is dead at this party, every later call
raises, and the other parties have been told, so that none of them waits for ever.

`Session` is for coroutines, under asyncio or under PartyWire's own scheduler; `blocking_session` has the same calls for
plain code. `objects/calls` sends objects, `session_jobs` ends jobs. When `send` returns, its buffer may be changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from partywire.engine.errors import LinkProtocolError
from partywire.engine.frames import HEADER, Descriptor, ResetCode, encode_reset, frame_header
from partywire.engine.limits import MESSAGE_SIZE_MAX
from partywire.shm.errors import ShmError

from .array_meta import array_meta, byte_view, split_array_untrusted
from .errors import (
    MessageTooLarge,
    PeerAborted,
    PeerLost,
    SessionClosed,
    SessionError,
    SessionTimeout,
    UnexpectedMessage,
    UnknownPeer,
)
from .hot import IS_COMPILED, SessionHot
from .mailbox import IN_PLACE, MESSAGE_OVERHEAD, Mailbox, Target, frame_of
from .numpy_text import check_text_untrusted
from .objects.calls import ObjectCalls
from .objects.parts import PackedObject
from .session_jobs import JobsInLockstep
from .value_codec import SMALL_SIZE_MAX, decode, encode
from .waiting import NEVER, Wait, deadline_of, shared_timeout

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from partywire.engine.frames import Frame

    from .blocking_session import BlockingSession
    from .lane import Lane
    from .value_codec import Encoded
    from .worker import Worker

RESET_TIMEOUT_S: Final = 30.0
"""How long `reset` waits for the other parties unless told otherwise: for a link that is dialled again, and for peers
that still compute."""

_BYTES: Final = Descriptor.BYTES.value
_ARRAY: Final = Descriptor.ARRAY.value
_OBJECT: Final = Descriptor.OBJECT.value
_JOB_END: Final = Descriptor.JOB_END.value
_pack_header = HEADER.pack


class Session(ObjectCalls, JobsInLockstep, SessionHot):
    """The asynchronous form. Made by `Party.make_sessions`; one call per peer and direction at a time.

    Finished by `close`, `abort`, or the first SessionError of any call.
    """

    def __init__(self, worker: Worker, session_id: int, is_bulk: bool = False) -> None:
        party = worker.party
        count = len(party.parties)
        super().__init__(worker, session_id, (party.index + 1) % count, (party.index - 1) % count)
        self.party_index: Final = party.index
        self.parties: Final = party.names
        # Whether its messages travel on the bulk connections of all links.
        self.is_bulk: Final = is_bulk
        # In index order.
        self._peers: list[Mailbox] = []
        # The id that it was made with, and the latest round of its resets that we took part in.
        self.origin: Final = session_id
        self.reset_round = 0
        # Why a job may not reset it; empty for a session of one's own.
        self.reset_refusal = ""
        # Why the session is over.
        self.failure: SessionError | None = None
        # The job that runs now; jobs of a session are counted from 0.
        self.job = 0
        # Jobs that every party has reported to have ended well.
        self.jobs_final = 0
        self._settled: dict[Mailbox, int] = {}
        # Called with the number of each job that becomes final, and once when the session fails.
        self.on_final: Callable[[int], None] | None = None
        self.on_failure: Callable[[SessionError], None] | None = None
        self._blocking: BlockingSession | None = None

    @property
    def blocking(self) -> BlockingSession:
        """The same session for plain code."""
        if self._blocking is None:
            from .blocking_session import BlockingSession  # only here: coroutines need none

            self._blocking = BlockingSession(self)
        return self._blocking

    def __repr__(self) -> str:
        state = "" if self.failure is None else ", over"
        return f"Session({self.id}, party {self.parties[self.party_index]}{state})"

    # Sending.

    # `send` and `recv` are these two, or the compiled calls that do their common case and leave the rest to them.

    async def _send(self, peer: str | int, value: object, *, timeout: float | None = None) -> None:
        """Send one message to a peer, named or by index.

        Returns when the value has been copied: at once as long as there is room, otherwise as the peer takes what was
        sent before. Meanwhile this worker goes on receiving. Published at the end of the worker's pass.

        Raises:
            SessionTimeout: no room within `timeout` seconds; the session is over.
            PeerLost, PeerClosed, PeerAborted: the peer, or the session, is gone.
            MessageTooLarge, TypeError: nothing was sent; the session goes on.
            UnsupportedByPeer: the same; the peer's link speaks the iris protocol, which cannot carry such a value.
        """
        try:
            mailbox = self._mailboxes[peer]
        except (KeyError, TypeError):
            raise self._unknown(peer) from None
        if mailbox.failure is not None:
            raise mailbox.failure.again()
        lane = mailbox.lane
        if type(value) is bytes and len(value) <= lane.small_size_max:
            # Hot: the common message costs one header, one list and two sums here; `partywire perf` has the rounds.
            if lane.parts_size < lane.parts_size_max and not mailbox.is_sending:
                size = len(value)
                lane.parts_size += size + 9
                if not lane.is_dirty:
                    lane.mark_dirty()
                lane.gather((_pack_header(self.id, _BYTES, size), value))
                return
            await self._send_encoded(mailbox, (_BYTES, len(value), b"", value), timeout)
            return
        encoded = encode(value)
        descriptor, length, head, body = encoded
        size = len(head) + len(body)
        if size <= lane.small_size_max and lane.parts_size < lane.parts_size_max and not mailbox.is_sending:
            header = frame_header(self.id, descriptor, length)
            lane.parts_size += len(header) + size
            if not lane.is_dirty:
                lane.mark_dirty()
            lane.gather((header, head, body))
            return
        await self._send_encoded(mailbox, encoded, timeout)

    async def _send_encoded(self, mailbox: Mailbox, encoded: Encoded, timeout: float | None) -> None:
        """Send what is large, or what has to wait for room."""
        descriptor, length, head, body = encoded
        size = len(head) + len(body)
        lane = mailbox.lane
        limit = min(self.worker.message_size_max, lane.message_size_max)
        if length > MESSAGE_SIZE_MAX:  # counts bits in a VecBit
            limit = min(limit, MESSAGE_SIZE_MAX * size // length)
        if size > limit:
            raise MessageTooLarge(self.id, mailbox.peer, size, limit, "limits.message_mib")
        deadline = deadline_of(self.worker, timeout)
        while mailbox.is_sending:
            await self._wait_for_room(mailbox, deadline, timeout)
        mailbox.is_sending = True
        try:
            in_turn = False
            if size <= lane.small_size_max:
                if len(body) <= SMALL_SIZE_MAX and not isinstance(body, bytes):
                    body = bytes(body)
                header = frame_header(self.id, descriptor, length)
                while not lane.try_append(header, head, body, in_turn):
                    await self._wait_for_room(mailbox, deadline, timeout)
                    in_turn = True
                return
            while lane.waiters and not in_turn:
                await self._wait_for_room(mailbox, deadline, timeout)
                in_turn = True
            await self._send_chunks(mailbox, encoded, deadline, timeout)
        except ShmError as error:
            self.worker.link_life.lose_ring(lane, f"the ring to the I/O process failed: {error}")
            self._raise_failure(mailbox)
            raise
        finally:
            mailbox.is_sending = False
            lane.wake_next()

    async def _send_chunks(self, mailbox: Mailbox, encoded: Encoded, deadline: float, timeout: float | None) -> None:
        begun = may_have_begun = False
        lane = mailbox.lane
        body: object = encoded[3]
        chunks = body.chunks(lane, self.id) if isinstance(body, PackedObject) else lane.chunks(self.id, *encoded)
        try:
            while True:
                may_have_begun = True  # an exception (Ctrl-C) may come before or behind the publication
                written = next(chunks, None)
                if written is None:
                    return
                may_have_begun = begun = begun or written
                if not written:
                    await self._wait_for_room(mailbox, deadline, timeout)
                else:
                    await self._let_others_go_on()
                    self._raise_failure(mailbox)
        except ShmError:
            raise  # the lane is lost, which says more
        except BaseException:
            if may_have_begun and self.failure is None and mailbox in self._peers:  # else it has begun again since
                # The peer has half of a message; whatever came next would be taken for its other half.
                self.abort(f"a send to {mailbox.peer} was cancelled half way")
            raise

    async def _let_others_go_on(self) -> None:
        """End our turn: what other sessions have to send goes between two fragments of a large message."""
        wait = Wait(self.worker)
        self.worker.set_timer(wait, self.worker.clock())
        try:
            await wait
        finally:
            wait.deadline = NEVER

    async def _wait_for_room(self, mailbox: Mailbox, deadline: float, timeout: float | None) -> None:
        """Stand in line for the lane. Raises when the session has failed or the deadline has passed meanwhile."""
        lane = mailbox.lane
        wait = Wait(self.worker)
        mailbox.room_waits.append(wait)
        lane.add_waiter(wait)
        if deadline < NEVER:
            self.worker.set_timer(wait, deadline)
        try:
            await wait
        finally:
            wait.deadline = NEVER
            mailbox.room_waits.remove(wait)
            lane.remove_waiter(wait)
        self._raise_failure(mailbox)
        if self.worker.clock() >= deadline and timeout is not None:
            raise self._time_out(mailbox, timeout, "trying to send to")

    async def broadcast(self, value: object, *, timeout: float | None = None) -> None:
        """Send the same message to every peer. Raises like `send`."""
        timeout = shared_timeout(self.worker, timeout)
        for mailbox in self._peers:
            await self.send(mailbox.peer, value, timeout=timeout)

    # Receiving.

    async def _recv(self, peer: str | int, *, out: Any = None, timeout: float | None = None) -> Any:
        """Receive the next message of a peer, named or by index.

        With `out` (a numpy array, or a bytearray for bytes) the message must have exactly its dtype and shape, and is
        put into its memory; a large array is written there as it arrives. `out` is returned. After an error its
        contents are undefined.

        A message that is there already is returned without yielding. Cancelling the call loses no message.

        Raises:
            SessionTimeout: nothing came within `timeout` seconds; the session is over.
            UnexpectedMessage: the message does not fit `out`; it stays first in line and the session goes on.
            SessionDesync: the peer has ended the job in which we still expect a message; the session is over.
            PeerLost, PeerClosed, PeerAborted, InboxOverflow: as their names say; the session is over.
        """
        try:
            mailbox = self._mailboxes[peer]
        except (KeyError, TypeError):
            raise self._unknown(peer) from None
        queue = mailbox.queue
        if not queue:
            if timeout is None and out is None:
                while not queue:
                    if mailbox.failure is not None or mailbox.waker is not None:
                        self._refuse_to_wait(mailbox)
                    await mailbox
            else:
                await self._wait_for_message(mailbox, out, timeout)
        if mailbox.behind:
            raise self._leftover(mailbox)
        entry = queue[0]
        if type(entry) is bytes and out is None:
            queue.popleft()
            self.worker.inbox_size -= len(entry) + MESSAGE_OVERHEAD
            return entry
        return self._take(mailbox, frame_of(entry, self.id), out)

    if not TYPE_CHECKING and not IS_COMPILED:
        send = _send
        recv = _recv

    async def _wait_for_message(self, mailbox: Mailbox, out: Any, timeout: float | None) -> None:
        if mailbox.waker is not None or mailbox.target is not None:
            self._refuse_to_wait(mailbox)
        deadline = deadline_of(self.worker, timeout)
        if isinstance(out, np.ndarray) and mailbox.assembly is None and out.flags.c_contiguous and out.flags.writeable:
            mailbox.target = Target(array_meta(out), byte_view(out))
        if timeout is not None:
            self.worker.set_timer(mailbox, deadline)
        try:
            while True:
                if mailbox.failure is not None or mailbox.waker is not None:
                    self._refuse_to_wait(mailbox)
                await mailbox  # also when the time is up already: what has arrived is taken in first
                if mailbox.queue:
                    return
                if timeout is not None and mailbox.failure is None and self.worker.clock() >= deadline:
                    raise self._time_out(mailbox, timeout, "waiting for a message of")
        except BaseException:
            mailbox.give_up_target()
            raise
        finally:
            mailbox.deadline = NEVER
            mailbox.clear_target()

    def _take(self, mailbox: Mailbox, frame: Frame, out: Any) -> Any:
        """Remove the first in line and return its value; it stays there when it does not fit."""
        _, descriptor, length, body = frame
        if descriptor == _JOB_END:
            raise self._job_over(mailbox)
        if descriptor == IN_PLACE:
            if mailbox.target is not None:
                self._refuse_to_wait(mailbox)  # it lies in the memory of a call that was woken and has not gone on
            mailbox.queue.popleft()
            return out
        try:
            if out is None:
                value = decode(descriptor, length, body, mailbox.peer)
            else:
                value = self._take_into(mailbox, descriptor, body, out)
        except LinkProtocolError as error:
            if descriptor == _OBJECT:
                raise UnexpectedMessage(self.id, mailbox.peer, "is an object; receive it with recv_object") from None
            self.fail(lost := PeerLost.by_message(mailbox, error), ResetCode.PROTOCOL, lost.cause)
            raise lost.again() from error
        mailbox.queue.popleft()
        self.worker.inbox_size -= len(body) + MESSAGE_OVERHEAD
        return value

    def _take_into(self, mailbox: Mailbox, descriptor: int, body: Any, out: Any) -> Any:
        if isinstance(out, np.ndarray):
            if descriptor != _ARRAY:
                raise UnexpectedMessage(self.id, mailbox.peer, "is not an array")
            dtype, shape, offset = split_array_untrusted(body, mailbox.peer)
            if dtype != out.dtype or shape != out.shape:
                what = f"is an array {dtype}{list(shape)}, not {out.dtype}{list(out.shape)}"
                raise UnexpectedMessage(self.id, mailbox.peer, what)
            source: NDArray[Any] = np.ndarray(shape, dtype, body, offset)
            check_text_untrusted(source, mailbox.peer)
            out[...] = source
        elif isinstance(out, (bytearray, memoryview)):
            if descriptor != _BYTES or len(body) != memoryview(out).nbytes:
                raise UnexpectedMessage(self.id, mailbox.peer, f"is not {memoryview(out).nbytes} bytes")
            memoryview(out).cast("B")[:] = body
        else:
            raise TypeError(f"out must be a numpy array, a bytearray or a memoryview, not {type(out).__name__}")
        return out

    async def recv_all(self, *, timeout: float | None = None) -> list[Any]:
        """Receive one message of every peer: a list by party index, with None at our own place. Raises like `recv`."""
        timeout = shared_timeout(self.worker, timeout)
        values: list[Any] = [None] * len(self.parties)
        for mailbox in self._peers:
            values[mailbox.lane.link.index] = await self.recv(mailbox.peer, timeout=timeout)
        return values

    async def gather(self, value: object, *, timeout: float | None = None) -> list[Any]:
        """Broadcast a value and receive everybody's: a list by party index, ours included."""
        timeout = shared_timeout(self.worker, timeout)
        await self.broadcast(value, timeout=timeout)
        values = await self.recv_all(timeout=timeout)
        values[self.party_index] = value
        return values

    async def exchange(self, peer: str | int, value: object, *, out: Any = None, timeout: float | None = None) -> Any:
        """Send a value to a peer and receive its own. Both may do it at once with any size."""
        timeout = shared_timeout(self.worker, timeout)
        await self.send(peer, value, timeout=timeout)
        return await self.recv(peer, out=out, timeout=timeout)

    async def sleep(self, seconds: float) -> None:
        """Let other sessions go on for so long. Nobody is told; one that fails meanwhile says so at its next call.

        What to use in a job of a batch: `asyncio.sleep` makes the job a task of an event loop, which then drives the
        whole worker.
        """
        worker = self.worker
        deadline = worker.clock() + seconds
        wait = Wait(worker)
        worker.set_timer(wait, deadline)
        try:
            while worker.clock() < deadline:
                await wait
        finally:
            wait.deadline = NEVER

    # Ending.

    def abort(self, reason: str = "") -> None:
        """Give the session up, here and at every peer; there PeerAborted names us and the reason. Never waits."""
        self.fail(SessionClosed(self.id, reason or "given up here"), ResetCode.ABORTED, reason)

    def close(self) -> None:
        """Forget the session here. Peers are not told; what was sent is delivered, late frames are dropped."""
        self.fail(SessionClosed(self.id, "closed here"))

    def fail(self, error: SessionError, code: ResetCode | None = None, reason: str = "") -> None:
        """End the session with an error; with a code the peers are told."""
        if self.failure is not None:
            return
        self.failure = error
        self.worker.table.live.pop(self.id, None)
        for mailbox in self._peers:
            lane = mailbox.lane
            lane.mailboxes.pop(self.id, None)
            if code is not None and not lane.is_over:
                lane.post(encode_reset(self.id, code, reason))
            mailbox.discard()
            mailbox.fail(error)
        if self.on_failure is not None:
            self.on_failure(error)

    def reset_by_peer(self, mailbox: Mailbox, code: ResetCode, reason: str) -> None:
        """A RESET arrived: the peer has told everybody else itself."""
        self.fail(PeerAborted(mailbox.peer, self.id, reason or code.name))

    async def reset(self, *, timeout: float | None = RESET_TIMEOUT_S) -> None:
        """Begin again with a fresh id that all parties agree on, after a failure or at any time.

        Every party has to call it for this session; the order in which sessions are reset does not matter. What was
        sent before is dropped wherever it still is, and counted (`late_frames_dropped`): none of it is ever taken for a
        message of the new life. A session that still works ends first, here and at the peers, where PeerAborted names
        us. A link that was lost is waited for.

        After an error, and when it is cancelled, the session is over as before, and `reset` may be called again: a
        party that comes later, or has finished alone, is met there.

        Raises:
            RendezvousTimeout: some party has not called it within `timeout` seconds, None for no limit.
            PeerLost: the link to a peer did not come back within `timeout` seconds, or broke again.
            PeerClosed: a peer has closed its party.
            UnsupportedByPeer: a peer's link speaks the iris protocol.
            RuntimeError: the session is one of a batch, or is being reset already.
        """
        if self.reset_refusal:
            raise RuntimeError(f"session {self.id} cannot be reset: {self.reset_refusal}")
        if self.worker.resets is None:
            raise RuntimeError(f"session {self.id} cannot be reset: it was not made by a party")
        await self.worker.resets.reset(self, timeout)

    # Made by the worker.

    def begin_again(self, session_id: int) -> None:
        """Set-up of a further life: nothing is left of the one before but `origin`. The session is over by now."""
        self.id = session_id
        self._mailboxes.clear()
        self._peers = []
        self._settled = {}
        self.failure = None
        self.job = self.jobs_final = 0

    def add_peer(self, lane: Lane) -> None:
        """Set-up: the lane that carries this session to one peer."""
        mailbox = Mailbox(self, lane, lane.link.name)
        self._mailboxes[lane.link.name] = mailbox
        self._mailboxes[lane.link.index] = mailbox
        self._peers.append(mailbox)
        self._settled[mailbox] = 0

    def register(self) -> None:
        """Set-up: from now on frames are delivered."""
        for mailbox in self._peers:
            mailbox.lane.mailboxes[self.id] = mailbox

    # Refusing.

    def _mailbox_of(self, peer: str | int) -> Mailbox:
        try:
            return self._mailboxes[peer]
        except (KeyError, TypeError):
            raise self._unknown(peer) from None

    def _unknown(self, peer: object) -> UnknownPeer:
        return UnknownPeer.of(peer, tuple(mailbox.peer for mailbox in self._peers))

    def _raise_failure(self, mailbox: Mailbox) -> None:
        if mailbox.failure is not None:
            raise mailbox.failure.again()

    def _refuse_to_wait(self, mailbox: Mailbox) -> None:
        self._raise_failure(mailbox)
        raise RuntimeError(f"two calls wait for a message of {mailbox.peer} on session {self.id} at once")

    def _time_out(self, mailbox: Mailbox, seconds: float, what: str) -> SessionTimeout:
        error = SessionTimeout(self.id, mailbox.peer, float(seconds), what)  # a Timeout does not survive pickling
        self.fail(error, ResetCode.ABORTED, str(error))
        return error
