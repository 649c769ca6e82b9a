"""What the peers hear of a job that failed here: never the words of an exception that may quote our data."""

from __future__ import annotations

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
    assert describe_to_peers(failed(PeerAborted("bob", 5, "KeyError"))) == "KeyError"
    assert describe_to_peers(failed(JobOptionError("size", "must be 1"))) == "JobOptionError: --size must be 1"
