"""Ours with one I/O process a party for all of its links (`links_per_io_process`): where parties share few cores."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from partywire import BlockingParty
from partywire.perf.contender import NotOffered

from .partywire_batch import BatchParty
from .partywire_config import party_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from partywire.perf.contender import Place
    from partywire.perf.workloads import Workload


@contextmanager
def open_party(place: Place, work: Workload) -> Iterator[BatchParty]:
    links = place.parties - 1
    if links == 1:
        raise NotOffered("a party of two has one link, so it is the row `partywire`")
    with BlockingParty(replace(party_config(place), links_per_io_process=links), listener=place.listener) as party:
        yield BatchParty(party, work)
