"""A segment: one block of shared memory that holds one ring, from its creator to whoever gets the descriptor.

    0x0000  header page: the immutable block, then the words of counters.py, each with one writer
    0x1000  data[capacity], capacity a power of two

Guarantees
- Nothing has a name once `create` returned, so nothing is left in /dev/shm whatever is killed. A creator killed
  inside `create` may leave one name; it carries the creator's pid, and `sweep(pid)` removes it.
- All pages are reserved and mapped before anybody uses them: a small /dev/shm is an error here and not a SIGBUS later.
- No resource tracker process is ever started.
- The immutable block is read once, into private integers.

Assumptions
- Whoever holds the descriptor belongs to this party. It could truncate the file and so kill the other side with
  SIGBUS; POSIX shared memory has no seals. Everything else that it may store is validated where it is used.
"""

from __future__ import annotations

import mmap
import os
import stat
import struct
import sys
import zlib
from typing import TYPE_CHECKING, Any, Final

from .counters import RingStat, read_stat
from .errors import RingClosed, SegmentError

if TYPE_CHECKING:
    from types import ModuleType

# Where the C library of Linux keeps what shm_open names.
DIRECTORY: Final = "/dev/shm"
ADVICE_ROOM: Final = "make /dev/shm larger or the rings smaller"

HEADER_SIZE: Final = 4096
MAGIC: Final = int.from_bytes(b"MPCRING1", "little")
LAYOUT_VERSION: Final = 1
LAYOUT: Final = LAYOUT_VERSION << 32 | HEADER_SIZE

# 128 bytes hold two of the smallest records and serve tests; 1 GiB is arbitrary, far above any useful ring.
CAPACITY_MIN: Final = 128
CAPACITY_MAX: Final = 1 << 30

RECORD_HEADER_SIZE: Final = 32

# magic | layout | capacity | record_size_max | epoch | ring id | features, and a digest against accidents.
IMMUTABLE: Final = struct.Struct("<7Q")
DIGEST: Final = struct.Struct("<Q")

EPOCH_SIZE: Final = 8
NAME_RANDOM_SIZE: Final = 8
RING_ID_MAX: Final = (1 << 64) - 1


class Segment:
    """One mapped segment. Made by `create` or `attach`; not safe for several threads."""

    def __init__(self, fd: int, capacity: int, epoch: int, ring_id: int) -> None:
        self._fd = fd
        self._map = map_whole(fd, HEADER_SIZE + capacity)
        whole = memoryview(self._map)
        self.capacity: Final = capacity
        self.epoch: Final = epoch
        self.ring_id: Final = ring_id
        self.words: Final = whole[:HEADER_SIZE].cast("Q")
        self.data: Final = whole[HEADER_SIZE:]
        whole.release()

    @classmethod
    def create(cls, data_size: int, ring_id: int = 0) -> Segment:
        """Reserve, map and describe a new segment of `data_size` bytes, a power of two.

        Raises SegmentError when /dev/shm has no room for it; then nothing is left there.
        """
        if not CAPACITY_MIN <= data_size <= CAPACITY_MAX or data_size & (data_size - 1):
            raise ValueError(
                f"the data size of a segment is a power of two from {CAPACITY_MIN} to {CAPACITY_MAX}, not {data_size}"
            )
        if not 0 <= ring_id <= RING_ID_MAX:
            raise ValueError(f"a ring id has 64 bits, {ring_id} does not fit")
        fd = create_unnamed(HEADER_SIZE + data_size)
        try:
            epoch = int.from_bytes(os.urandom(EPOCH_SIZE), "little") or 1
            block = IMMUTABLE.pack(MAGIC, LAYOUT, data_size, data_size // 2 - RECORD_HEADER_SIZE, epoch, ring_id, 0)
            os.pwrite(fd, block + DIGEST.pack(zlib.crc32(block)), 0)
            return cls(fd, data_size, epoch, ring_id)
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def attach(cls, fd: int, epoch: int | None = None) -> Segment:
        """Map the segment behind `fd`, which belongs to the segment from this call on, even when it raises.

        Everything immutable is validated here, once. `epoch` is what the creator announced, if it did.
        Raises SegmentError when the descriptor is not a whole segment of this layout and epoch.
        """
        try:
            capacity, seen_epoch, ring_id = validate(fd)
            if epoch is not None and epoch != seen_epoch:
                raise SegmentError("a segment has another epoch than announced", seen_epoch, epoch, "ask for a new one")
            return cls(fd, capacity, seen_epoch, ring_id)
        except BaseException:
            close_owned(fd)
            raise

    @property
    def closed(self) -> bool:
        return self._fd < 0

    def fileno(self) -> int:
        """The descriptor to send to the other side; it stays ours."""
        if self._fd < 0:
            raise RingClosed("the segment")
        return self._fd

    def stat(self) -> RingStat:
        """The figures of the ring in this segment."""
        if self._fd < 0:
            raise RingClosed("the segment")
        return read_stat(self)

    def close(self) -> None:
        """Give the mapping and the descriptor back; calling it again does nothing.

        Views of the data that somebody still holds stay valid and keep the mapping until the last of them goes.
        """
        if self._fd < 0:
            return
        os.close(self._fd)
        self._fd = -1
        self.words.release()
        self.data.release()
        try:
            self._map.close()
        except BufferError:
            pass  # a lent view lives; the mapping ends with it

    def __repr__(self) -> str:
        state = "closed" if self._fd < 0 else f"fd {self._fd}"
        return f"Segment({state}, capacity={self.capacity}, ring_id={self.ring_id:#x})"


def sweep(pid: int) -> list[str]:
    """Remove what a creator that died inside `create` left in /dev/shm; returns the removed names.

    Call it after the process `pid` was reaped: a living creator would lose the block that it is just making.
    """
    prefix = f"partywire-{pid}-"
    removed = []
    for name in os.listdir(DIRECTORY):
        if name.startswith(prefix):
            try:
                os.unlink(f"{DIRECTORY}/{name}")
            except OSError:
                continue  # somebody else's, or swept meanwhile
            removed.append(name)
    return removed


# Making.


def create_unnamed(size: int) -> int:
    """A descriptor of `size` reserved bytes whose name is gone already."""
    refuse_too_large(size)
    module = shared_memory_module()
    name = f"partywire-{os.getpid()}-{os.urandom(NAME_RANDOM_SIZE).hex()}"
    options: dict[str, Any] = {"track": False} if sys.version_info >= (3, 13) else {}
    try:
        block = module.SharedMemory(name=name, create=True, size=size, **options)
    except OSError as error:
        raise SegmentError(
            "no shared memory block can be created", error.strerror, advice="look at /dev/shm"
        ) from error
    try:
        path = f"{DIRECTORY}/{name}"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        finally:
            os.unlink(path)
    finally:
        block.close()  # its own mapping was never touched; ours is made pre-faulted
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        os.close(fd)
        raise SegmentError(f"/dev/shm could not reserve {size} bytes", error.strerror, advice=ADVICE_ROOM) from error
    return fd


def refuse_too_large(size: int) -> None:
    """An absurd reservation would meet the out-of-memory killer before ENOSPC, so the room is looked at first."""
    try:
        room = os.statvfs(DIRECTORY)
    except OSError as error:
        raise SegmentError("there is no usable /dev/shm", error.strerror, advice="mount a tmpfs there") from error
    free = room.f_bavail * room.f_frsize
    # A tmpfs without a size limit says 0 blocks in all.
    if room.f_blocks and size > free:
        raise SegmentError("a shared memory block does not fit /dev/shm", size, free, ADVICE_ROOM)


class NoTracker:
    """Stands where SharedMemory looks for the resource tracker."""

    def register(self, name: str, kind: str) -> None:
        pass

    def unregister(self, name: str, kind: str) -> None:
        pass


def shared_memory_module() -> ModuleType:
    """multiprocessing.shared_memory, unable to start a resource tracker.

    From 3.13 on SharedMemory has `track=False`. Before, creating a block starts a tracker process, which would
    outlive a killed party, hold its descriptors, and unlink names that are long gone. A private copy of the module
    whose tracker does nothing leaves the one that the user's own code imports as it is.
    """
    import importlib.util  # only creators of segments pay for these imports

    name = "multiprocessing.shared_memory"
    module = private_modules.get(name)
    if module is None:
        if sys.version_info >= (3, 13):
            module = importlib.import_module(name)
        else:
            spec = importlib.util.find_spec(name)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            module.resource_tracker = NoTracker()  # type: ignore[attr-defined]
        private_modules[name] = module
    return module


private_modules: Final[dict[str, ModuleType]] = {}


# Attaching.


def validate(fd: int) -> tuple[int, int, int]:
    """Capacity, epoch and ring id of the segment behind `fd`, read through the file and not through a mapping:
    a truncated file is an error there and a SIGBUS here."""
    try:
        status = os.fstat(fd)
        block = os.pread(fd, IMMUTABLE.size + DIGEST.size, 0) if stat.S_ISREG(status.st_mode) else b""
    except OSError as error:
        raise SegmentError("a segment's descriptor cannot be read", error.strerror) from error
    if len(block) != IMMUTABLE.size + DIGEST.size:
        raise SegmentError("a descriptor is no segment: it holds too few bytes", len(block))
    magic, layout, capacity, record_size_max, epoch, ring_id, features = IMMUTABLE.unpack_from(block)
    (digest,) = DIGEST.unpack_from(block, IMMUTABLE.size)
    if magic != MAGIC:
        raise SegmentError("a descriptor is no segment: its magic is wrong", f"{magic:#x}", f"{MAGIC:#x}")
    if digest != zlib.crc32(block[: IMMUTABLE.size]):
        raise SegmentError("a segment's header does not match its digest")
    if layout != LAYOUT:
        raise SegmentError("a segment has another layout", f"{layout:#x}", f"{LAYOUT:#x}", "use one version everywhere")
    if not CAPACITY_MIN <= capacity <= CAPACITY_MAX or capacity & (capacity - 1):
        raise SegmentError("a segment's capacity is no power of two in range", capacity)
    if status.st_size != HEADER_SIZE + capacity:
        raise SegmentError("a segment's file is not as large as it says", status.st_size, HEADER_SIZE + capacity)
    if record_size_max != capacity // 2 - RECORD_HEADER_SIZE or features != 0 or epoch == 0:
        raise SegmentError("a segment's header contradicts itself")
    return capacity, epoch, ring_id


def close_owned(fd: int) -> None:
    """Close a descriptor that may never have been one: the error under way says more than EBADF would."""
    try:
        os.close(fd)
    except OSError:
        pass


def map_whole(fd: int, size: int) -> mmap.mmap:
    """Map all of a segment with its page tables filled, so that the first lap of the ring takes no faults."""
    flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
    try:
        return mmap.mmap(fd, size, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    except (OSError, ValueError) as error:
        raise SegmentError(f"a segment of {size} bytes cannot be mapped", str(error)) from error
