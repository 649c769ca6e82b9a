"""Private memory that the kernel provides page by page, as it is used for the first time.

For buffers that are large because a lot may come at once, and of which most owners use a page or two: a bytearray of
that size is filled with zeros when it is made, which costs as long as a handshake and all of its memory.
"""

from __future__ import annotations

import mmap


def blank_pages(size: int) -> memoryview:
    """Zeros, to be written to; given back with the last view of them. Not for sizes below some pages."""
    return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
