"""Jobs in lockstep on a session: every party tells every other where one ends and the next begins.

Between `Session`, of which this is a part, and the scheduler, which runs one job after another. The one invariant: jobs
become final in their order, each once every party has reported it; a message of one is never taken for one of the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from partywire.engine.frames import JobStatus, ResetCode, encode_job_end

from .errors import PeerAborted, SessionClosed, SessionDesync, UnsupportedByPeer
from .waiting import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable

    from .errors import SessionError
    from .mailbox import Mailbox


class JobsInLockstep:
    """For coroutines; a part of `Session`."""

    async def end_job(self, status: JobStatus = JobStatus.DONE, reason: str = "") -> int:
        """Tell every peer that the present job ended here, and begin the next one. Returns the number of the job.

        A job that FAILED ends the session, here at once and at the peers when they hear of it.

        Raises:
            SessionDesync: a peer sent a message that the job did not receive; the session is over.
            UnsupportedByPeer: a peer's link speaks the iris protocol, which has no such thing.
        """
        job = self.job
        for mailbox in self._peers:
            self._raise_failure(mailbox)
            lane = mailbox.lane
            if not lane.carries_job_ends:
                advice = "end a job by messages of its session"
                raise UnsupportedByPeer(mailbox.peer, "telling the end of a job", advice)
            while lane.parts_size > lane.parts_size_max and not lane.flush():
                await self._wait_for_room(mailbox, NEVER, None)
        self.job += 1
        try:
            settled = [mailbox for mailbox in self._peers if mailbox.end_job(job)]
        except SessionDesync as error:
            if status is JobStatus.DONE:
                self.fail(error, ResetCode.ABORTED, str(error))
                raise
            settled = []  # a job that failed leaves messages behind; its own cause is what the peers need to know
        frame = encode_job_end(self.id, job, status, reason)
        for mailbox in self._peers:
            mailbox.lane.post(frame)
        if status is JobStatus.DONE:
            for mailbox in settled:
                self._settle(mailbox)
        else:
            self.fail(SessionClosed(self.id, f"its job {job} failed here: {reason}"))
        return job

    def job_ended_by_peer_untrusted(self, mailbox: Mailbox, job: int, status: JobStatus, reason: str) -> None:
        """A JOB_END arrived. A failed job fails the session at once, wherever we are."""
        if status is not JobStatus.DONE:
            self.fail(PeerAborted(mailbox.peer, self.id, reason))
            return
        try:
            if mailbox.take_marker_untrusted(job, status):
                self._settle(mailbox)
        except SessionDesync as error:
            self.fail(error, ResetCode.ABORTED, str(error))

    def _settle(self, mailbox: Mailbox) -> None:
        self._settled[mailbox] += 1
        final = min(self._settled.values())
        while self.jobs_final < final:
            self.jobs_final += 1
            if self.on_final is not None:
                self.on_final(self.jobs_final - 1)

    def _job_over(self, mailbox: Mailbox) -> SessionDesync:
        what = f"{mailbox.peer} ended the job while we still expect a message of it"
        error = SessionDesync(self.id, mailbox.peer, self.job, what)
        self.fail(error, ResetCode.ABORTED, str(error))
        return error

    def _leftover(self, mailbox: Mailbox) -> SessionDesync:
        what = f"{mailbox.peer} sent a message that the job did not receive here"
        error = SessionDesync(self.id, mailbox.peer, self.job - mailbox.behind, what)
        self.fail(error, ResetCode.ABORTED, str(error))
        return error

    if TYPE_CHECKING:
        id: int
        job: int
        jobs_final: int
        on_final: Callable[[int], None] | None
        _peers: list[Mailbox]
        _settled: dict[Mailbox, int]

        def fail(self, error: SessionError, code: ResetCode | None = None, reason: str = "") -> None: ...
        def _raise_failure(self, mailbox: Mailbox) -> None: ...
        async def _wait_for_room(self, mailbox: Mailbox, deadline: float, timeout: float | None) -> None: ...
