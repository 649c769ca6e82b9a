"""The compiled core. Optional: shm/compiled.py says whether it is used."""

# shm: the classes of shm/pure.py in C.

from partywire.shm.pure import BellCore as BellCore
from partywire.shm.pure import ReaderCore as ReaderCore
from partywire.shm.pure import WriterCore as WriterCore

def fence() -> None:
    """Order every store before it with every load behind it, as all processes see it."""

# engine: the hot path of connection_pump.py.

DRAINED: int
MORE: int
FULL: int
ENDED: int

def receive_into_ring(
    writer: WriterCore, fd: int, connection: int, epoch: int, size_max: int, size_min: int, batch: int, /
) -> tuple[int, int]:
    """Receive up to `batch` times into the ring, then publish.

    Returns the bytes received and how it ended: DRAINED, MORE, FULL, ENDED, or the negative of an errno.
    """

def receive_joined(
    writer: WriterCore, fd: int, connection: int, epoch: int, size_max: int, size_min: int, batch: int, lane: object, /
) -> tuple[int, int]:
    """Like receive_into_ring, and `receive` of the lane that reads the ring in this process; a cut body passes by."""

def send_from_ring(reader: ReaderCore, fd: int, size_max: int, /) -> int | tuple[int, int, bool, list[memoryview]]:
    """Send polled DATA records of up to `size_max` bytes with one system call, and release what the kernel took.

    Returns the bytes sent when that was everything there was to send; else the bytes sent, the errno of a broken socket
    or 0, whether a record of another kind was met, and the payloads that are polled and not sent.
    """
