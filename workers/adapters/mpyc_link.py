"""What MPyC sees of a peer: `parties[pid].protocol`, with the calls and the meaning of its own MessageExchanger.

Between MPyC's runtime, which sends and receives payloads labelled by a program counter in any order, and one session,
which carries messages in the order in which they were sent. The one invariant: each payload that arrives is handed out
once, to whoever asks for its label, before or after it came; when none can come any more, whoever asks is told why.

On the wire a payload is one message, its label in 8 bytes (little endian, signed) and then its bytes. One that is
large, or empty, is two: the label alone, and the payload as it is, so that no large buffer is copied for a label.

Driven by MPyC in its event loop (send, receive, close_connection) and by the transport (the rest), in one thread.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import TYPE_CHECKING, Final

from partywire.engine.errors import LinkProtocolError, PartyWireError
from partywire.engine.frames import HEADER, Descriptor

from ..errors import InboxOverflow, PeerClosed
from ..mailbox import MESSAGE_OVERHEAD, frame_of

if TYPE_CHECKING:
    import asyncio

    from ..lane import Lane
    from ..mailbox import Mailbox
    from ..scheduler import Slot
    from .mpyc_transport import MpycTransport

LABEL: Final = struct.Struct("<q")

_head = struct.Struct(HEADER.format + "q")
_pack_head = _head.pack
_HEAD_SIZE: Final = _head.size
_unpack_label = LABEL.unpack_from
_BYTES: Final = Descriptor.BYTES.value

SMALL_SIZE_MAX: Final = 16 * 1024
"""Payloads up to this are joined with their label; copying more costs more than a second frame."""

MPYC_HEADER_SIZE: Final = 12
"""What MPyC's own transport puts in front of a payload. `nbytes_sent` counts it, so that both report alike."""

EARLY_OVERHEAD: Final = 256
"""What a payload that nobody has asked for costs beside its bytes: a bytes header, an int and a place in a dict."""

BACKLOG_SIZE_MAX: Final = 64 * 1024 * 1024
"""Bytes for one peer that wait for room in the ring to it. MPyC's own transport has no bound; here `send` waits, and
the party goes on receiving meanwhile, so that parties who all send first do not stop each other."""


class MpycLink:
    """The connection with one peer. Finished by the first failure of the session, or when the party is closed."""

    __slots__ = (
        "_awaited", "_backlog", "_backlog_size", "_count", "_expected", "_is_sending", "_lane", "_mailbox", "_payloads",
        "_queue", "_send", "_session_id", "_small_size_max", "_transport", "_turn", "_waker", "_worker", "failure",
        "nbytes_sent", "peer", "pid",
    )  # fmt: skip

    def __init__(self, transport: MpycTransport, pid: int) -> None:
        """`pid` is the peer's, and its index in the session."""
        self._transport = transport
        self.pid = pid
        self.peer = transport.session.parties[pid]
        self._send = transport.session.send
        self._session_id = transport.session.id
        self._mailbox: Mailbox = transport.session._mailbox_of(self.peer)
        self._queue, self._worker, self._lane = self._mailbox.queue, self._mailbox.worker, self._mailbox.lane
        self._small_size_max = self._lane.small_size_max - LABEL.size
        # Behind which arrivals, as the transport counts them, something small was sent last, and how many were.
        self._turn = -1
        self._count = 1
        # The label of a payload that comes as a message of its own, as soon as it has come.
        self._awaited: int | None = None
        self._waker = self.take_arrivals
        # As MPyC counts: 12 bytes and the payload for each message.
        self.nbytes_sent = 0
        # Label -> payload that nobody has asked for.
        self._payloads: dict[int, bytes] = {}
        # Label -> who waits for it.
        self._expected: dict[int, asyncio.Future[bytes]] = {}
        # Messages that wait for the one before them to go out.
        self._backlog: deque[bytes] = deque()
        self._backlog_size = 0
        self._is_sending = False
        # Why nothing more comes.
        self.failure: PartyWireError | None = None

    # What MPyC calls.

    def send(self, pc: int, payload: bytes) -> None:
        """Send a payload with its label. Waits only while more than BACKLOG_SIZE_MAX bytes have not gone out.

        Raises:
            SessionError, PartyFailed: the peer, or the session, is gone; not if the program is being ended for it.
            MessageTooLarge: the program cannot go on either.
        """
        size = len(payload)
        self.nbytes_sent += MPYC_HEADER_SIZE + size
        lane = self._lane
        if (
            0 < size <= self._small_size_max
            and not self._is_sending
            and self.failure is None
            and (gathered := lane.parts_size) < lane.parts_size_max
        ):
            # Hot: most payloads are a few bytes. As Session._send does it, with the label behind the header.
            lane.parts_size = gathered + _HEAD_SIZE + size
            frame = (_pack_head(self._session_id, _BYTES, LABEL.size + size, pc), bytes(payload))
            turn = self._transport.turn
            if turn == self._turn:
                self._count += 1
            else:
                was_alone = self._count == 1
                self._turn, self._count = turn, 1
                if was_alone and not gathered:
                    self._push(lane, frame)
                    return
            if not lane.is_dirty:
                lane.mark_dirty()
            lane.gather(frame)
            return
        try:
            if 0 < size <= SMALL_SIZE_MAX:
                self._post(LABEL.pack(pc) + payload)
            else:
                self._post(LABEL.pack(pc))
                self._post(bytes(payload))
        except PartyWireError as error:
            self._transport.need(self, error)

    def _push(self, lane: Lane, frame: tuple[bytes, bytes]) -> None:
        """Send a frame at once. Where payloads are sent one at a time, each the answer to an arrival, to wait for the
        end of the loop's turn would cost one more turn for each; where many are sent together, the turn ends with one
        system call for all. So the first behind an arrival goes out at once if the one before was alone as well."""
        try:
            lane.gather(frame)
            if not lane.send_direct():
                lane.mark_dirty()
        except BaseException:
            lane.mark_dirty()  # Ctrl-C: what is not out is not forgotten
            raise

    def receive(self, pc: int) -> bytes | asyncio.Future[bytes]:
        """The payload with this label, or a future of it.

        Raises:
            PartyWireError: nothing more can come; not if the program is being ended for it.
        """
        payload = self._payloads.pop(pc, None)
        if payload is not None:
            self._transport.early_size -= len(payload) + EARLY_OVERHEAD
            return payload
        expected = self._expected.get(pc)
        if expected is None:
            if self.failure is not None:
                self._transport.need(self, self.failure)
            expected = self._expected[pc] = self._transport.loop.create_future()
        return expected

    def close_connection(self) -> None:
        """MPyC wants to end, with this peer among others: see MpycTransport.close_connection."""
        self._transport.close_connection()

    # Sending.

    def _post(self, message: bytes) -> None:
        if self._is_sending:
            self._backlog.append(message)
            self._backlog_size += len(message)
            if self._backlog_size > BACKLOG_SIZE_MAX:
                self._transport.wait_until(lambda: self._backlog_size <= BACKLOG_SIZE_MAX)
        elif not self._transport.try_complete(self._send(self.pid, message), self._has_sent):
            self._is_sending = True

    def _has_sent(self, slot: Slot) -> None:
        """The message that had to wait is out, or has failed, which the receiving side is told of as well."""
        self._is_sending = False
        try:
            if slot.error is not None:
                raise slot.error
            while self._backlog and not self._is_sending:
                message = self._backlog.popleft()
                self._backlog_size -= len(message)
                self._is_sending = not self._transport.try_complete(self._send(self.pid, message), self._has_sent)
        except BaseException as error:
            self._backlog.clear()
            self._backlog_size = 0
            self._transport.give_up(self, error)
        if not self._is_sending:
            self._transport.notify()

    # Receiving.

    def take_arrivals(self) -> None:
        """Hand out every message that has come, and do so again whenever something comes: called by the mailbox, inside
        the worker's pass, without a task, a future or a turn of the loop in between."""
        mailbox, queue, worker = self._mailbox, self._queue, self._worker
        self._transport.turn += 1
        try:
            while queue:
                message: object = queue[0]
                if type(message) is not bytes:
                    session = self._transport.session
                    self._take_message_untrusted(session._take(mailbox, frame_of(queue[0], session.id), None))
                    continue
                queue.popleft()
                worker.inbox_size -= len(message) + MESSAGE_OVERHEAD
                if self._awaited is None and len(message) > LABEL.size:  # Hot: most messages are a label and few bytes
                    (pc,) = _unpack_label(message)
                    expected = self._expected.pop(pc, None)
                    if expected is None:
                        self._keep_untrusted(pc, message[LABEL.size :])
                    elif not expected.done():
                        expected.set_result(message[LABEL.size :])
                else:
                    self._take_message_untrusted(message)
        except Exception as error:
            self._transport.has_failed(self, error)
            return
        if mailbox.failure is None:
            mailbox.waker = self._waker
        else:
            self._transport.has_failed(self, mailbox.failure.again())

    def _take_message_untrusted(self, message: object) -> None:
        pc, self._awaited = self._awaited, None
        if type(message) is not bytes:
            what = "a message without a label" if pc is None else "a payload that is no bytes"
            raise self._broken(what, type(message).__name__)
        if pc is not None:
            self._take_untrusted(pc, message)
            return
        if len(message) < LABEL.size:
            raise self._broken("a message without a label", len(message))
        (pc,) = _unpack_label(message)
        if len(message) > LABEL.size:
            self._take_untrusted(pc, message[LABEL.size :])
        else:
            self._awaited = pc

    def _take_untrusted(self, pc: int, payload: bytes) -> None:
        expected = self._expected.pop(pc, None)
        if expected is None:
            self._keep_untrusted(pc, payload)
        elif not expected.done():
            expected.set_result(payload)

    def _keep_untrusted(self, pc: int, payload: bytes) -> None:
        """Nobody has asked for it yet."""
        if pc in self._payloads:
            raise self._broken("two payloads with one label", pc)
        transport = self._transport
        transport.early_size += len(payload) + EARLY_OVERHEAD
        self._payloads[pc] = payload
        if transport.early_size > transport.early_size_max:
            session, size, most = transport.session.id, len(payload), transport.early_size_max
            raise InboxOverflow(session, self.peer, size, most, "inbox_mib of the MPyC adapter")

    def _broken(self, what: str, seen: object) -> LinkProtocolError:
        return LinkProtocolError(self.peer, what, seen)

    # Ending.

    @property
    def is_expected(self) -> bool:
        """Whether somebody waits for a payload."""
        return bool(self._expected)

    @property
    def is_sending(self) -> bool:
        """Whether something has not gone out."""
        return self._is_sending

    @property
    def has_said_goodbye(self) -> bool:
        """Whether the peer has ended in good order."""
        return isinstance(self.failure, PeerClosed)

    def fail_expected(self, error: PartyWireError) -> None:
        """Let everybody who waits for a payload have the error."""
        expected, self._expected = self._expected, {}
        for future in expected.values():
            if not future.done():
                future.set_exception(error)
