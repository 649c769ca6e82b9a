"""What can go wrong with a peer store, as types with fields.

PartyWireError
└── PeerStoreError
    ├── PeerStoreUnavailable    the library that keeps it is not installed
    ├── PeerStoreMissing        there is none in that folder
    ├── PeerStoreUnusable       there is something in that folder that cannot be used, and why
    ├── PeerStoreInUse          another node has it
    ├── PeerStoreBusy           somebody else writes, and does not end
    ├── PeerStoreFull           nothing more fits, and nothing may be dropped for it
    ├── PeerStoreFailed         the system or the library refused to read or write
    └── PeerRecordInvalid       bytes that are no record, a record that breaks a limit

Fields hold paths, sizes and ids; never what a record holds.
"""

from __future__ import annotations

from ..errors import PartyWireError


class PeerStoreError(PartyWireError):
    """Root of what goes wrong with a peer store."""


class PeerStoreUnavailable(PeerStoreError):
    """Raised when the library `lmdb` is not installed."""

    def __str__(self) -> str:
        return "a peer store needs the library lmdb, which is not installed: pip install 'partywire[node]'"


class PeerStoreMissing(PeerStoreError):
    """Raised when a store is to be read, and there is none."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"there is no peer store in {self.path}; a node that starts there makes one, and so does `peers add`"


class PeerStoreUnusable(PeerStoreError):
    """Raised when a folder holds no peer store, one that is damaged or of another version, or others may write it."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(path, what)
        self.path = path
        self.what = what

    def __str__(self) -> str:
        return f"the peer store in {self.path} cannot be used: {self.what}"


class PeerStoreInUse(PeerStoreError):
    """Raised when a node opens the store of another one that runs."""

    def __init__(self, path: str, pid: int) -> None:
        super().__init__(path, pid)
        self.path = path
        self.pid = pid

    def __str__(self) -> str:
        who = f"process {self.pid}" if self.pid else "another process"
        return f"the peer store in {self.path} belongs to {who}; give each node a folder of its own, or stop that one"


class PeerStoreBusy(PeerStoreError):
    """Raised when another process has been writing for too long; nothing was changed."""

    def __init__(self, path: str, waited_s: float, pid: int) -> None:
        super().__init__(path, waited_s, pid)
        self.path = path
        self.waited_s = waited_s
        self.pid = pid

    def __str__(self) -> str:
        who = f"process {self.pid}" if self.pid else "another process"
        return (
            f"{who} has been writing to the peer store in {self.path} for {self.waited_s:g} s; nothing was changed. "
            "If it is stopped, continue or end it; then try again"
        )


class PeerStoreFull(PeerStoreError):
    """Raised when nothing more fits, and everything that is there was put there by a person; nothing was changed."""

    def __init__(self, path: str, what: str, limit: int) -> None:
        super().__init__(path, what, limit)
        self.path = path
        self.what = what
        self.limit = limit

    def __str__(self) -> str:
        return (
            f"the peer store in {self.path} is full: at most {self.limit} {self.what}. Remove peers for good with "
            "`partywire peers remove --forget`, or bans with `partywire peers unban`"
        )


class PeerStoreFailed(PeerStoreError):
    """Raised when reading or writing failed; of what was to be written nothing was."""

    def __init__(self, path: str, cause: str) -> None:
        super().__init__(path, cause)
        self.path = path
        self.cause = cause

    def __str__(self) -> str:
        return f"the peer store in {self.path} failed: {self.cause}; nothing was changed. Check the disk and its room"


class PeerRecordInvalid(PeerStoreError):
    """Raised when bytes are no record of a peer, or no ban."""

    def __init__(self, what: str, seen: object) -> None:
        super().__init__(what, seen)
        self.what = what
        self.seen = seen

    def __str__(self) -> str:
        return f"this is no record of a peer store: {self.what}: {self.seen}"
