"""Figures of a service as Prometheus text, beside those of its party's processes.

Between what the worker that answers HTTP knows of its service and a scrape. Format and invariant: metrics.py.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from .metrics import PREFIX, label_text
from .serve_book import FINAL, NEXT

if TYPE_CHECKING:
    from .serve_routes import ServiceView

HELP = {
    "service_up": ("gauge", "1 while jobs can be submitted and run, as GET /health says, else 0."),
    "service_recoveries_total": ("counter", "How often the parties have met again after a loss."),
    "service_jobs": ("gauge", "Jobs in the book of the party, by state."),
}


def service_text(view: ServiceView) -> str:
    """Ends with a newline; empty until the service has said what there is."""
    known = view.snapshot
    if known is None:
        return ""
    states = Counter(entry.state for entry in view.book.entries.values())
    samples: dict[str, list[tuple[dict[str, str], int]]] = {
        "service_up": [({}, int(not known.health.cause))],
        "service_recoveries_total": [({}, known.health.recoveries)],
        "service_jobs": [({"state": state}, states[state]) for state in sorted({*NEXT, *FINAL})],
    }
    lines = []
    for name, found in samples.items():
        kind, help_ = HELP[name]
        lines += [f"# HELP {PREFIX}{name} {help_}", f"# TYPE {PREFIX}{name} {kind}"]
        lines += [f"{PREFIX}{name}{{{label_text({'party': known.party} | labels)}}} {value}" for labels, value in found]
    return "".join(f"{line}\n" for line in lines)
