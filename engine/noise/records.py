"""Transport records: a stream of bytes sealed, and opened again in any slices (Noise rev 34: 3, 5.1, 11.3, 13).

Between the two ends of a connection after `HandshakeState.split`; one RecordSealer and one RecordOpener at each. A
record is its length, two bytes big-endian, then that many bytes: ciphertext and tag. A record without plaintext is the
end of the stream, without which an attacker could cut a stream between two records unseen (section 13, session
termination).

The one invariant: what the opener delivers is a prefix of what the sealer was given, all of it once the end was told.

Both ends take a new key behind every REKEY_RECORDS records of a direction, counted, so that nothing about it is sent.

Copies: a view of at least STRAIGHT_SIZE_MIN bytes none (it is encrypted from where it is), a smaller one once, into its
record; when opening none if the caller has room for the whole record, and else once. The rest of a record that a slice
of the stream did not bring whole is copied once.
"""

from __future__ import annotations

import struct
from enum import Enum
from typing import TYPE_CHECKING, Final, NoReturn

from partywire.shm.blank_pages import blank_pages

from ..errors import LocalProtocolError
from .cipher import TAG_SIZE, Buffer, CipherState, InvalidTag
from .errors import RecordRefused

if TYPE_CHECKING:
    from collections.abc import Sequence

_LENGTH: Final = struct.Struct(">H")

HEADER_SIZE: Final = 2

CIPHERTEXT_SIZE_MAX: Final = 65_535
"""Ciphertext and tag of one record: the largest Noise message (section 3), and what two bytes can say."""

PLAINTEXT_SIZE_MAX: Final = CIPHERTEXT_SIZE_MAX - TAG_SIZE

RECORD_OVERHEAD: Final = HEADER_SIZE + TAG_SIZE

STRAIGHT_SIZE_MIN: Final = 32 * 1024
"""From here on a view is not joined with its neighbours. Below, copying it is cheaper than a further record at both
ends; here the two cost about the same, and what is not copied does not push anything out of the caches."""

SEAL_SIZE_MAX: Final = 256 * 1024
"""Plaintext of one call of `seal`: one fragment. Its ciphertext is sent with one system call, and both stay in the
processor's second-level cache; more gains nothing."""

REKEY_RECORDS: Final = 2**16
"""Records under one key. They are 2**32 bytes at most, 2**28 blocks of AES, which leaves an attacker of AES-GCM an
advantage of 2**-73 (he may have 2**-57 by the bounds that TLS 1.3 uses). A key stolen from memory opens nothing that
was sent under the keys before it, so taking new ones often is worth it, and rarer than this it would cost no less that
anybody could notice."""

_RECORDS_MAX: Final = 2 * (SEAL_SIZE_MAX // (PLAINTEXT_SIZE_MAX - STRAIGHT_SIZE_MIN)) + 1
"""Of one `seal`. A record is large itself, or full but for a small view, or stands before a large one: so any two
neighbours hold more than PLAINTEXT_SIZE_MAX - STRAIGHT_SIZE_MIN bytes."""

_SEALED_SIZE_MAX: Final = SEAL_SIZE_MAX + RECORD_OVERHEAD * _RECORDS_MAX


class SealerState(Enum):
    """Where a sealer stands."""

    OPEN = "open"
    ENDED = "ended"
    FAILED = "failed"


class RecordSealer:
    """The sending half. Driven by the owner of the bytes."""

    def __init__(self, cipher: CipherState) -> None:
        """`cipher` is the first of `HandshakeState.split`, and ours alone from here on.

        Memory: about SEAL_SIZE_MAX, which the kernel provides as far as it is used.
        """
        self._cipher: Final = cipher
        self._state = SealerState.OPEN
        self._until_rekey = REKEY_RECORDS
        self._sealed: Final = blank_pages(_SEALED_SIZE_MAX)  # lent to the caller until the next call
        self._size = 0  # what the running call has written there

    def seal(self, views: Sequence[Buffer], size_max: int = SEAL_SIZE_MAX) -> tuple[memoryview, int]:
        """Seal bytes from the front of `views`, at most `size_max` and SEAL_SIZE_MAX, in as few records as is sensible.

        Returns:
            The records, valid until the next call of `seal`; and how many bytes of plaintext are in them, at least 1.
            The caller may change `views` at once.

        Raises:
            ValueError: there is not a single byte to seal.
            LocalProtocolError: the end was sealed, or an earlier call failed.
            NonceExhausted: the sealer is dead.
        """
        self._begin("seal")
        left = size_max = min(size_max, SEAL_SIZE_MAX)
        small: list[Buffer] = []  # what the next record is joined of
        small_size = 0
        for view in views:
            size = len(view)
            if size > left:
                view = memoryview(view)[:left]
                size = left
            left -= size
            if size >= STRAIGHT_SIZE_MIN:
                if small_size:
                    self._write(small, small_size)
                view, size = self._write_straight(memoryview(view))
                small = [view]
                small_size = size
            else:
                if small_size + size > PLAINTEXT_SIZE_MAX:
                    self._write(small, small_size)
                    small = []
                    small_size = 0
                small.append(view)
                small_size += size
            if not left:
                break
        if small_size:
            self._write(small, small_size)
        self._state = SealerState.OPEN
        if not self._size:
            raise ValueError("nothing to seal")
        return self._sealed[: self._size], size_max - left

    def seal_end(self) -> bytes:
        """The record that tells the peer's opener that nothing follows. The last thing that is sealed; what `seal` lent
        stays as it is.

        Raises:
            LocalProtocolError: it was sealed before, or an earlier call failed.
            NonceExhausted: the sealer is dead.
        """
        self._begin("seal_end")
        record = _LENGTH.pack(TAG_SIZE) + self._cipher.encrypt(b"", b"")
        self._state = SealerState.ENDED
        return record

    def _begin(self, event: str) -> None:
        """Begin a call: whatever is raised before its end leaves us dead, as a nonce may be spent for nothing."""
        if self._state is not SealerState.OPEN:
            raise LocalProtocolError("noise sealer", self._state.value, event)
        self._state = SealerState.FAILED
        self._size = 0

    def _write_straight(self, view: memoryview) -> tuple[memoryview, int]:
        """Write records from a large view and return what is left of it, which is small."""
        size = len(view)
        position = 0
        while size - position >= STRAIGHT_SIZE_MIN:
            count = min(size - position, PLAINTEXT_SIZE_MAX)
            self._write([view[position : position + count]], count)
            position += count
        return view[position:], size - position

    def _write(self, pieces: list[Buffer], size: int) -> None:
        """Write one record of all pieces, `size` bytes together."""
        start = self._size
        end = start + RECORD_OVERHEAD + size
        _LENGTH.pack_into(self._sealed, start, size + TAG_SIZE)
        plaintext = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._cipher.encrypt_into(plaintext, self._sealed[start + HEADER_SIZE : end])
        self._size = end
        self._until_rekey -= 1
        if not self._until_rekey:
            self._cipher.rekey()
            self._until_rekey = REKEY_RECORDS


class OpenerState(Enum):
    """Where an opener stands."""

    OPEN = "open"
    ENDED = "ended"  # the peer's end was opened
    FAILED = "failed"


class RecordOpener:
    """The receiving half. Driven by the owner of the bytes: `feed`, `open_into` until `has_more` is False, again."""

    def __init__(self, cipher: CipherState, peer: str = "") -> None:
        """`cipher` is the second of `HandshakeState.split`, and ours alone from here on; `peer` is for messages.

        Memory: at most two records of CIPHERTEXT_SIZE_MAX beside what is fed, as far as they are needed.
        """
        self._cipher: Final = cipher
        self._peer: Final = peer
        self._state = OpenerState.OPEN
        self._until_rekey = REKEY_RECORDS
        self._fed = memoryview(b"")  # of the caller
        self._position = 0  # what of it was looked at
        self._part = bytearray()  # the first bytes of a record that was not fed whole
        self._whole: memoryview | None = None  # ciphertext of the next record, if it is there
        self._spilled = memoryview(b"")  # plaintext for which the caller had no room
        self._failure: RecordRefused | None = None  # found behind bytes that were to be delivered first
        self.has_more = False
        """Whether `open_into` has something to say without being fed: bytes, the end, or an error."""

    @property
    def is_ended(self) -> bool:
        """Whether the peer's end was reached: everything it sent has been delivered."""
        return self._state is OpenerState.ENDED

    def feed(self, ciphertext: Buffer) -> None:
        """Take the next slice of the stream. Called while `has_more` is False.

        `ciphertext` is not copied and must not change as long as `has_more` is True.

        Raises:
            LocalProtocolError: `has_more` is True, or an earlier call failed.
        """
        if self.has_more or self._state is OpenerState.FAILED:
            state = self._state.value if self._state is OpenerState.FAILED else "with more to open"
            raise LocalProtocolError("noise opener", state, "feed")
        self._fed = memoryview(ciphertext)
        self._position = 0
        self._look()
        self.has_more = self._whole is not None or self._failure is not None

    def open_into(self, view: memoryview) -> int | None:
        """Open whole records into `view`, as many as are there and fit; one that does not fit is delivered in parts.

        Returns:
            How many bytes; 0 at the end of the stream, again and again; None if a whole record must be fed first.

        Raises:
            RecordRefused: the next record is not the one that the peer sealed here. What was before it has been
                delivered by earlier calls, and nothing behind it ever is.
            LocalProtocolError: an earlier call failed.
            ValueError: `view` is empty.
        """
        if self._state is OpenerState.FAILED:
            raise LocalProtocolError("noise opener", self._state.value, "open_into")
        room = len(view)
        if not room:
            raise ValueError("no room to open a record into")
        count = self._unspill(view)
        while not self._spilled and (ciphertext := self._whole) is not None:
            size = len(ciphertext) - TAG_SIZE
            if size <= room - count:
                if not self._open_untrusted(ciphertext, view[count : count + size]):
                    break
                count += size
            elif count:
                break
            else:
                plaintext = memoryview(bytearray(size))
                if self._open_untrusted(ciphertext, plaintext):
                    self._spilled = plaintext.toreadonly()
                    count = self._unspill(view)
                break
        self.has_more = self._whole is not None or self._failure is not None or bool(self._spilled)
        if count:
            self.has_more = self.has_more or self._state is OpenerState.ENDED  # which the next call tells
            return count
        if self._failure is not None:
            self._fail(self._failure)
        return 0 if self.is_ended else None

    def receive_end_of_file(self) -> None:
        """The stream below ended. Called while `has_more` is False.

        Raises:
            RecordRefused: it was cut off before the peer's end.
            LocalProtocolError: `has_more` is True, or an earlier call failed.
        """
        if self._state is OpenerState.ENDED and not self.has_more:
            return
        if self.has_more or self._state is OpenerState.FAILED:
            raise LocalProtocolError("noise opener", self._state.value, "receive_end_of_file")
        where = f"{len(self._part)} bytes into a record" if self._part else "between two records"
        self._fail(self._refusal(f"the stream was cut off {where}"))

    # What happens inside.

    def _unspill(self, view: memoryview) -> int:
        """Deliver what is left of a record that had no room before; returns its size."""
        count = min(len(self._spilled), len(view))
        if count:
            view[:count] = self._spilled[:count]
            self._spilled = self._spilled[count:]
        return count

    def _open_untrusted(self, ciphertext: memoryview, plaintext: memoryview) -> bool:
        """Open the next record and find the one behind it; False, with `_failure` set, if it is refused."""
        self._whole = None
        self._state = OpenerState.FAILED  # unless everything below succeeds
        try:
            self._cipher.decrypt_into(ciphertext, plaintext)
        except InvalidTag:
            plaintext[:] = bytes(len(plaintext))  # what no tag vouches for is nobody's to see
            self._state = OpenerState.OPEN  # until the failure is told
            self._failure = self._refusal("its tag does not fit")
            return False
        self._until_rekey -= 1
        if not self._until_rekey:
            self._cipher.rekey()
            self._until_rekey = REKEY_RECORDS
        self._state = OpenerState.OPEN if plaintext else OpenerState.ENDED
        self._look()
        return True

    def _look(self) -> None:
        """Find the next whole record in what was fed, or keep the part of it that is there."""
        left = len(self._fed) - self._position
        if not left:
            return
        if self._state is OpenerState.ENDED:
            self._failure = self._refusal("it stands behind the end of the stream")
        elif self._part:
            self._complete_part()
        elif left < HEADER_SIZE:
            self._part = bytearray(self._take_fed(left))
        elif (size := self._record_size_untrusted(self._fed, self._position)) <= left:
            self._whole = self._take_fed(size)[HEADER_SIZE:]
        else:
            self._part = bytearray(self._take_fed(left))
        if self._failure is not None:
            self._whole = None

    def _complete_part(self) -> None:
        """Go on with a record whose first bytes were kept."""
        part = self._part
        part += self._take_fed(max(0, HEADER_SIZE - len(part)))  # at least a byte is there, so that it is whole now
        size = self._record_size_untrusted(part, 0)
        part += self._take_fed(size - len(part))
        if len(part) == size:
            self._whole = memoryview(part)[HEADER_SIZE:]
            self._part = bytearray()

    def _take_fed(self, size: int) -> memoryview:
        """The next bytes of what was fed, at most `size`."""
        taken = self._fed[self._position : self._position + size]
        self._position += len(taken)
        return taken

    def _record_size_untrusted(self, buffer: Buffer, start: int) -> int:
        """The size of the record that begins there, header included. Sets `_failure` if it can be none."""
        size: int = _LENGTH.unpack_from(buffer, start)[0]
        if size < TAG_SIZE:
            self._failure = self._refusal(f"it announces {size} bytes, less than a tag")
        return HEADER_SIZE + size

    def _refusal(self, what: str) -> RecordRefused:
        return RecordRefused(self._peer, self._cipher.position, what)

    def _fail(self, failure: RecordRefused) -> NoReturn:
        self._state = OpenerState.FAILED
        self.has_more = False
        self._failure = None
        try:
            raise failure
        finally:
            del failure  # else frame and error hold each other, and with them the ring that was to be opened into
