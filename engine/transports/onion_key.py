"""The file of an onion service's key: whoever can read it has the address.

Between onion services of ours and the disk. The one invariant: a key is written once, to a file of mode 0600 that was
not there, whole or not at all; and one that others can read is refused.

    ED25519-V3:<88 characters of base64>
    <56 characters>.onion

The key as Tor's control port gives it, then the service that it makes; the second line may be missing in a file that
was made by hand. Functions here wait for the disk.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ..key_file import write_key_file
from .errors import OnionKeyError

if TYPE_CHECKING:
    from pathlib import Path

FILE_SIZE_MAX: Final = 256
"""Bytes; what is written has 163."""

_FILE: Final = re.compile(r"(ED25519-V3:[A-Za-z0-9+/]{86}==)(?:\s+([a-z2-7]{56})\.onion)?\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class OnionKey:
    """A key as Tor takes it, and the id of its service, empty if unknown."""

    blob: str = field(repr=False)
    service_id: str


def read_key(path: Path) -> OnionKey | None:
    """The key in a file; None if there is no file.

    Raises:
        OnionKeyError: others can read it, or it is no key.
    """
    try:
        # Not to wait for the other end of a named pipe.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            mode = os.fstat(fd).st_mode
            data = file.read(FILE_SIZE_MAX + 1) if stat.S_ISREG(mode) else b""
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OnionKeyError(str(path), f"it cannot be read: {(error.strerror or str(error)).lower()}") from None
    if not stat.S_ISREG(mode) or mode & 0o077:
        raise OnionKeyError(str(path), "others may read it; make it a file of mode 0600, and think of a new key")
    match = _FILE.fullmatch(data.decode("latin-1"))
    if match is None or len(data) > FILE_SIZE_MAX:
        raise OnionKeyError(str(path), "it is not a line ED25519-V3:KEY as Tor's control port gives it")
    return OnionKey(match[1], match[2] or "")


def write_key(path: Path, key: OnionKey) -> None:
    """Keep a key.

    Raises:
        OnionKeyError: it cannot be written, there is a file already, or it is none that `read_key` would take.
    """
    text = f"{key.blob}\n{key.service_id}.onion\n"
    if not _FILE.fullmatch(text):
        raise OnionKeyError(str(path), "Tor made a key of another kind than ED25519-V3")
    try:
        write_key_file(path, text)
    except OSError as error:
        raise OnionKeyError(str(path), f"it cannot be written: {(error.strerror or str(error)).lower()}") from None
