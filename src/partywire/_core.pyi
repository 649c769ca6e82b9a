"""The compiled core. Optional: shm/compiled.py says whether it is used."""

# shm: the classes of shm/pure.py in C.

from partywire.shm.pure import BellCore as BellCore
from partywire.shm.pure import ReaderCore as ReaderCore
from partywire.shm.pure import WriterCore as WriterCore

def fence() -> None:
    """Order every store before it with every load behind it, as all processes see it."""
