"""A party as a service: it stays open, takes jobs from HTTP clients, and runs them one after another with its peers.

In the opener of a party. Between the worker that answers HTTP (a channel), the peers (one session, serve_order.py) and
the jobs. The one invariant: every job that was accepted gets a final state, whatever ends first: the job, a peer, or
the service; and one job's failure ends nothing but that job.

A job runs in this process and occupies it; meanwhile the HTTP processes answer from their copy of the job book, and
what clients submit waits in the channel until the service looks at it between two steps of the job or after it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import signal
import socket
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from partywire.engine.errors import LinkProtocolError, PartyWireError
from partywire.engine.http_commands import HttpFailed, HttpWorkerStarted, StartHttp

from .batch import BatchRunner
from .errors import PartyFailed, PeerAborted, describe, describe_to_peers
from .http_listener import url_of
from .jobs import resolve_options
from .serve_book import DONE, FAILED, PREPARING, QUEUE_MAX, QUEUED, RUNNING, JobBook, JobEntry
from .serve_channel import WorkerLine
from .serve_jobs import encode_result, shared_options
from .serve_messages import (
    CancelJob,
    HandlersFailed,
    HandlersReady,
    Health,
    HealthChanged,
    JobChanged,
    JobResult,
    Snapshot,
    SubmitJob,
)
from .serve_order import (
    IS_READY,
    MAY_RUN,
    Ask,
    Cancel,
    Close,
    Ended,
    Go,
    Message,
    Orderer,
    Prepare,
    Queue,
    Submit,
    Vote,
    decode_untrusted,
    encode,
    sentence,
)
from .serve_trust import OrderTrust

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from partywire.engine.commands import Message as Command

    from .batch import BatchProgress
    from .blocking_party import BlockingParty
    from .http_config import HttpConfig
    from .jobs import Job, JobReport
    from .session import Session

HTTP_WORKER_MODULE: Final = "partywire.workers.http_worker"

READY_TIMEOUT_S: Final = 60.0
"""For the worker to load the user's handlers."""

PEER_MESSAGES_MAX: Final = 64
"""Of one peer, taken from the session but not dealt with; more wait in the inbox of the session."""

log = logging.getLogger("partywire")


class ServiceFailed(PartyWireError):
    """Raised when a service cannot go on; the text is the whole sentence."""


class Service:
    """One life: `run`."""

    def __init__(
        self, party: BlockingParty, http: HttpConfig, jobs: Mapping[str, type[Job]], sessions: int, token: bytes
    ) -> None:
        """`jobs` are the allowed ones by name. Starts nothing yet."""
        self._party = party
        self._name = party.name
        self._http = http
        self._jobs = dict(jobs)
        self._sessions = sessions
        self._token = token
        self._book = JobBook()
        self._trust = OrderTrust(self._name, party.names, self._book)
        self._orderer = Orderer(party.names) if party.index == 0 else None
        self._session: Session | None = None  # set by run
        self._line = WorkerLine(party, self._hear)
        self._told: deque[Message] = deque()  # by the orderer, for us to follow
        self._events: asyncio.Queue[tuple[str, object]] = asyncio.Queue()
        self._prepared: dict[str, Job] = {}
        self._reports: dict[str, JobReport] = {}  # of jobs that ended well here, until all have
        self._own_causes: dict[str, str] = {}  # of jobs that failed here, in more words than the peers are told
        self._room = {name: asyncio.Semaphore(PEER_MESSAGES_MAX) for name in party.names}
        self._ready = asyncio.Event()  # or failed, or told to stop
        self._failure = ""  # of HTTP
        self._cause = ""  # why no job can be run
        self._state = "serving"
        self._going = ""  # the id of the job that is to be run now
        self._running = False  # inside its code
        self._alarm = -1  # an eventfd that a signal writes to, while the party is open
        self._listeners: list[asyncio.Task[None]] = []
        self._is_stopping = False
        self._waiting: asyncio.Task[None] | None = None  # what a signal cancels, outside a job

    # Life.

    def run(self, runner: asyncio.Runner, listener: socket.socket, say: Callable[[str], None]) -> None:
        """Open the party, serve until a signal, close. `say` gets the line that clients wait for.

        A job is run between two runs of the loop: the sessions' native driver is several times faster without one.

        Raises:
            ServiceFailed: the handlers cannot be loaded, or the HTTP processes die again and again.
            SetupMismatch: the parties were started with different settings.
            PartyWireError: what Party.open raises.
        """
        party = self._party.asynchronous
        runner.run(party.open())
        self._alarm = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        party.worker.watch(self._alarm, self._on_alarm)
        numbers = (signal.SIGINT, signal.SIGTERM)
        handlers = {number: signal.signal(number, self._on_signal) for number in numbers}
        try:
            self._until_stopped(runner, self._begin(listener))
            if not self._is_stopping:
                say(f"{self._name} serves {url_of(listener)} (jobs: {', '.join(self._jobs) or 'none'})")
            while not self._is_stopping:
                self._until_stopped(runner, self._serve())
                if self._going:
                    self._run_native(self._going)
        finally:
            runner.run(self._end())
            for number, handler in handlers.items():
                signal.signal(number, handler)
            os.close(self._alarm)

    def _until_stopped(self, runner: asyncio.Runner, steps: Coroutine[Any, Any, None]) -> None:
        """Take steps until they are done or a signal says stop: a peer that takes nothing must not hold us up."""
        try:
            runner.run(self._stoppable(steps))
        except asyncio.CancelledError:
            if not self._is_stopping:
                raise

    async def _stoppable(self, steps: Coroutine[Any, Any, None]) -> None:
        self._waiting = task = asyncio.current_task()
        if self._is_stopping and task is not None:
            task.cancel()
        try:
            await steps
        finally:
            self._waiting = None

    async def _begin(self, listener: socket.socket) -> None:
        party = self._party.asynchronous
        worker = party.worker
        otherwise = worker.on_command
        worker.on_command = lambda message, fds: self._take_command(message, fds, otherwise)
        patience_s = self._party.config.connect_s  # a peer whose links stand is about to say the same
        await party.rendezvous("serve", {"sessions": self._sessions}, equal=True, timeout=patience_s)
        [session] = await party.make_sessions(1, timeout=patience_s)
        self._session = session
        limits = dataclasses.replace(self._http.limits, token_digest=self._token, is_loopback=self._http.is_private)
        party.tell_supervisor(StartHttp(limits, HTTP_WORKER_MODULE, self._http.handlers), [listener.fileno()])
        await self._wait_ready()
        self._listeners = [asyncio.create_task(self._listen(session, peer)) for peer in self._peers]

    def _run_native(self, job_id: str) -> None:
        driver = self._party.worker.loop_driver
        assert driver is not None
        driver.detach()
        try:
            # Behind what our clients wanted meanwhile: a job that they cancelled must not begin before that is known.
            self._events.put_nowait((self._name, Ended(job_id, self._run_job(job_id))))
        finally:
            self._going = ""
            driver.attach()

    async def _end(self) -> None:
        """Stop, and close the party, whatever has happened."""
        for task in self._listeners:
            task.cancel()
        try:
            self._stop()
            self._party.worker.unwatch(self._alarm)
        finally:
            await self._party.asynchronous.close()

    @property
    def _peers(self) -> list[str]:
        return [name for name in self._party.names if name != self._name]

    async def _wait_ready(self) -> None:
        try:
            await asyncio.wait_for(self._ready.wait(), READY_TIMEOUT_S)
        except TimeoutError:
            raise ServiceFailed(f"http.handlers were not loaded within {READY_TIMEOUT_S:g} s") from None
        if self._failure:
            raise ServiceFailed(self._failure)

    async def _serve(self) -> None:
        """Deal with what clients and peers want until a job is to be run, or somebody says stop."""
        while not self._is_stopping and not self._going:
            source = self._party.names[0]
            try:
                if self._told:
                    await self._follow(self._told.popleft())
                    continue
                source, event = await self._events.get()
                if source in self._peers:
                    self._room[source].release()
                if isinstance(event, PartyWireError):
                    self._lose(getattr(event, "peer", None) or source, event)
                elif event is not None and not self._cause:
                    await self._take(source, event)
            except PartyFailed:
                raise  # our own processes are gone
            except PartyWireError as error:
                # What a session raises on the way to a peer; its own listener says the same.
                self._lose(getattr(error, "peer", None) or source, error)
            if self._failure:
                raise ServiceFailed(self._failure)

    def _on_signal(self, _number: int, _frame: object) -> None:
        """The first signal ends the service, and the job that runs, at the next place where either looks at its
        descriptors; a second one ends a job that does not look at once."""
        first, self._is_stopping = not self._is_stopping, True
        os.eventfd_write(self._alarm, 1)
        if self._running and not first:
            raise KeyboardInterrupt

    def _on_alarm(self) -> None:
        os.eventfd_read(self._alarm)
        if self._running:
            raise KeyboardInterrupt
        if self._waiting is not None:
            self._waiting.cancel()

    def _wake(self) -> None:
        """Let whoever waits look at what has changed."""
        self._ready.set()
        self._events.put_nowait(("", None))

    def _stop(self) -> None:
        self._is_stopping = True
        self._state = "stopping"
        self._fail_all({self._name: f"{self._name} stopped its service"})
        self._tell_health()
        if self._session is not None:
            self._session.close()
        self._line.close()

    # The peers.

    async def _listen(self, session: Session, peer: str) -> None:
        """Take what a peer says until it is gone."""
        try:
            while True:
                data = await session.recv(peer)
                if not isinstance(data, (bytes, bytearray, memoryview)):
                    raise LinkProtocolError(peer, "a service message", type(data).__name__, "bytes")
                message = decode_untrusted(bytes(data), peer)
                await self._room[peer].acquire()  # the session holds what comes meanwhile
                self._events.put_nowait((peer, message))
        except PartyWireError as error:
            self._events.put_nowait((peer, error))

    async def _take(self, source: str, event: object) -> None:
        """A message of a party, our own clients' included."""
        if source == self._name:
            await self._to_orderer(event)  # type: ignore[arg-type]
        elif self._orderer is not None:
            await self._order(source, event)  # type: ignore[arg-type]
        elif source == self._party.names[0] and isinstance(event, (Ask, Queue, Prepare, Go, Close)):
            self._told.append(event)
        else:
            raise LinkProtocolError(source, "a service message", type(event).__name__, "none from this party")

    async def _to_orderer(self, message: Message) -> None:
        if self._orderer is not None:
            await self._order(self._name, message)
        else:
            assert self._session is not None
            await self._session.send(self._party.names[0], encode(message))

    async def _order(self, party: str, message: Message) -> None:
        assert self._orderer is not None
        assert self._session is not None
        for out in self._orderer.take_untrusted(party, message):
            data = encode(out)
            for peer in self._peers:
                await self._session.send(peer, data)
            self._told.append(out)

    def _lose(self, peer: str, error: PartyWireError) -> None:
        """A peer is gone, or cannot be trusted: no job can be run any more, and those that were accepted failed."""
        if isinstance(error, LinkProtocolError):
            worker = self._party.worker
            worker.lose_link(worker.link_of(error.peer), str(error))
        if not self._cause:
            told = isinstance(error, PeerAborted)  # it has lost somebody itself, and says whom
            self._cause = sentence(describe(error) if told else f"{peer} is gone: {describe(error)}")
            self._state = "failed"
            self._fail_all({peer: sentence(describe(error))})
            if self._session is not None:
                # The others may have lost nobody, and would wait for our votes.
                self._session.abort(self._cause)
        self._tell_health()

    def _fail_all(self, causes: dict[str, str]) -> None:
        self._told.clear()
        self._trust.forget()
        self._prepared.clear()
        self._reports.clear()
        for entry in list(self._book.entries.values()):
            if not entry.is_final:
                self._change(entry.id, state=FAILED, causes=causes | self._own(entry.id))

    # Jobs.

    async def _follow(self, message: Message) -> None:
        """Do what the orderer says."""
        self._trust.check_untrusted(message)
        match message:
            case Ask(id=job_id, job=job, options=options, party=party):
                if party != self._name:
                    self._put(JobEntry(job_id, job, options, party))
                refusal = self._refusal(job, options)
                if not refusal:
                    self._trust.agree(job_id)
                await self._to_orderer(Vote(job_id, MAY_RUN, refusal))
            case Queue(id=job_id):
                self._change(job_id, state=QUEUED)
            case Prepare(id=job_id):
                self._change(job_id, state=PREPARING)
                refusal = self._prepare(job_id)
                if not refusal:
                    self._trust.get_ready(job_id)
                await self._to_orderer(Vote(job_id, IS_READY, refusal))
            case Go(id=job_id):
                self._change(job_id, state=RUNNING)
                self._going = job_id
            case Close(id=job_id, state=state, causes=causes):
                self._close_job(job_id, state, causes)

    def _refusal(self, name: str, options: dict[str, Any]) -> str:
        job = self._jobs.get(name)
        if job is None:
            return f"{self._name} does not run this job; its http.jobs do not list it"
        try:
            resolve_options(shared_options(job), options)
        except PartyWireError as error:
            return sentence(f"{self._name} cannot run it: {error}")
        return ""

    def _prepare(self, job_id: str) -> str:
        """Load our data; why it cannot be done, or nothing."""
        entry = self._book.entries[job_id]
        try:
            options = {**self._http.options.get(entry.job, {}), **entry.options}
            self._prepared[job_id] = self._jobs[entry.job](self._party.index, options)
        except Exception as error:
            log.warning("%s: job %s cannot be prepared: %s", self._name, job_id, describe(error))
            return sentence(describe_to_peers(error))
        return ""

    def _run_job(self, job_id: str) -> str:
        """Run a job with the others; why it failed, or nothing. Occupies this process."""
        job = self._prepared.pop(job_id)
        # Without retries: with a link the service has lost the session that orders its jobs, so it ends.
        runner = BatchRunner(
            self._party, self._sessions, lambda progress: self._tell_progress(job_id, progress), retries=0
        )
        self._party.worker.flush()  # the others wait for the word that made us begin
        try:
            self._running = True
            if self._is_stopping:
                raise KeyboardInterrupt  # said between the word to begin and now: the alarm for it has been read
            report = job.run(runner)
            self._running = False
            encode_result(report)  # a result that cannot be shown is the job's failure
            self._reports[job_id] = report
        except KeyboardInterrupt:
            return f"{self._name} stopped its service"
        except Exception as error:
            self._running = False
            log.warning("%s: job %s failed: %s", self._name, job_id, describe(error))
            self._own_causes[job_id] = sentence(describe(error))
            return sentence(describe_to_peers(error))
        finally:
            self._running = False
        return ""

    def _close_job(self, job_id: str, state: str, causes: dict[str, str]) -> None:
        self._prepared.pop(job_id, None)
        report = self._reports.pop(job_id, None)
        if state != DONE or report is None:
            self._change(job_id, state=state if state != DONE else FAILED, causes=causes | self._own(job_id))
            return
        result = encode_result(report)
        self._book.put_result(job_id, result)
        self._line.tell(JobResult(job_id, result))
        self._change(job_id, state=DONE, checked=report.checked, result_size=len(result))

    def _own(self, job_id: str) -> dict[str, str]:
        """Our own words, which say more to our own clients than what the peers were told."""
        cause = self._own_causes.pop(job_id, "")
        return {self._name: cause} if cause else {}

    def _tell_progress(self, job_id: str, progress: BatchProgress) -> None:
        figures = {
            "steps_done": progress.jobs_done,
            "steps": progress.jobs_total,
            "rounds": progress.rounds,
            "bytes_sent": progress.bytes_sent,
            "bytes_received": progress.bytes_received,
        }
        self._change(job_id, progress=figures)

    def _put(self, entry: JobEntry) -> None:
        self._book.put(entry)
        self._line.tell(JobChanged(entry))

    def _change(self, job_id: str, **changes: Any) -> None:
        self._line.tell(JobChanged(self._book.change(job_id, **changes)))

    # The worker that answers HTTP.

    def _take_command(
        self, message: Command, fds: list[int], otherwise: Callable[[Command, list[int]], None] | None
    ) -> None:
        if isinstance(message, HttpWorkerStarted) and len(fds) == 1:
            self._line.replace(socket.socket(fileno=fds[0]))
            self._line.tell(self._snapshot())
        elif isinstance(message, HttpFailed):
            self._fail_http(message.message)
        elif otherwise is not None:
            otherwise(message, fds)

    def _snapshot(self) -> Snapshot:
        jobs = {name: shared_options(job) for name, job in self._jobs.items()}
        entries, results = list(self._book.entries.values()), dict(self._book.results)
        return Snapshot(self._name, self._party.names, jobs, entries, results, self._health(), bool(self._token))

    def _hear(self, message: object) -> None:
        match message:
            case SubmitJob(id=job_id, job=job, options=options):
                self._submit(job_id, job, options)
            case CancelJob(id=job_id):
                self._events.put_nowait((self._name, Cancel(job_id)))
            case HandlersReady():
                self._ready.set()
            case HandlersFailed(sentence=why):
                self._fail_http(why)

    def _submit(self, job_id: str, job: str, options: dict[str, Any]) -> None:
        is_full = self._book.pending_of(self._name) >= QUEUE_MAX  # what the worker has not seen yet counts, too
        self._put(JobEntry(job_id, job, options, self._name))
        if self._cause or is_full:
            why = self._cause or f"{QUEUE_MAX} jobs of {self._name} wait already; submit it again later"
            self._change(job_id, state=FAILED, causes={self._name: why})
        else:
            self._events.put_nowait((self._name, Submit(job_id, job, options)))

    def _fail_http(self, why: str) -> None:
        self._failure = why
        self._wake()

    def _health(self) -> Health:
        peers = {}
        for link in self._party.worker.links.values():
            peers[link.name] = "up" if link.is_up else link.cause or "it closed its links"
        return Health(self._state, self._cause, peers)

    def _tell_health(self) -> None:
        try:
            self._line.tell(HealthChanged(self._health()))
        except PartyFailed:
            pass  # our own processes are gone, and so is whoever would read it
