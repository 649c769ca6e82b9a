"""Ours in one process a party: `BatchRunner`, with links in the program's own process (`io = "in-process"`)."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from partywire import BlockingParty

from .partywire_batch import BatchParty
from .partywire_config import party_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from partywire.perf.contender import Place
    from partywire.perf.workloads import Workload

SILENCE_S: Final = 3_600.0
"""Nobody answers heartbeats while other contenders have their turn."""


@contextmanager
def open_party(place: Place, work: Workload) -> Iterator[BatchParty]:
    config = replace(party_config(place), io="in-process", heartbeat_s=SILENCE_S)
    with BlockingParty(config, listener=place.listener) as party:
        yield BatchParty(party, work)
