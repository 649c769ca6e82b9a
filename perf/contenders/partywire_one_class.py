"""Ours without bulk sessions: what streams beside others shares their connections, to show what the class is for."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from partywire import BlockingParty
from partywire.perf.contender import NotOffered
from partywire.perf.workloads import bulk_sessions

from .partywire_batch import BatchParty
from .partywire_config import party_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from partywire.perf.contender import Place
    from partywire.perf.workloads import Workload


@contextmanager
def open_party(place: Place, work: Workload) -> Iterator[BatchParty]:
    if not bulk_sessions(work):
        raise NotOffered("no session of this workload is of the bulk class, so it is the row `partywire`")
    with BlockingParty(party_config(place), listener=place.listener) as party:
        yield BatchParty(party, work, is_sharing=True)
