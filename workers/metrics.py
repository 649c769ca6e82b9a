"""A party's figures as Prometheus text, version 0.0.4 of the format.

Between snapshots of running parties and a scrape: `partywire stat --format prometheus`, and GET /metrics of
`partywire serve`. The one invariant: one family of samples for each name, its HELP and TYPE once and before them, every
sample with the label `party`; times in seconds, sizes in bytes.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from partywire.engine.stat_figures import FIGURES
from partywire.engine.stat_server import SUPERVISOR

from .stat_reader import PartyEnded, StatReader, StatUnavailable, attach_to

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .stat_reader import PartySnapshot

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
PREFIX: Final = "partywire_"

FROM_KERNEL: Final = {
    "process_cpu_seconds_total": ("counter", "CPU time, user and system."),
    "process_wakeups_total": ("counter", "Times that the process waited and was woken."),
    "process_memory_bytes": ("gauge", "Resident memory, shared memory included."),
    "process_publication_age_seconds": (
        "gauge",
        "Age of what the process published last; grows while it computes without a pause.",
    ),
}
"""What no page says: name -> kind and meaning. All have the label `process`."""

Sample = tuple[str, dict[str, str], float]


def prometheus_text(snapshots: Sequence[PartySnapshot]) -> str:
    """The text of all these parties together; ends with a newline, empty for none.

    Of several parties with one name each has the pid of its supervisor as a further label: the format does not allow a
    sample twice.
    """
    families: dict[str, list[str]] = {}
    names = Counter(snapshot.party for snapshot in snapshots)
    for snapshot in snapshots:
        whose = {"party": snapshot.party}
        if names[snapshot.party] > 1:
            whose["supervisor_pid"] = str(snapshot.pids.get(SUPERVISOR, 0))
        for name, labels, value in samples(snapshot):
            line = f"{PREFIX}{name}{{{label_text(whose | labels)}}} {number_text(value)}"
            families.setdefault(name, []).append(line)
    lines = []
    for name, found in families.items():
        kind, help_ = described(name)
        lines += [f"# HELP {PREFIX}{name} {escaped_help(help_)}", f"# TYPE {PREFIX}{name} {kind}", *found]
    return "".join(f"{line}\n" for line in lines)


def described(name: str) -> tuple[str, str]:
    if name in FROM_KERNEL:
        return FROM_KERNEL[name]
    return FIGURES[name].kind, FIGURES[name].help


def samples(snapshot: PartySnapshot) -> Iterator[Sample]:
    """Name without prefix, labels without the party, value in the unit of the name."""
    for publication in snapshot.publications.values():
        for value in publication.values:
            figure = FIGURES.get(value.name)
            if figure is not None:
                number = max(0, snapshot.taken_ns - value.value) if figure.is_time else value.value
                yield value.name, dict(value.labels), number * figure.scale
    for role, use in snapshot.uses.items():
        labels = {"process": role}
        yield "process_cpu_seconds_total", labels, use.cpu_s
        yield "process_wakeups_total", labels, use.wakeups
        yield "process_memory_bytes", labels, use.memory_size
    for role in snapshot.publications:
        age_s = snapshot.age_s(role)
        if age_s is not None:
            yield "process_publication_age_seconds", {"process": role}, age_s


def label_text(labels: dict[str, str]) -> str:
    return ",".join(f'{name}="{escaped_label(value)}"' for name, value in labels.items())


def escaped_label(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def escaped_help(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def number_text(value: float) -> str:
    """Whole numbers without a point: a counter above 2**53 loses nothing here."""
    return str(int(value)) if value == int(value) else repr(round(value, 9))


class FamilyMetrics:
    """The metrics of the party that the calling process belongs to, or opened. Not for several threads.

    Attaches at the first `text` and stays attached, so that the party's processes publish twice a second from then on.
    """

    def __init__(self, supervisor_pid: int) -> None:
        """Of the party whose supervisor this is: `party.pids["supervisor"]`."""
        self._supervisor_pid = supervisor_pid
        self._reader: StatReader | None = None

    def text(self) -> str:
        """The text for a scrape, with the content type CONTENT_TYPE. Waits for the supervisor's answer the first time
        (some milliseconds), for nothing later. What a process has not published yet is not in it.

        Raises:
            StatUnavailable, PartyEnded: there are no figures; the party ends, or too many readers are attached.
        """
        try:
            if self._reader is None:
                self._reader = attach_to(self._supervisor_pid)
            return prometheus_text([self._reader.read()])
        except (PartyEnded, StatUnavailable):
            self.close()
            raise

    def close(self) -> None:
        """Detach. `text` would attach again. May be called again."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()
