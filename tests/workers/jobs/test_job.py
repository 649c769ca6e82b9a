"""Options, the registry of jobs, and what is refused with which sentence."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

import pytest

from partywire.workers.jobs import (
    JOBS,
    Job,
    JobInputError,
    JobOption,
    JobOptionError,
    JobReport,
    JobRunner,
    UnknownJob,
    load_job,
    resolve_options,
)
from partywire.workers.jobs.digits import DigitsJob

if TYPE_CHECKING:
    from collections.abc import Mapping

    from partywire.engine.errors import PartyWireError
    from partywire.workers.jobs.job import OptionKind

OPTIONS = (
    JobOption("count", "int", 3, "How many."),
    JobOption("ratio", "float", None, "How much."),
    JobOption("file", "path", None, "Which file."),
    JobOption("title", "text", "none", "Which title."),
)


class EchoJob(Job):
    """A job of a user's own."""

    name: ClassVar[str] = "echo"
    summary: ClassVar[str] = "say who we are"

    def run(self, runner: JobRunner) -> JobReport:
        return JobReport({"party": self.party_index})


class NamelessJob(Job):
    """A job that its author has not finished."""

    def run(self, runner: JobRunner) -> JobReport:
        return JobReport({})


def test_options_that_are_not_given_have_their_defaults() -> None:
    assert resolve_options(OPTIONS, {"ratio": None}) == {"count": 3, "ratio": None, "file": None, "title": "none"}


def test_given_options_become_their_kind() -> None:
    given: Mapping[str, object] = {"count": "7", "ratio": 2, "file": Path("a/b"), "title": "t"}
    assert resolve_options(OPTIONS, given) == {"count": 7, "ratio": 2.0, "file": "a/b", "title": "t"}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"count": "many"}, "--count must be a whole number"),
        ({"count": 1.5}, "--count must be a whole number"),
        ({"count": True}, "--count must be a whole number"),
        ({"ratio": "big"}, "--ratio must be a number"),
        ({"file": 3}, "--file must be a path"),
        ({"title": 3}, "--title must be a text"),
        ({"colour": 1}, "--colour is not an option of this job; it has: count, ratio, file, title"),
    ],
)
def test_a_bad_option_is_named(given: dict[str, object], sentence: str) -> None:
    with pytest.raises(JobOptionError) as caught:
        resolve_options(OPTIONS, given)
    assert str(caught.value) == sentence


def test_every_job_in_the_registry_says_what_it_is() -> None:
    for name in JOBS:
        job = load_job(name)
        assert job.name == name
        assert job.summary
        assert all(option.help and option.kind in ("path", "int", "float", "text") for option in job.options)


def test_a_users_own_job_is_found_by_module_and_class() -> None:
    assert load_job("partywire.workers.jobs.digits:DigitsJob") is DigitsJob


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("digit", ""),
        ("no_such_module_here:Job", "there is no module"),
        ("partywire.workers.jobs.no_such:Job", "there is no module"),
        ("partywire.workers.jobs.digits:NoSuch", "is not a subclass"),
        ("partywire.workers.jobs.digits:CHUNK_SIZE", "is not a subclass"),
        (":Job", ""),
        (".digits:DigitsJob", "there is no module"),
        ("partywire.workers.jobs:Job", "is not a subclass"),
        ("tests.workers.jobs.test_job:NamelessJob", "name must be a text; summary must be a text"),
        ("module:", ""),
    ],
)
def test_an_unknown_job_is_refused_with_the_names_of_the_known(name: str, why: str) -> None:
    with pytest.raises(UnknownJob, match="the jobs here are: digits") as caught:
        load_job(name)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        ({"name": 3}, "name must be a text"),
        ({"summary": ""}, "summary must be a text"),
        ({"parties": "3"}, "parties must be a number of parties that it is for"),
        ({"parties": 5, "parties_range": range(2, 4)}, "parties must be a number of parties that it is for"),
        ({"parties_range": (2, 3)}, "parties_range must be None or a range that is not empty"),
        ({"parties_range": range(3, 3)}, "parties_range must be None or a range that is not empty"),
        ({"parties": 1}, "must be for 2 to"),
        ({"parties_range": range(2, 1000)}, "parties, not for 2 to 999"),
        ({"options": {"count": 3}}, "options must be a tuple of JobOption"),
        ({"options": (JobOption("a b", "int", 3, ""),)}, "the name of an option cannot be 'a b'"),
        ({"options": (JobOption("a", cast("OptionKind", "number"), 3, ""),)}, "the kind of a must be one of path, int"),
        ({"options": (JobOption("a", "int", 3, ""), JobOption("a", "text", "", ""))}, "two options have one name"),
    ],
)
def test_a_class_that_declares_what_cannot_be_is_refused(
    attributes: dict[str, object], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "WrongJob", type("WrongJob", (EchoJob,), attributes), raising=False)
    with pytest.raises(UnknownJob, match="WrongJob in ") as caught:
        load_job(f"{__name__}:WrongJob")
    assert why in str(caught.value)


@pytest.mark.parametrize("counts", [None, range(2, 10), range(3, 8, 2)])
def test_a_class_that_declares_what_can_be_is_loaded(counts: range | None, monkeypatch: pytest.MonkeyPatch) -> None:
    job = type("RightJob", (EchoJob,), {"parties_range": counts, "options": OPTIONS})
    monkeypatch.setattr(sys.modules[__name__], "RightJob", job, raising=False)
    assert load_job(f"{__name__}:RightJob") is job


def test_a_job_with_a_failing_import_shows_that_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "job_with_bad_import.py").write_text("import no_such_module_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
        load_job("job_with_bad_import:Job")


def test_a_job_knows_its_place_and_its_options() -> None:
    assert EchoJob(2, {}).party_index == 2
    assert EchoJob.check({}, {}) is None
    with pytest.raises(ValueError, match="parties 0 to 2"):
        EchoJob(3, {})
    with pytest.raises(JobOptionError, match="it has: none"):
        EchoJob(0, {"x": 1})


@pytest.mark.parametrize(
    "error", [UnknownJob("x", ["a", "b"], "why"), JobOptionError("chunk", "is odd"), JobInputError("a.npy", "is empty")]
)
def test_errors_survive_pickling_and_are_ours(error: PartyWireError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert copy.__dict__ == error.__dict__


def test_reading_the_options_of_all_jobs_imports_neither_numpy_nor_scikit_learn() -> None:
    program = (
        "import sys; from partywire.workers.jobs import JOBS, load_job; [load_job(name).options for name in JOBS]; "
        "print([name for name in ('numpy', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
