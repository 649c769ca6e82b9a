"""What becomes of the jobs of a service whose parties have lost touch and met again. No I/O.

Between what all parties remember (Recall) and the orderer, which tells every party what follows. The one invariant: no
two parties ever show results of different runs of a job. So a job is done only when every party holds a result of the
same run; it runs again only when no party can have shown one; where that cannot be known, it fails and says so.

Why no result is of an earlier run than the others: whoever is asked for a job anew has thrown its result away before it
answers, and nobody runs the job before all have answered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .serve_book import DONE, FAILED, FINAL
from .serve_words import BROKEN, ENDED, Ask, Close, sentence

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .serve_words import Recall


def settle(recalled: Mapping[str, Mapping[str, Recall]], parties: Sequence[str], retries: int) -> list[Close | Ask]:
    """For every job that is not final everywhere: how it ended, then which are asked for again, in the jobs' order.

    Args:
        recalled: party -> what it remembers, by job and in its order.
        parties: all of them; the first one orders.
        retries: how often a job that has begun may begin again.
    """
    ids = dict.fromkeys(job_id for party in parties for job_id in recalled[party])
    ended: list[Close | Ask] = []
    anew: list[Close | Ask] = []
    for job_id in ids:
        said = {party: recalled[party][job_id] for party in parties if job_id in recalled[party]}
        if any(recall.word not in FINAL for recall in said.values()):
            found = _settle_job(job_id, said, parties, retries)
            (ended if isinstance(found, Close) else anew).append(found)
    return ended + anew  # so that nobody has more open jobs meanwhile than are allowed


def _settle_job(job_id: str, said: Mapping[str, Recall], parties: Sequence[str], retries: int) -> Close | Ask:
    for recall in said.values():
        if recall.word in FINAL:
            return Close(job_id, recall.word, recall.causes)
    submitted_at = next(iter(said.values())).party
    if submitted_at not in said:
        why = f"{submitted_at}, where it was submitted, was started again and has forgotten it; submit it again"
        return Close(job_id, FAILED, {submitted_at: why})
    orderer = parties[0]
    if len({(recall.job, recall.party) for recall in said.values()}) > 1:
        return Close(job_id, FAILED, {orderer: "the parties do not remember the same job"})
    ended = [party for party, recall in said.items() if recall.word == ENDED]
    if len(ended) == len(parties):
        return Close(job_id, DONE, {})
    if len(ended) == len(said) and orderer not in said:
        # It may have told its own clients the result before it died, and nobody else that it did.
        why = f"{orderer}, which orders the jobs, was started again and has forgotten whether it was done everywhere"
        return Close(job_id, FAILED, {orderer: f"{why}; submit it again"})
    if 0 < max(recall.tries for recall in said.values()) > retries:
        causes = {party: why for recall in said.values() for party, why in recall.causes.items()}
        return Close(job_id, FAILED, causes or _unfinished(said, parties))
    own = said[submitted_at]
    return Ask(job_id, own.job, own.options, own.party)


def _unfinished(said: Mapping[str, Recall], parties: Sequence[str]) -> dict[str, str]:
    """Why a job that nobody saw fail has not ended well, for each party where it has not."""
    causes = {}
    for party in parties:
        if party not in said:
            causes[party] = sentence(f"{party} was started again while the job ran")
        elif said[party].word not in (ENDED, BROKEN):
            causes[party] = sentence(f"{party} was cut off before it ran the job")
    return causes
