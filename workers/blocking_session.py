"""BlockingSession: a session for plain code.

Between code without coroutines and its `Session`, whose promises hold here too. The one invariant: when a call returns,
what it sent is published.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from partywire.engine.frames import JobStatus

from .objects.calls import BlockingObjectCalls
from .session import RESET_TIMEOUT_S
from .waiting import run_blocking

if TYPE_CHECKING:
    from .session import Session


class BlockingSession(BlockingObjectCalls):
    """The form for plain code: each call returns when it is done, and what it sent is published then.

    While a call waits, the whole worker is served: other sessions receive, full rings drain.
    """

    __slots__ = ("_session", "_worker")

    def __init__(self, session: Session) -> None:
        self._session = session
        self._worker = session.worker

    @property
    def asynchronous(self) -> Session:
        """The same session for coroutines."""
        return self._session

    @property
    def id(self) -> int:
        """The number that all parties know the session by."""
        return self._session.id

    @property
    def is_bulk(self) -> bool:
        """Whether its messages travel on the bulk connections of all links."""
        return self._session.is_bulk

    @property
    def party_index(self) -> int:
        """Our own index among the parties."""
        return self._session.party_index

    @property
    def parties(self) -> tuple[str, ...]:
        """The names of all parties in index order."""
        return self._session.parties

    def __repr__(self) -> str:
        return f"Blocking{self._session!r}"

    def send(self, peer: str | int, value: object, *, timeout: float | None = None) -> None:
        """Like Session.send, and published when it returns."""
        run_blocking(self._worker, self._session.send(peer, value, timeout=timeout))

    def broadcast(self, value: object, *, timeout: float | None = None) -> None:
        """Like Session.broadcast."""
        run_blocking(self._worker, self._session.broadcast(value, timeout=timeout))

    def send_next(self, value: object, *, timeout: float | None = None) -> None:
        """Like Session.send_next."""
        run_blocking(self._worker, self._session.send_next(value, timeout=timeout))

    def send_prev(self, value: object, *, timeout: float | None = None) -> None:
        """Like Session.send_prev."""
        run_blocking(self._worker, self._session.send_prev(value, timeout=timeout))

    def recv(self, peer: str | int, *, out: Any = None, timeout: float | None = None) -> Any:
        """Like Session.recv."""
        return run_blocking(self._worker, self._session.recv(peer, out=out, timeout=timeout))

    def recv_all(self, *, timeout: float | None = None) -> list[Any]:
        """Like Session.recv_all."""
        return run_blocking(self._worker, self._session.recv_all(timeout=timeout))

    def gather(self, value: object, *, timeout: float | None = None) -> list[Any]:
        """Like Session.gather."""
        return run_blocking(self._worker, self._session.gather(value, timeout=timeout))

    def exchange(self, peer: str | int, value: object, *, out: Any = None, timeout: float | None = None) -> Any:
        """Like Session.exchange."""
        return run_blocking(self._worker, self._session.exchange(peer, value, out=out, timeout=timeout))

    def recv_next(self, *, out: Any = None, timeout: float | None = None) -> Any:
        """Like Session.recv_next."""
        return run_blocking(self._worker, self._session.recv_next(out=out, timeout=timeout))

    def recv_prev(self, *, out: Any = None, timeout: float | None = None) -> Any:
        """Like Session.recv_prev."""
        return run_blocking(self._worker, self._session.recv_prev(out=out, timeout=timeout))

    def sleep(self, seconds: float) -> None:
        """Like Session.sleep."""
        run_blocking(self._worker, self._session.sleep(seconds))

    def end_job(self, status: JobStatus = JobStatus.DONE, reason: str = "") -> int:
        """Like Session.end_job."""
        return run_blocking(self._worker, self._session.end_job(status, reason))

    def abort(self, reason: str = "") -> None:
        """Like Session.abort, and published when it returns."""
        self._session.abort(reason)
        self._worker.flush()

    def close(self) -> None:
        """Like Session.close."""
        self._session.close()

    def reset(self, *, timeout: float | None = RESET_TIMEOUT_S) -> None:
        """Like Session.reset."""
        run_blocking(self._worker, self._session.reset(timeout=timeout))
