"""What the peers hear of a job that failed here: never the words of an exception that may quote our data."""

from __future__ import annotations

from partywire import PartyWireError
from partywire.workers.errors import JobFailed, PeerAborted, describe, describe_to_peers
from partywire.workers.jobs import JobOptionError


def failed(cause: BaseException | None) -> JobFailed:
    error = JobFailed(3, "bob", "ValueError: share 1234 is odd")
    error.__cause__ = cause
    return error


def test_a_failed_batch_is_told_by_what_is_under_it() -> None:
    for cause in (ValueError("share 1234 is odd"), failed(ValueError("share 1234 is odd")), None):
        error = failed(cause)
        assert "1234" in describe(error)  # at home
        assert "1234" not in describe_to_peers(error)
        assert "ValueError" in describe_to_peers(error) or cause is None
    assert describe_to_peers(failed(PeerAborted("bob", 5, "KeyError"))) == "KeyError"
    assert describe_to_peers(failed(JobOptionError("size", "must be 1"))) == "JobOptionError: --size must be 1"


class JobsOwn(PartyWireError):
    """A job's own error, made of ours."""


def test_an_error_that_a_job_derives_from_ours_may_quote_data_too() -> None:
    told = describe_to_peers(JobsOwn("share 1234 is odd"))
    assert ("1234" in told, "JobsOwn" in told) == (False, True)
