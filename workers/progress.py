"""What a person sees while a job runs: who is still waited for, how far the batch is, how fast it goes.

Between the events of one or several parties and a terminal (or a log file, which gets a plain line now and then).
Everything here goes to stderr; results go to stdout. The one invariant: nothing is shown in the first SHOW_AFTER_S
seconds, so a short run prints its result and nothing else.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from .run_event import Connected, Failed, Finished, Progressed, Waiting

if TYPE_CHECKING:
    from .run_event import RunEvent

SHOW_AFTER_S = 2.0
LINE_INTERVAL_S = 5.0  # between two plain lines where no terminal is
RATE_WINDOW_S = 3.0  # the rates shown while it runs are those of the last seconds


@dataclass(slots=True)
class RunState:
    """Everything that the events of a run have said so far, over all parties that we hear. Driven by events alone."""

    job: str
    parties: tuple[str, ...]  # those that we hear
    began_s: float
    waiting: dict[str, dict[str, str]] = field(default_factory=dict)  # party -> peer -> cause
    connected: dict[str, float] = field(default_factory=dict)  # party -> when
    ready: dict[str, float] = field(default_factory=dict)  # party -> when its sessions were ready
    progress: dict[str, Progressed] = field(default_factory=dict)
    finished: dict[str, Finished] = field(default_factory=dict)
    failed: dict[str, Failed] = field(default_factory=dict)

    def apply(self, event: RunEvent) -> None:
        """Take one event in."""
        match event:
            case Waiting(party, peer, cause):
                self.waiting.setdefault(party, {})[peer] = cause
            case Connected(party, clock_s):
                self.connected[party] = clock_s
                self.waiting.pop(party, None)
            case Progressed():
                self.progress[event.party] = event
                if event.sessions:
                    self.ready.setdefault(event.party, event.clock_s)
            case Finished():
                self.finished[event.party] = event
            case Failed():
                self.failed[event.party] = event

    @property
    def jobs_done(self) -> int:
        """Jobs that are final at every party that we hear."""
        return min((said.jobs_done for said in self.progress.values()), default=0)

    @property
    def jobs_total(self) -> int:
        return max((said.jobs_total for said in self.progress.values()), default=0)

    @property
    def sessions(self) -> int:
        return max((said.sessions for said in self.progress.values()), default=0)

    @property
    def retries(self) -> int:
        """How often something ran again; all parties decide that together."""
        return max((said.retries for said in self.progress.values()), default=0)

    @property
    def rounds(self) -> int:
        """Of the party with the most: rounds of a protocol happen at all parties together."""
        return max((said.rounds for said in self.progress.values()), default=0)

    @property
    def bytes_sent(self) -> int:
        """By all parties that we hear: with one party its own share, with all of them the whole traffic."""
        return sum(said.bytes_sent for said in self.progress.values())

    @property
    def connect_s(self) -> float | None:
        """From the beginning until every link of every party stood."""
        return self._all_since(self.connected)

    @property
    def ready_s(self) -> float | None:
        """From the beginning until all sessions of all parties were ready."""
        return self._all_since(self.ready)

    @property
    def run_s(self) -> float | None:
        """From ready sessions to the last party's result."""
        if len(self.finished) < len(self.parties) or not self.ready:
            return None
        return max(end.clock_s for end in self.finished.values()) - max(self.ready.values())

    def _all_since(self, times: dict[str, float]) -> float | None:
        return max(times.values()) - self.began_s if len(times) == len(self.parties) else None

    def activity(self) -> str:
        """What everybody waits for, in words."""
        missing = [
            f"{party} waits for {peer} ({cause})"
            for party, causes in self.waiting.items()
            for peer, cause in causes.items()
        ]
        if missing:
            return "connecting: " + "; ".join(missing)
        if len(self.connected) < len(self.parties):
            slow = [party for party in self.parties if party not in self.connected]
            return f"starting {', '.join(slow)}"
        return "computing" if self.jobs_total else "making sessions"


class Rates:
    """Rounds and bytes per second over the last seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int, int]] = deque()

    def update(self, now: float, rounds: int, size: int) -> tuple[float, float]:
        """The rates now, given the totals now."""
        samples = self._samples
        samples.append((now, rounds, size))
        while len(samples) > 2 and samples[0][0] < now - RATE_WINDOW_S:
            samples.popleft()
        then, rounds_then, size_then = samples[0]
        elapsed = max(now - then, 1e-9)
        return (rounds - rounds_then) / elapsed, (size - size_then) / elapsed


def scaled(value: float) -> str:
    """A number with three digits that matter and a decimal prefix: 1234567 -> '1.23 M'."""
    for limit, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g} {prefix}"
    return f"{value:.3g} "


def rate_text(rounds_rate: float, bytes_rate: float) -> str:
    return f"{scaled(rounds_rate)}rounds/s  {bytes_rate / 1e6:.1f} MB/s"


class ProgressDisplay:
    """Shows a RunState on stderr: a bar on a terminal, a line every few seconds elsewhere.

    Driven by `update` after events and on ticks; `close` removes the bar. Does not read events itself.
    """

    def __init__(self, state: RunState, stream: IO[str] | None = None, quiet: bool = False) -> None:
        self._state = state
        self._stream = sys.stderr if stream is None else stream
        self._quiet = quiet
        self._began = time.monotonic()
        self._rates = Rates()
        self._shown_at = 0.0  # of the last plain line
        self._shown = ""
        self._bar: Any = None  # rich's Progress, once shown on a terminal
        self._task: Any = None

    def update(self) -> None:
        """Draw what is new. Cheap enough for every event; redraws at most as often as it makes sense."""
        now = time.monotonic()
        state = self._state
        rates = self._rates.update(now, state.rounds, state.bytes_sent)
        if self._quiet or now - self._began < SHOW_AFTER_S:
            return
        if self._stream.isatty():
            self._draw_bar(rates)
        elif now - self._shown_at >= LINE_INTERVAL_S:
            self._shown_at = now
            line = f"partywire: {state.job}: {self._line(rates)}"
            if line != self._shown:
                self._shown = line
                print(line, file=self._stream, flush=True)

    def _line(self, rates: tuple[float, float]) -> str:
        state = self._state
        if not state.jobs_total:
            return state.activity()
        elapsed_s = time.monotonic() - self._began
        retries = f"  retry {state.retries}" if state.retries else ""
        return f"{state.jobs_done} of {state.jobs_total} jobs{retries}  {rate_text(*rates)}  {elapsed_s:.0f} s"

    def _draw_bar(self, rates: tuple[float, float]) -> None:
        if self._bar is None:
            # Imported when it is needed: 60 ms that a short run, and the time until all sessions are ready, do not pay.
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (
                TextColumn("[bold]{task.description}", markup=True),
                BarColumn(),
                TextColumn("{task.fields[status]}", markup=False),
            )
            self._bar = Progress(*columns, console=Console(file=self._stream), auto_refresh=False, transient=True)
            self._task = self._bar.add_task(self._state.job, total=None, status="")
            self._bar.start()
        state = self._state
        self._bar.update(
            self._task, total=state.jobs_total or None, completed=state.jobs_done, status=self._line(rates)
        )
        self._bar.refresh()

    def print(self, line: str) -> None:
        """A line of text above the bar."""
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=self._stream, flush=True)

    def close(self) -> None:
        """Remove the bar and give the terminal its cursor back. May be called again."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
            self._quiet = True
