"""Standard error of `partywire run --log-format json`: everything that a run has to say, one object a line.

Between the events and outputs of party processes and a program that collects log lines; stands where ProgressDisplay
stands for people. The one invariant: nothing but whole log lines of logs.py is written.
"""

from __future__ import annotations

import sys
import time
from typing import IO, TYPE_CHECKING

from .logs import LOG_LEVELS, document, encode_line
from .run_event import Connected, Failed, Finished, Logged, Progressed, Waiting

if TYPE_CHECKING:
    from .run_event import RunEvent

PROGRESS_INTERVAL_S = 5.0
LOGGER = "partywire.run"


class LogLines:
    """Driven by events, outputs and ticks, as the display is."""

    def __init__(self, job: str, level: str | None = None, stream: IO[str] | None = None) -> None:
        self._job = job
        self._least = LOG_LEVELS.index(level or "info")
        self._stream = sys.stderr if stream is None else stream
        self._progress: dict[str, Progressed] = {}
        self._told_at = time.monotonic()

    def event(self, event: RunEvent) -> None:
        """One event of a party."""
        match event:
            case Logged(line=line):
                self._write(dict(line))
            case Waiting(party, peer, cause):
                self._say("info", "waiting", f"{party} waits for {peer}: {cause}", party=party, peer=peer, cause=cause)
            case Connected(party):
                self._say("info", "links_up", f"{party}: every link stands", party=party)
            case Progressed():
                self._progress[event.party] = event
            case Finished(party):
                self._say("info", "finished", f"{party}: the job ended well", party=party)
            case Failed():
                fields = {"party": event.party, "peer": event.peer, "cause": event.kind, "exit_code": event.exit_code}
                self._say("error", "failed", event.sentence, **fields)

    def output(self, party: str, line: str) -> None:
        """A line that a process of a party printed: a job's own words, or a stack trace."""
        self._say("info", "output", line, party=party)

    def tick(self) -> None:
        """Say how far the parties are, now and then."""
        now = time.monotonic()
        if now - self._told_at < PROGRESS_INTERVAL_S:
            return
        self._told_at = now
        for party, said in self._progress.items():
            sentence = f"{party}: {said.jobs_done} of {said.jobs_total} jobs"
            self._say("info", "progress", sentence, party=party, count=said.jobs_done)

    def ended(self, sentence: str, exit_code: int) -> None:
        """The run as a whole is over."""
        self._say("error" if exit_code else "info", "ended", sentence, exit_code=exit_code)

    def _say(self, level: str, event: str, message: str, **fields: object) -> None:
        self._write(document(time.time(), level, event, message, LOGGER, job=self._job, **fields))

    def _write(self, line: dict[str, object]) -> None:
        level = line.get("level")
        if level in LOG_LEVELS and LOG_LEVELS.index(str(level)) < self._least:
            return
        print(encode_line(line), file=self._stream, flush=True)
