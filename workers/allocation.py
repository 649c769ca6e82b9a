"""Keep the memory of messages that were freed, instead of giving it back to the kernel and faulting it in again.

Between malloc and whoever receives large messages. glibc maps each block above 128 KiB by itself and trims the end of
its heap early; a stream of 1 MiB messages then spends a third of the receiver's time on page faults. With the
thresholds set here freed memory stays with the process, up to KEPT_SIZE_MAX beyond what is in use.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

MAPPED_SIZE_MIN: Final = 32 * 1024 * 1024
"""Blocks from this size on are mapped by themselves and given back at once: the most that glibc takes."""

KEPT_SIZE_MAX: Final = 64 * 1024 * 1024
"""Free memory at the end of the heap beyond which it is given back."""

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_SETTINGS: Final = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Set both thresholds for this process. False: the user has set them, or the C library is not glibc.

    Source: mallopt(3). It changes nothing of what is allocated already, and may be called again.
    """
    if any(name in os.environ for name in _SETTINGS):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    mallopt.argtypes = (ctypes.c_int, ctypes.c_int)
    return bool(mallopt(_MMAP_THRESHOLD, MAPPED_SIZE_MIN)) and bool(mallopt(_TRIM_THRESHOLD, KEPT_SIZE_MAX))
