"""The folder of a peer store, and transactions in it by LMDB, which is imported when the first one is opened.

Between the store and files that other processes use at the same time. What is promised:

- A write that returned is on disk, whole, whatever is killed afterwards; one that did not return is there whole or not.
- Any number of processes read while one writes; each transaction sees one state. Who writes or opens takes turns, and
  waits WRITE_TIMEOUT_S at most: LMDB's own lock has no deadline, so a lock on a file of ours is taken before it.
- One process is the owner of a folder (a node), which keeps a second node out of it. Others may write, in turns.
- The map grows up to `map_size_max` when it is full, here and wherever else the folder is open.

Assumed: a local file system, and nobody but us who may write the folder, which is checked; LMDB trusts its file.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar

from ..channel.credentials import what_others_may_write
from .errors import (
    PeerStoreBusy,
    PeerStoreError,
    PeerStoreFailed,
    PeerStoreInUse,
    PeerStoreMissing,
    PeerStoreUnavailable,
    PeerStoreUnusable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import lmdb

    Transaction: TypeAlias = "lmdb.Transaction[bytes]"

Mode: TypeAlias = Literal["own", "share", "read"]
"""Own: a node, the only one in the folder. Share: read and write in turns with it. Both make what is not there."""

MAP_SIZE_MIN: Final = 8 * 1024 * 1024
"""Of a new map: ten thousand peers with a few addresses each."""

MAP_SIZE_MAX: Final = 1024 * 1024 * 1024
"""What a store may grow to on disk: 65,536 peers that claim 16 KiB each."""

RESERVE_SIZE: Final = 16 * 1024 * 1024
"""Beyond that, so that what frees room has the pages that this takes."""

WRITE_TIMEOUT_S: Final = 5.0
"""For other writers to end. Each has one transaction of milliseconds, or a batch of a second."""

WRITE_RETRY_S: Final = 0.002
READERS_MAX: Final = 126
"""Read transactions at a time, of all processes together; LMDB's default."""

OWNER_FILE: Final = "owner.lock"
WRITER_FILE: Final = "writer.lock"
DATA_FILE: Final = "data.mdb"
DATABASES: Final = ("peers", "bans", "noise_keys", "quarantine", "meta")

T = TypeVar("T")


class MapIsFull(Exception):
    """Raised when a write does not fit into a map that may not grow; the store makes room, or says that it is full."""


class Environment:
    """An open folder. Safe from any thread of its process; not to be used behind a fork."""

    def __init__(self, path: Path, mode: Mode, *, map_size_max: int = MAP_SIZE_MAX) -> None:
        """Open, and make what is not there unless `mode` is "read".

        Raises:
            PeerStoreUnavailable, PeerStoreMissing, PeerStoreUnusable, PeerStoreInUse, PeerStoreBusy, PeerStoreFailed:
                as their docstrings say.
        """
        self.path = path
        self.mode = mode
        self.map_size_max = map_size_max
        self.databases: dict[str, Any] = {}
        """LMDB's handle of each of DATABASES."""
        self._lmdb = _lmdb()
        self._gate = threading.RLock()  # held while a read transaction is open, and while the map is changed
        self._writing = threading.Lock()
        self._owner_fd = -1
        self._writer_fd = -1
        self._env: lmdb.Environment | None = None
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        if self.mode == "read":
            if not (self.path / DATA_FILE).is_file():
                raise PeerStoreMissing(str(self.path))
        else:
            self._make_folder()
        for place in (self.path, self.path / DATA_FILE):
            if place.exists() and (what := what_others_may_write(place.stat())):
                raise PeerStoreUnusable(str(self.path), f"{place.name} {what}")
        if self.mode == "own":
            self._owner_fd = self._lock_file(OWNER_FILE)
            if not self._try_lock(self._owner_fd):
                raise PeerStoreInUse(str(self.path), _pid_in(self._owner_fd))
        self._writer_fd = self._lock_file(WRITER_FILE)
        with self._turn():  # also to read: what is looked at when a store is opened is not being changed
            self._open_lmdb()

    def _make_folder(self) -> None:
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise PeerStoreUnusable(str(self.path), f"the folder cannot be made: {error.strerror}") from error

    def _open_lmdb(self) -> None:
        lmdb = self._lmdb
        try:
            env = lmdb.open(
                str(self.path),
                map_size=0 if self.mode == "read" else MAP_SIZE_MIN,
                readonly=self.mode == "read",
                create=self.mode != "read",
                mode=0o600,
                max_dbs=len(DATABASES),
                max_readers=READERS_MAX,
                max_spare_txns=2,
            )
        except lmdb.Error as error:
            if "already open" in str(error):
                raise PeerStoreInUse(str(self.path), os.getpid()) from error
            raise PeerStoreUnusable(str(self.path), str(error)) from error
        self._env = env
        self._check_length(env)
        env.reader_check()  # forget readers that were killed: they would keep pages from being used again
        try:
            for name in DATABASES:
                self.databases[name] = env.open_db(name.encode(), create=self.mode != "read")
        except lmdb.NotFoundError as error:
            raise PeerStoreUnusable(str(self.path), "it is a database of something else") from error
        except lmdb.Error as error:
            raise PeerStoreUnusable(str(self.path), str(error)) from error

    def _check_length(self, env: lmdb.Environment) -> None:
        """Refuse a file that was cut: a page beyond its end would end this process with SIGBUS.

        That the file is shorter than its map proves nothing: LMDB does not write pages at the end that a transaction
        took and gave back. So then the pages that are in use are looked at one by one, without LMDB.
        """
        needed = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
        there = (self.path / DATA_FILE).stat().st_size
        if there >= needed:
            return
        verify = import_module("lmdb.verify")
        try:
            problems = [problem for problem in verify.verify(str(self.path)) if "beyond EOF" in problem]
        except verify.VerifyError as error:
            problems = [str(error)]
        if problems:
            raise PeerStoreUnusable(
                str(self.path), f"{DATA_FILE} has {there} bytes of {needed}: it was cut; put a copy in its place"
            )

    def close(self) -> None:
        """Give the folder back, behind whoever writes. Nothing may be called afterwards; a second time is fine."""
        with self._writing, self._gate:
            if self._env is not None:
                self._env.close()
                self._env = None
            for fd in (self._owner_fd, self._writer_fd):
                if fd >= 0:
                    os.close(fd)
            self._owner_fd = self._writer_fd = -1

    @contextmanager
    def reading(self) -> Iterator[Transaction]:
        """A transaction that reads one state. Nothing may be written meanwhile by the same thread.

        Raises:
            PeerStoreFailed, PeerStoreUnusable: LMDB refused.
        """
        with self._gate:
            transaction = self._begun(write=False)
            try:
                yield transaction
            except self._lmdb.Error as error:
                raise self._translated(error) from error
            finally:
                transaction.abort()

    def write(self, job: Callable[[Transaction], T], *, is_freeing: bool = False) -> T:
        """What `job` returns, once all that it wrote is on disk. It may be called again, in another transaction, when
        the map had to grow. `is_freeing`: it frees more than it takes, and may use the reserve.

        Raises:
            PeerStoreBusy: another process or thread does not end writing.
            PeerStoreFailed, PeerStoreUnusable: LMDB refused; nothing was written.
            MapIsFull: nothing was written.
        """
        deadline = time.monotonic() + WRITE_TIMEOUT_S
        if not self._writing.acquire(timeout=WRITE_TIMEOUT_S):
            raise PeerStoreBusy(str(self.path), WRITE_TIMEOUT_S, os.getpid())
        try:
            with self._turn(deadline):
                if not is_freeing:
                    return self._write(job, self.map_size_max)
                try:
                    return self._write(job, self.map_size_max + RESERVE_SIZE)
                finally:
                    self._end_reserve()
        finally:
            self._writing.release()

    def _write(self, job: Callable[[Transaction], T], map_size_max: int) -> T:
        while True:
            transaction = self._begun(write=True)
            try:
                outcome = job(transaction)
                transaction.commit()
                return outcome
            except self._lmdb.MapFullError:
                transaction.abort()
                self._grow(map_size_max)
            except self._lmdb.Error as error:
                transaction.abort()
                raise self._translated(error) from error
            except BaseException:
                transaction.abort()
                raise

    def _begun(self, *, write: bool) -> Transaction:
        assert self._env is not None, "the store is closed"
        try:
            return self._env.begin(write=write)
        except self._lmdb.MapResizedError:
            pass  # another process needed more room
        except self._lmdb.Error as error:
            raise self._translated(error) from error
        self._set_map_size(0)
        try:
            return self._env.begin(write=write)
        except self._lmdb.Error as error:
            raise self._translated(error) from error

    def _grow(self, map_size_max: int) -> None:
        assert self._env is not None
        with self._gate:
            size = self._env.info()["map_size"]
            if size >= map_size_max:
                raise MapIsFull
            self._env.reader_check()
            self._set_map_size(min(2 * size, map_size_max))

    def _end_reserve(self) -> None:
        assert self._env is not None
        if self._env.info()["map_size"] > self.map_size_max:
            self._set_map_size(self.map_size_max)  # or, if more is used, to that

    def _set_map_size(self, size: int) -> None:
        """0: what another process made it."""
        assert self._env is not None
        try:
            with self._gate:
                self._env.set_mapsize(size)
        except self._lmdb.Error as error:
            raise self._translated(error) from error

    # Locks.

    @contextmanager
    def _turn(self, deadline: float | None = None) -> Iterator[None]:
        deadline = time.monotonic() + WRITE_TIMEOUT_S if deadline is None else deadline
        while not self._try_lock(self._writer_fd):
            if time.monotonic() >= deadline:
                raise PeerStoreBusy(str(self.path), WRITE_TIMEOUT_S, _pid_in(self._writer_fd))
            time.sleep(WRITE_RETRY_S)
        try:
            yield
        finally:
            if self._writer_fd >= 0:
                fcntl.flock(self._writer_fd, fcntl.LOCK_UN)

    def _lock_file(self, name: str) -> int:
        try:
            return os.open(self.path / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise PeerStoreUnusable(str(self.path), f"{name} cannot be opened: {error.strerror}") from error

    def _try_lock(self, fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise PeerStoreUnusable(str(self.path), f"its file system has no locks: {error.strerror}") from error
        os.pwrite(fd, b"%-20d" % os.getpid(), 0)  # for the message of who comes and has to wait
        return True

    def _translated(self, error: Exception) -> PeerStoreError:
        if isinstance(error, self._lmdb.CorruptedError | self._lmdb.PageNotFoundError | self._lmdb.InvalidError):
            return PeerStoreUnusable(str(self.path), f"{error}; put a copy in its place")
        return PeerStoreFailed(str(self.path), str(error))


def _lmdb() -> Any:
    try:
        import lmdb
    except ImportError as error:
        raise PeerStoreUnavailable from error
    return lmdb


def _pid_in(fd: int) -> int:
    """Who holds a lock file; 0 if it does not say."""
    text = os.pread(fd, 20, 0).strip()
    return int(text) if text.isdigit() else 0
