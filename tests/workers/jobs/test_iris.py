"""The job iris at three parties, in one process and as a command, against the plaintext answer; what it refuses."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pytest

from partywire.workers.jobs import JOBS, JobInputError, JobOptionError, load_job
from partywire.workers.jobs.iris import BLOCK_SIZE_MAX, CHUNK_SIZE_MAX, CODES_MAX, SEED_MAX, IrisJob
from partywire.workers.jobs.iris_codes import BITS, enrolled_eye, synthetic_gallery, synthetic_probes
from partywire.workers.jobs.iris_data import load_gallery, load_probes, plain_matches
from tests.support.local_sessions import run_job

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

FILES = ("gallery-codes", "gallery-masks", "probe-codes", "probe-masks")


def own_files(folder: Path, gallery: int = 3, probes: int = 4, dtype: Any = np.uint8) -> dict[str, object]:
    """The synthetic codes of seed 5 as files, and the options that name them."""
    codes = {"gallery": synthetic_gallery(5, gallery), "probe": synthetic_probes(5, probes, gallery)}
    options: dict[str, object] = {}
    for owner, found in codes.items():
        for kind, array in (("codes", found.codes), ("masks", found.masks)):
            path = folder / f"{owner}-{kind}.npy"
            np.save(path, array.reshape(-1, BITS).astype(dtype))
            options[f"{owner}-{kind}"] = str(path)
    return options


def parties(options: dict[str, object]) -> list[IrisJob]:
    return [IrisJob(party, options) for party in range(3)]


# Synthetic codes.


@pytest.mark.parametrize(("probes", "gallery", "chunk", "block"), [(1, 1, 4, 256), (5, 9, 2, 4), (4, 8, 4, 8)])
def test_synthetic_codes_match_as_in_the_plaintext_and_every_party_checks(
    probes: int, gallery: int, chunk: int, block: int
) -> None:
    options: dict[str, object] = {"probes": probes, "gallery": gallery, "chunk": chunk, "block": block, "seed": 3}
    reports = run_job(parties(options))
    for report in reports:
        assert report == reports[0]  # figures of speed too: they are agreed on
        assert report.checked is True
    result = reports[0].result
    assert IrisJob.check(options, result) is True
    assert orjson.loads(orjson.dumps(result)) == result
    for probe in range(0, probes, 2):
        eye, _ = enrolled_eye(3, probe, gallery)
        assert eye in result["matches"][probe]  # type: ignore[index]
    assert result["comparisons"] == probes * gallery * 31
    assert result["comparisons_per_second"] == pytest.approx(probes * gallery * 31 / result["seconds"])  # type: ignore[operator]


def test_the_report_says_what_a_comparison_costs_each_party() -> None:
    report = run_job(parties({"probes": 4, "gallery": 8, "chunk": 4}))[0]
    assert report.result["bytes_per_comparison"] == [6.5, 5.5, 5.5]
    assert report.result["bytes_compared"] == [6448, 5456, 5456]
    rows = dict(report.rows)
    assert rows["bytes/comparison"] == "6.500, 5.500, 5.500 sent by each party"
    assert rows["comparisons"] == "992 (4 x 8 x 31 rotations)"
    assert rows["codes"] == "synthetic gallery, synthetic probes"
    assert rows["probes matched"] == "2 of 4, against 8 gallery codes"


def test_a_wrong_match_fails_the_check() -> None:
    options = {"probes": 2, "gallery": 2}
    right = plain_matches(IrisJob(2, options).values)
    assert IrisJob.check(options, {"matches": right}) is True
    assert IrisJob.check(options, {"matches": [right[0], [0, 1]]}) is False
    assert IrisJob.check(options, {}) is False


def test_a_run_without_a_match_says_so(tmp_path: Path) -> None:
    options = own_files(tmp_path, gallery=1, probes=1)
    np.save(tmp_path / "probe-masks.npy", np.zeros((1, BITS), np.bool_))  # nothing in common
    report = run_job(parties(options))[0]
    assert report.result["matches"] == [[]]
    assert dict(report.rows)["first matches"] == "none"


# Own files.


def test_own_files_are_matched_and_only_the_launcher_can_check(tmp_path: Path) -> None:
    options = own_files(tmp_path)
    reports = run_job(parties(options))
    assert [report.checked for report in reports] == [None] * 3
    assert dict(reports[2].rows)["codes"] == "own gallery, own probes"
    assert reports[0].result["matches"] == reports[2].result["matches"] == plain_matches({"seed": 5} | DEFAULTS | SIZES)
    assert IrisJob.check(options, reports[0].result) is True


DEFAULTS: dict[str, Any] = {option.name: option.default for option in IrisJob.options} | {"seed": 5}
SIZES = {"gallery": 3, "probes": 4}


def test_each_party_needs_only_its_own_files(tmp_path: Path) -> None:
    options = own_files(tmp_path)
    jobs = [
        IrisJob(0, {name: options[name] for name in FILES[:2]}),
        IrisJob(1, {name: options[name] for name in FILES[2:]}),
        IrisJob(2, {}),
    ]
    assert [report.result["probes"] for report in run_job(jobs)] == [4] * 3


def test_own_probes_may_meet_a_synthetic_gallery_and_the_first_of_a_file_may_do(tmp_path: Path) -> None:
    options = own_files(tmp_path)
    mixed = {"gallery": 3, "probes": 2, "seed": 5} | {name: options[name] for name in FILES[2:]}
    report = run_job(parties(mixed))[0]
    assert report.checked is None
    # Whoever forgets its files, or names those of another party, sees what was matched instead.
    assert report.result["synthetic"] == {"gallery": True, "probes": False}
    assert dict(report.rows)["codes"] == "synthetic gallery, own probes"
    assert report.result["matches"] == plain_matches(DEFAULTS | SIZES)[:2]
    values = IrisJob(0, options | {"gallery": 2, "probes": 1}).values
    assert (len(load_gallery(values)), len(load_probes(values))) == (2, 1)


@pytest.mark.parametrize("dtype", [np.bool_, np.int8, ">i4", np.uint64])
def test_bits_of_any_integer_type_are_taken(tmp_path: Path, dtype: Any) -> None:
    gallery = load_gallery(IrisJob(0, own_files(tmp_path, dtype=dtype)).values)
    np.testing.assert_array_equal(gallery.codes, synthetic_gallery(5, 3).codes)
    np.testing.assert_array_equal(gallery.masks, synthetic_gallery(5, 3).masks)
    assert not gallery.is_synthetic


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (np.zeros((3, BITS)), "must hold bits, as truth values or integers 0 and 1, not float64"),
        (np.zeros((3, BITS - 1), np.uint8), r"must have a row of 12800 bits for each code; its shape is \(3, 12799\)"),
        (np.zeros((0, BITS), np.uint8), "must have a row of 12800 bits"),
        (np.zeros(BITS, np.uint8), r"its shape is \(12800,\)"),
        (np.full((3, BITS), 2, np.uint8), "has numbers other than 0 and 1"),
        (np.full((3, BITS), -1, np.int8), "has numbers other than 0 and 1"),
    ],
)
def test_files_that_cannot_be_used_are_named_without_their_content(
    tmp_path: Path, name: str, content: NDArray[Any], sentence: str
) -> None:
    options = own_files(tmp_path)
    np.save(str(options[name]), content)
    with pytest.raises(JobInputError, match=sentence) as caught:
        IrisJob(0 if name.startswith("gallery") else 1, options)
    assert str(caught.value).startswith(str(options[name]))


def test_counts_that_do_not_fit_are_one_sentence(tmp_path: Path) -> None:
    options = own_files(tmp_path)
    with pytest.raises(JobInputError, match=r"gallery-codes\.npy: has 3 codes, not the 4 of --gallery"):
        IrisJob(0, options | {"gallery": 4})
    with pytest.raises(JobInputError, match=r"probe-codes\.npy: has 4 codes, not the 5 of --probes"):
        IrisJob(1, options | {"probes": 5})
    np.save(str(options["gallery-masks"]), np.zeros((2, BITS), np.uint8))
    with pytest.raises(JobInputError, match=r"gallery-masks\.npy: has 2 masks, but .*gallery-codes\.npy has 3 codes"):
        IrisJob(0, options)
    with pytest.raises(JobInputError, match="there is no such file"):
        IrisJob(1, options | {"probe-masks": str(tmp_path / "missing.npy")})


def test_a_file_with_more_codes_than_can_be_matched_asks_for_the_first_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = own_files(tmp_path)
    monkeypatch.setattr("partywire.workers.jobs.iris_data.CODES_MAX", 2)
    with pytest.raises(JobInputError, match="has 3 codes; at most 2 can be matched, see --gallery"):
        IrisJob(0, options)
    assert len(load_gallery(IrisJob(0, options | {"gallery": 2}).values)) == 2


# Options.


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("gallery", 1, CODES_MAX), ("probes", 1, CODES_MAX), ("seed", 0, SEED_MAX)]
    + [("chunk", 1, CHUNK_SIZE_MAX), ("block", 1, BLOCK_SIZE_MAX)],
)
def test_options_are_taken_up_to_their_bounds_and_refused_beyond_them(name: str, least: int, most: int) -> None:
    for value in (least, most):
        assert IrisJob(2, {name: value}).values[name] == value
    for value in (least - 1, most + 1):
        for party in range(3):
            with pytest.raises(JobOptionError, match=f"--{name} must be {least} to {most}"):
                IrisJob(party, {name: value})


@pytest.mark.parametrize("name", FILES)
def test_codes_and_masks_go_together(name: str) -> None:
    partner = name.replace("codes", "?").replace("masks", "codes").replace("?", "masks")
    with pytest.raises(JobOptionError, match=f"--{partner} is needed too"):
        IrisJob(2, {name: "x.npy"})


# As a command.


def test_three_local_processes_match_and_report() -> None:
    command = [sys.executable, "-m", "partywire", "run", "iris", "--local", "3", "--probes", "4", "--gallery", "16"]
    done = subprocess.run([*command, "--json", "--quiet"], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    document = orjson.loads(done.stdout)
    assert document["checked"] is True
    assert "results" not in document  # the same at all parties
    assert document["result"]["bytes_per_comparison"] == [6.5, 5.5, 5.5]
    assert document["result"]["matches"] == plain_matches(DEFAULTS | {"seed": 1, "gallery": 16, "probes": 4})


def test_help_needs_no_numpy_and_names_the_files() -> None:
    assert load_job("iris") is IrisJob
    assert JOBS["iris"].endswith("iris:IrisJob")
    program = (
        "import sys; from partywire.workers.cli import main\n"
        "try: main(['run', 'iris', '--help'])\nexcept SystemExit: pass\n"
        "assert 'numpy' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    for word in ("--gallery-codes", "--probe-masks", "--seed", "--block", "12,800"):
        assert word in done.stdout
