"""A key in a new file of its own, that of an identity or of an onion service.

The one invariant: behind a call the file is there whole, on the disk and for our user only, or not at all; a file that
was there before is never replaced.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def write_key_file(path: Path, text: str) -> None:
    """Write it.

    Raises:
        OSError: it cannot be written, or there is a file at `path` (FileExistsError).
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(fd)
        os.link(draft, path)  # unlike rename it replaces nothing
    finally:
        os.unlink(draft)
