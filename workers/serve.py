"""A party as a service: it stays open, takes jobs from HTTP clients, and runs them one after another with its peers.

In the opener of a party. Between the worker that answers HTTP (a channel), the peers (one session at a time) and the
jobs. The one invariant: every job that was accepted gets a final state, whatever ends first: the job, a link, or the
service; and one job's failure ends nothing but that job.

What this party answers its peers is decided without I/O (serve_follower.py, at party 0 also serve_order.py). When the
session is lost, all parties meet again (serve_meeting.py), say what they remember, and go on.

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
from .errors import PartyFailed, PeerAborted, PeerClosed, describe
from .http_listener import url_of
from .serve_book import FAILED, QUEUE_MAX, JobBook, JobEntry
from .serve_channel import WorkerLine
from .serve_follower import Failure, Follower
from .serve_jobs import encode_result, shared_options
from .serve_meeting import LinkWatch, Meeting, ServiceFailed
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
from .serve_order import Orderer
from .serve_words import (
    FROM_ORDERER,
    Cancel,
    Ended,
    Message,
    Submit,
    decode_untrusted,
    encode,
    sentence,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from partywire.engine.commands import Message as Command

    from .batch import BatchProgress
    from .blocking_party import BlockingParty
    from .http_config import HttpConfig
    from .jobs import Job
    from .serve_jobs import ServedJobs, ServeSettings
    from .session import Session

HTTP_WORKER_MODULE: Final = "partywire.workers.http_worker"

READY_TIMEOUT_S: Final = 60.0
"""For the worker to load the user's handlers."""

PEER_MESSAGES_MAX: Final = 64
"""Of one peer, taken from the session but not dealt with; more wait in the inbox of the session."""

STARTING: Final = "starting"
SERVING: Final = "serving"
RECOVERING: Final = "recovering"
STOPPING: Final = "stopping"

log = logging.getLogger("partywire")


class Service:
    """One life: `run`."""

    def __init__(
        self,
        party: BlockingParty,
        http: HttpConfig,
        jobs: ServedJobs,
        settings: ServeSettings,
        token: bytes,
    ) -> None:
        """Starts nothing yet."""
        self._party = party
        self._name = party.name
        self._http = http
        self._jobs = jobs
        self._settings = settings
        self._token = token
        self._book = JobBook()
        self._follower = Follower(
            self._name,
            party.names,
            self._book,
            settings.retries,
            refuse=jobs.refusal,
            prepare=jobs.prepare,
            tell=self._tell_job,
        )
        self._orderer: Orderer | None = None  # of this session, at party 0
        self._session: Session | None = None  # while there is one with all peers
        self._line = WorkerLine(party, self._hear)
        self._told: deque[Message] = deque()  # by the orderer, for us to follow
        self._wishes: deque[Message] = deque()  # of our clients and our own, for the orderer once all is settled
        # Peer and what it said or how its end of the session broke; None to look again.
        self._events: asyncio.Queue[tuple[str, Message | PartyWireError] | None] = asyncio.Queue()
        self._room: dict[str, asyncio.Semaphore] = {}
        self._ready = asyncio.Event()  # the handlers are loaded
        self._failure = ""  # of HTTP
        self._links: LinkWatch | None = None  # from the opening of the party on
        self._cause = "the service is starting"  # why no job can be run, apart from links that are away
        self._meetings = 0  # after which the parties served
        self._say: Callable[[str], None] = print  # set by run
        self._running = False  # inside a job's code
        self._alarm = -1  # an eventfd that a signal writes to, while the party is open
        self._listeners: list[asyncio.Task[None]] = []
        self._is_stopping = False
        self._waiting: asyncio.Task[None] | None = None  # what a signal cancels, outside a job

    # Life.

    def run(self, runner: asyncio.Runner, listener: socket.socket, say: Callable[[str], None]) -> None:
        """Open the party, serve until a signal, close. `say` gets the lines that clients wait for.

        A job is run between two runs of the loop: the sessions' native driver is several times faster without one.

        Raises:
            ServiceFailed: the handlers cannot be loaded, or processes of ours die again and again.
            SetupMismatch: the parties were started with different settings.
            PartyWireError: what Party.open raises.
        """
        self._say = say
        party = self._party.asynchronous
        runner.run(party.open())
        self._links = LinkWatch(party, self._tell_health)
        fields = {"sessions": self._settings.sessions, "retries": self._settings.retries}
        meeting = Meeting(party, self._links, fields, self._settings.retry_timeout_s)
        self._alarm = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        party.worker.watch(self._alarm, self._on_alarm)
        handlers = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self._until_stopped(runner, self._begin(listener))
            while not self._is_stopping:
                self._until_stopped(runner, self._serve(meeting, listener))
                if self._follower.going and not self._is_stopping:
                    self._run_native()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)  # first, so that a signal in the end of the party ends us at once
            try:
                runner.run(self._end())
            finally:
                os.close(self._alarm)

    def _until_stopped(self, runner: asyncio.Runner, steps: Coroutine[Any, Any, None]) -> None:
        """Take steps until they are done or a signal says stop: a peer that takes nothing must not hold us up."""
        try:
            runner.run(self._stoppable(steps))
        except asyncio.CancelledError:
            if not self._is_stopping and not self._failure:
                raise
        if self._failure:
            raise ServiceFailed(self._failure)

    async def _stoppable(self, steps: Coroutine[Any, Any, None]) -> None:
        self._waiting = task = asyncio.current_task()
        if (self._is_stopping or self._failure) and task is not None:
            task.cancel()
        try:
            await steps
        finally:
            self._waiting = None

    async def _begin(self, listener: socket.socket) -> None:
        """Answer HTTP. What is asked before the parties have met is told to come again."""
        party = self._party.asynchronous
        worker = party.worker
        otherwise = worker.on_command
        worker.on_command = lambda message, fds: self._take_command(message, fds, otherwise)
        limits = dataclasses.replace(self._http.limits, token_digest=self._token, is_loopback=self._http.is_private)
        party.processes.tell(StartHttp(limits, HTTP_WORKER_MODULE, self._http.handlers), [listener.fileno()])
        try:
            await asyncio.wait_for(self._ready.wait(), READY_TIMEOUT_S)
        except TimeoutError:
            raise ServiceFailed(f"http.handlers were not loaded within {READY_TIMEOUT_S:g} s") from None

    def _run_native(self) -> None:
        driver = self._party.worker.loop_driver
        assert driver is not None
        driver.detach()
        try:
            # Behind what our clients wanted meanwhile: a job that they cancelled must not begin before that is known.
            self._wishes.append(self._run_job())
        finally:
            driver.attach()

    async def _end(self) -> None:
        """Stop, and close the party, whatever has happened."""
        try:
            self._stop()
            self._party.worker.unwatch(self._alarm)
        finally:
            await self._party.asynchronous.close()

    @property
    def _peers(self) -> list[str]:
        return [name for name in self._party.names if name != self._name]

    async def _serve(self, meeting: Meeting, listener: socket.socket) -> None:
        """Deal with what clients and peers want until a job is to be run, or somebody says stop."""
        while not self._is_stopping and not self._follower.going:
            source = self._party.names[0]
            try:
                if self._session is None:
                    await self._meet(meeting)
                elif self._told:
                    await self._follow(self._told.popleft())
                    if self._cause and self._follower.is_settled:
                        self._say_serving(listener)
                elif self._wishes and self._follower.is_settled:
                    await self._to_orderer(self._wishes.popleft())
                elif (event := await self._events.get()) is not None:
                    source, said = event
                    if isinstance(said, PartyWireError):
                        raise said
                    self._room[source].release()
                    await self._take(source, said)
            except (PartyFailed, ServiceFailed):
                raise  # our own processes are gone
            except PartyWireError as error:
                if self._session is None:
                    raise
                self._lose(getattr(error, "peer", None) or source, error)

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

    def _stop(self) -> None:
        self._is_stopping = True
        for task in self._listeners:
            task.cancel()
        self._cause = f"{self._name} stops its service"
        self._follower.fail_all({self._name: f"{self._name} stopped its service"})
        self._tell_health()
        if self._session is not None:
            self._session.close()
        self._line.close()

    # The peers.

    async def _meet(self, meeting: Meeting) -> None:
        """Find all peers, and tell them what we remember."""
        session = await meeting.hold(self._give_up, self._note)
        self._session = session
        self._orderer = Orderer(self._party.names, self._settings.retries) if self._party.index == 0 else None
        self._room = {name: asyncio.Semaphore(PEER_MESSAGES_MAX) for name in self._peers}
        self._listeners = [asyncio.create_task(self._listen(session, peer)) for peer in self._peers]
        # What is recalled need not be submitted again, nor its end told.
        self._wishes = deque(wish for wish in self._wishes if isinstance(wish, Cancel))
        for message in self._follower.recall():
            await self._to_orderer(message)

    def _say_serving(self, listener: socket.socket) -> None:
        """All parties have agreed on the jobs that there are."""
        self._cause = ""
        self._meetings += 1
        self._tell_health()
        if self._meetings > 1:
            log.info("%s: the parties have met again", self._name, extra={"event": "served_again", "party": self._name})
            self._say(f"{self._name} serves again")
        else:
            self._say(f"{self._name} serves {url_of(listener)} (jobs: {', '.join(self._jobs.classes) or 'none'})")

    def _note(self, error: PartyWireError) -> None:
        """The parties have not met yet, and why."""
        self._cause = sentence(f"the parties have not met again: {describe(error)}")
        self._tell_health()

    def _give_up(self, why: dict[str, str]) -> None:
        """Somebody has been away for so long that no client need wait any longer."""
        self._follower.give_up(
            {name if name in self._peers else self._name: sentence(said) for name, said in why.items()}
        )

    async def _listen(self, session: Session, peer: str) -> None:
        """Take what a peer says until it is gone."""
        room = self._room[peer]
        try:
            while True:
                data = await session.recv(peer)
                if not isinstance(data, (bytes, bytearray, memoryview)):
                    raise LinkProtocolError(peer, "a service message", type(data).__name__, "bytes")
                message = decode_untrusted(bytes(data), peer)
                await room.acquire()  # the session holds what comes meanwhile
                self._events.put_nowait((peer, message))
        except PartyWireError as error:
            self._events.put_nowait((peer, error))

    async def _take(self, source: str, message: Message) -> None:
        """A message of a peer."""
        if self._orderer is not None:
            await self._order(source, message)
        elif source == self._party.names[0] and isinstance(message, FROM_ORDERER):
            self._told.append(message)
        else:
            raise LinkProtocolError(source, "a service message", type(message).__name__, "none from this party")

    async def _follow(self, message: Message) -> None:
        for answer in self._follower.follow_untrusted(message):
            await self._to_orderer(answer)

    async def _to_orderer(self, message: Message) -> None:
        assert self._session is not None
        if self._orderer is not None:
            await self._order(self._name, message)
        else:
            await self._session.send(self._party.names[0], encode(message))

    async def _order(self, party: str, message: Message) -> None:
        assert self._orderer is not None
        assert self._session is not None
        outs = self._orderer.take_untrusted(party, message)
        # Before anybody else can hear and show it: if the session breaks now, this party knows what it has said.
        self._told += outs
        for out in outs:
            data = encode(out)
            for peer in self._peers:
                await self._session.send(peer, data)

    def _lose(self, peer: str, error: PartyWireError) -> None:
        """The session is over. What has not ended goes on once all parties have met again."""
        if isinstance(error, LinkProtocolError):
            if error.peer == self._name:
                raise error  # what no honest party says, said by ourselves: a bug, which another meeting cannot mend
            worker = self._party.worker
            worker.link_life.lose_link(worker.link_of(error.peer), str(error))
        told = isinstance(error, PeerAborted)  # it has lost somebody itself, and says whom
        why = sentence(f"{peer} {'says' if told else 'is gone'}: {describe(error)}")
        self._cause = f"the parties have to agree anew on the jobs: {why}"
        is_goodbye = isinstance(error, PeerClosed)  # most often all parties stop
        if not is_goodbye:
            self._say(f"{self._name} cannot serve now: {why}")
        level = logging.INFO if is_goodbye else logging.WARNING
        extra = {"event": "service_lost", "party": self._name, "peer": peer, "cause": why}
        log.log(level, "%s: %s", self._name, self._cause, extra=extra)
        session, self._session = self._session, None
        for task in self._listeners:
            task.cancel()
        while not self._events.empty():
            self._events.get_nowait()
        if session is not None:
            session.abort(why)  # the others may have lost nobody, and would wait for our votes
        unfollowed, self._told = list(self._told), deque()
        self._tell_health()
        try:
            self._follower.lose(unfollowed)
        except LinkProtocolError as wrong:
            self._lose(wrong.peer, wrong)

    # Jobs.

    def _run_job(self) -> Ended:
        """Run a job with the others; how it ended. Occupies this process."""
        job_id, job = self._follower.take_prepared()
        return self._follower.end(job_id, self._outcome(job_id, job))

    def _outcome(self, job_id: str, job: Job) -> tuple[bool | None, bytes] | Failure:
        runner = BatchRunner(
            self._party,
            self._settings.sessions,
            lambda progress: self._tell_progress(job_id, progress),
            retries=self._settings.retries,
            retry_timeout_s=self._settings.retry_timeout_s,
        )
        self._party.worker.flush()  # the others wait for the word that made us begin
        try:
            self._running = True
            if self._is_stopping:
                raise KeyboardInterrupt  # said between the word to begin and now: the alarm for it has been read
            report = job.run(runner)
            self._running = False
            return report.checked, encode_result(report)  # a result that cannot be shown is the job's failure
        except KeyboardInterrupt:
            why = f"{self._name} stopped its service"
            return Failure(why, why)
        except Exception as error:
            self._running = False
            failure = Failure.of(error)
            what = "was cut off" if failure.may_run_again else "failed"
            log.warning("%s: job %s %s: %s", self._name, job_id, what, describe(error))
            return failure
        finally:
            self._running = False

    def _tell_progress(self, job_id: str, progress: BatchProgress) -> None:
        figures = {
            "steps_done": progress.jobs_done,
            "steps": progress.jobs_total,
            "retries": progress.retries,
            "rounds": progress.rounds,
            "bytes_sent": progress.bytes_sent,
            "bytes_received": progress.bytes_received,
        }
        self._follower.change(job_id, progress=figures)

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
        jobs = {name: shared_options(job) for name, job in self._jobs.classes.items()}
        entries, results = list(self._book.entries.values()), dict(self._book.results)
        return Snapshot(self._name, self._party.names, jobs, entries, results, self._health(), bool(self._token))

    def _hear(self, message: object) -> None:
        match message:
            case SubmitJob(id=job_id, job=job, options=options):
                self._submit(job_id, job, options)
            case CancelJob(id=job_id):
                self._wish(Cancel(job_id))
            case HandlersReady():
                self._ready.set()
            case HandlersFailed(sentence=why):
                self._fail_http(why)

    def _submit(self, job_id: str, job: str, options: dict[str, Any]) -> None:
        """A job that a client has been told 202 for. While there is no session it waits, like those before it."""
        is_full = self._book.pending_of(self._name) >= QUEUE_MAX  # what the worker has not seen yet counts, too
        self._follower.put(JobEntry(job_id, job, options, self._name))
        if self._is_stopping or is_full:
            full = f"{QUEUE_MAX} jobs of {self._name} wait already; submit it again later"
            why = f"{self._name} stopped its service" if self._is_stopping else full
            self._follower.change(job_id, state=FAILED, causes={self._name: why})
        else:
            self._wish(Submit(job_id, job, options))

    def _wish(self, message: Message) -> None:
        self._wishes.append(message)
        self._events.put_nowait(None)

    def _fail_http(self, why: str) -> None:
        self._failure = why
        if self._waiting is not None:
            self._waiting.cancel()

    def _tell_job(self, entry: JobEntry, result: bytes | None) -> None:
        if result is not None:
            self._line.tell(JobResult(entry.id, result))
        self._line.tell(JobChanged(entry))

    def _health(self) -> Health:
        away = {} if self._links is None else self._links.away
        cause, state = self._cause, SERVING
        if self._links is not None and not self._is_stopping:
            cause = self._links.cause() or cause
        if cause:
            state = STOPPING if self._is_stopping else RECOVERING if self._meetings else STARTING
        return Health(state, cause, {peer: away.get(peer, "up") for peer in self._peers}, max(0, self._meetings - 1))

    def _tell_health(self) -> None:
        try:
            self._line.tell(HealthChanged(self._health()))
        except PartyFailed:
            pass  # our own processes are gone, and so is whoever would read it
