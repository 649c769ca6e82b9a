"""The digits job at three parties in one process, against the plaintext search; bad data gives one sentence."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partywire.workers.jobs import JobInputError, JobOptionError
from partywire.workers.jobs.digits import DigitsJob
from partywire.workers.jobs.digits_data import (
    Gallery,
    Probes,
    built_in_probe_labels,
    load_gallery,
    load_probes,
    nearest_labels,
)
from partywire.workers.jobs.nearest import MatchPlan, agree, match_chunk, share_gallery
from partywire.workers.mpc import Replicated3
from tests.support.local_sessions import LocalSession, run_job, run_parties

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def jobs_with(**options: object) -> list[DigitsJob]:
    given = {name.replace("_", "-"): value for name, value in options.items()}
    return [DigitsJob(party, given) for party in range(3)]


def saved(path: Path, array: Any) -> str:
    np.save(path, np.asarray(array))
    return str(path)


# Built-in data.


def test_every_built_in_probe_gets_the_label_of_the_plaintext_search() -> None:
    reports = run_job(jobs_with())
    meant = built_in_probe_labels(297)
    for report in reports:
        assert report == reports[0]
        assert report.checked is True
        assert report.result["labels"] == nearest_labels(*built_in()).tolist()
        assert report.result["recognised"] == int((meant == nearest_labels(*built_in())).sum())
        assert orjson.loads(orjson.dumps(report.result)) == report.result
    assert DigitsJob.check({}, reports[0].result) is True


def built_in() -> tuple[Gallery, NDArray[np.uint32]]:
    values = {option.name: option.default for option in DigitsJob.options}
    return load_gallery(values), load_probes(values).images


def test_the_data_are_those_of_scikit_learn_and_are_read_without_it() -> None:
    program = (
        "import sys; from partywire.workers.jobs.digits import DigitsJob; DigitsJob(0, {}); DigitsJob(1, {}); "
        "assert 'sklearn' not in sys.modules; "
        "from sklearn.datasets import load_digits; from partywire.workers.jobs.digits_data import _built_in_digits; "
        "images, labels = _built_in_digits(); theirs = load_digits(); "
        "print((images == theirs.data).all() and (labels == theirs.target).all() and images.shape == (1797, 64))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "True"


@pytest.mark.parametrize(("probes", "chunk"), [(1, 32), (5, 2), (33, 32)])
def test_fewer_probes_in_any_chunks_give_the_first_labels(probes: int, chunk: int) -> None:
    reports = run_job(jobs_with(probes=probes, chunk=chunk))
    assert reports[2].result["labels"] == nearest_labels(*built_in())[:probes].tolist()
    assert reports[2].checked is True


def test_the_helper_needs_no_scikit_learn_to_learn_the_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    from partywire.workers.jobs import digits_data

    jobs = jobs_with(probes=2)
    digits_data._built_in_digits.cache_clear()
    monkeypatch.setattr(digits_data, "find_spec", lambda name: None)
    reports = run_job(jobs)
    assert [report.checked for report in reports] == [None] * 3
    assert all(len(report.result["labels"]) == 2 for report in reports)  # type: ignore[arg-type]


def test_a_wrong_label_fails_the_check() -> None:
    labels = nearest_labels(*built_in())[:4].tolist()
    assert DigitsJob.check({"probes": 4}, {"labels": labels}) is True
    labels[3] += 1
    assert DigitsJob.check({"probes": 4}, {"labels": labels}) is False
    assert DigitsJob.check({"probes": 4}, {}) is False


def test_no_scikit_learn_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    from partywire.workers.jobs import digits_data

    digits_data._built_in_digits.cache_clear()
    monkeypatch.setattr(digits_data, "find_spec", lambda name: None)
    with pytest.raises(JobInputError, match=re.escape("pip install 'partywire[digits]'")):
        DigitsJob(0, {})
    DigitsJob(2, {})  # the helper needs no data


# Own data.


def test_own_files_are_matched_and_only_the_launcher_can_check(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    gallery, labels = rng.integers(0, 256, (23, 7), np.uint8), rng.integers(0, 1 << 32, 23, np.uint32)
    options = {
        "gallery": saved(tmp_path / "g.npy", gallery),
        "labels": saved(tmp_path / "l.npy", labels),
        "probe-images": saved(tmp_path / "p.npy", rng.integers(0, 256, (9, 7), np.int64)),
        "chunk": 4,
    }
    reports = run_job([DigitsJob(party, options) for party in range(3)])
    assert [report.checked for report in reports] == [None] * 3
    assert reports[0].result["labels"] == reports[1].result["labels"] == reports[2].result["labels"]
    assert DigitsJob.check(options, reports[0].result) is True


def test_each_party_needs_only_its_own_files(tmp_path: Path) -> None:
    gallery = saved(tmp_path / "g.npy", [[0, 0], [9, 9]])
    labels = saved(tmp_path / "l.npy", [10, 20])
    probes = saved(tmp_path / "p.npy", [[8, 9], [1, 2], [5, 5]])
    jobs = [
        DigitsJob(0, {"gallery": gallery, "labels": labels}),
        DigitsJob(1, {"probe-images": probes}),
        DigitsJob(2, {}),
    ]
    assert [report.result["labels"] for report in run_job(jobs)] == [[20, 10, 20]] * 3


def test_own_probes_may_meet_the_built_in_gallery(tmp_path: Path) -> None:
    gallery, probes = built_in()
    jobs = jobs_with(probe_images=saved(tmp_path / "p.npy", probes[:3]))
    report = run_job(jobs)[0]
    assert report.result["labels"] == nearest_labels(gallery, probes[:3]).tolist()
    assert report.checked is None


@settings(max_examples=40)
@given(st.data())
def test_of_equal_distances_the_first_image_wins(data: st.DataObject) -> None:
    """Few possible values, so that ties are the rule; labels are the indices, so that the winner shows."""
    count, features, probe_count = (data.draw(st.integers(1, most)) for most in (20, 3, 4))
    value_max = data.draw(st.sampled_from([1, 2, 16, 255, 20000]))
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 32)))
    extremes = np.array([0, value_max], np.uint32)
    gallery = Gallery(
        rng.choice(extremes, (count, features)), np.arange(count, dtype=np.uint32), value_max, is_built_in=False
    )
    probes = Probes(rng.choice(extremes, (probe_count, features)), value_max, is_built_in=False)

    async def program(session: LocalSession) -> NDArray[np.uint32]:
        mine = (gallery, probes, None)[session.party_index]
        share = await share_gallery(session, (mine, 9))
        return await match_chunk(share, session, probes.images if session.party_index == 1 else probe_count)

    outcomes, _ = run_parties(program)
    for labels in outcomes:
        np.testing.assert_array_equal(labels, nearest_labels(gallery, probes.images))


def test_a_chunk_takes_the_rounds_and_bytes_that_the_module_states() -> None:
    gallery, images = built_in()
    probes = Probes(images[:8], 16, is_built_in=True)

    async def share(session: LocalSession) -> Any:
        return await share_gallery(session, ((gallery, probes, None)[session.party_index], 8))

    shares, _ = run_parties(share)

    async def match(session: LocalSession) -> Any:
        return await match_chunk(shares[session.party_index], session, images[:8] if session.party_index == 1 else 8)

    _, sessions = run_parties(match)
    # Party 2 is silent in the input, and when party 0 deals; party 0 is silent in the input.
    assert [len(session.sent) for session in sessions] == [80, 70, 69]
    pairs, others = 8 * 1499, 4 * 8 * 1500 + 4 * 8
    expected = [others + pairs * (16 + 4 + 51 / 8), others + 4 * 64 * 8 + pairs * (16 + 26 / 8)]
    assert [session.array_bytes_sent for session in sessions[:2]] == [round(size) for size in expected]
    assert sessions[2].array_bytes_sent == sessions[1].array_bytes_sent - 4 * 64 * 8


def test_what_is_sent_depends_on_the_plan_alone() -> None:
    def sizes(images: NDArray[np.uint32], probe: NDArray[np.uint32]) -> list[list[int]]:
        gallery = Gallery(images, np.arange(len(images), dtype=np.uint32), 255, is_built_in=False)
        probes = Probes(probe, 255, is_built_in=False)

        async def program(session: LocalSession) -> None:
            share = await share_gallery(session, ((gallery, probes, None)[session.party_index], 9))
            await match_chunk(share, session, probe if session.party_index == 1 else len(probe))

        _, sessions = run_parties(program)
        return [[m.size for m in session.sent if isinstance(m, np.ndarray)] for session in sessions]

    rng = np.random.default_rng(2)
    random_images, random_probe = (rng.integers(0, 256, shape).astype(np.uint32) for shape in ((11, 4), (3, 4)))
    assert sizes(random_images, random_probe) == sizes(np.zeros((11, 4), np.uint32), np.zeros((3, 4), np.uint32))


@pytest.mark.parametrize(("features", "value_max"), [(1, 46340), (2, 32767), (64, 16), (64, 5792), (3, 1)])
@pytest.mark.parametrize("first", ["nearest", "farthest"])
def test_the_widest_difference_of_distances_that_the_bounds_admit_is_compared_rightly(
    features: int, value_max: int, first: str
) -> None:
    """One image at distance 0 and one at the greatest distance there is, in both orders."""
    probe = np.full((1, features), value_max, np.uint32)
    images = np.stack([probe[0], np.zeros(features, np.uint32)])
    images = images if first == "nearest" else images[::-1]
    gallery = Gallery(images, np.array([7, 9], np.uint32), value_max, is_built_in=False)
    probes = Probes(probe, value_max, is_built_in=False)

    async def program(session: LocalSession) -> NDArray[np.uint32]:
        share = await share_gallery(session, ((gallery, probes, None)[session.party_index], 1))
        assert share.plan.features * value_max**2 < 1 << share.plan.compare_bits - 1
        return await match_chunk(share, session, probe if session.party_index == 1 else 1)

    for labels in run_parties(program)[0]:
        assert list(labels) == [7 if first == "nearest" else 9]


@pytest.mark.parametrize(("features", "value_max"), [(2, 32768), (64, 5793), (2, 46340)])
def test_one_more_than_the_bounds_admit_is_refused_at_all_parties(features: int, value_max: int) -> None:
    gallery = Gallery(np.zeros((2, features), np.uint32), np.zeros(2, np.uint32), value_max, is_built_in=False)
    probes = Probes(np.zeros((1, features), np.uint32), 1, is_built_in=False)

    async def program(session: LocalSession) -> str:
        with pytest.raises(JobInputError) as caught:
            await share_gallery(session, ((gallery, probes, None)[session.party_index], 1))
        return str(caught.value)

    [sentence] = set(run_parties(program)[0])
    assert "give distances above 31 bits" in sentence


@pytest.mark.parametrize("position", range(9))
@pytest.mark.parametrize("number", [0, -1, 1 << 40, (1 << 63) - 1])
def test_numbers_that_no_owner_announces_are_refused_before_memory_is_reserved(position: int, number: int) -> None:
    said = [3, 2, 255, 0, 2, 2, 255, 0, 4]
    if position in (3, 7):  # whether the data are the built-in ones; any number is a truth value
        return
    said[position] = number

    async def program(session: LocalSession) -> str:
        mpc = await Replicated3.setup(session)
        with pytest.raises(JobInputError) as caught:
            await agree(mpc, said[:4] if mpc.party_index == 0 else None, said[4:] if mpc.party_index == 1 else None)
        return str(caught.value)

    assert len(set(run_parties(program)[0])) == 1


@pytest.mark.parametrize(("features", "value_max", "bits"), [(64, 16, 16), (784, 255, 27), (1, 1, 2), (1, 46340, 32)])
def test_the_width_of_comparison_follows_from_public_bounds(features: int, value_max: int, bits: int) -> None:
    plan = MatchPlan(10, 1, features, value_max, 1, is_built_in=False)
    assert plan.compare_bits == bits
    assert features * value_max**2 < 1 << bits - 1


# What cannot be used.


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (np.zeros((3, 2)), "must hold integers, not float64"),
        (np.zeros((3, 2), bool), "must hold integers, not bool"),
        (np.zeros(3, np.uint8), r"must have 2 dimension\(s\), one row per image, and some data; its shape is \(3,\)"),
        (np.zeros((0, 2), np.uint8), "some data"),
        (np.full((3, 2), -1), "has images outside 0 to 255; --value-max sets another bound"),
        (np.full((3, 2), 256), "has images outside 0 to 255"),
        (np.array([["a"]]), "must hold integers"),
    ],
)
def test_images_that_cannot_be_used_are_named_without_their_content(
    tmp_path: Path, content: NDArray[Any], sentence: str
) -> None:
    path = saved(tmp_path / "bad.npy", content)
    with pytest.raises(JobInputError, match=sentence) as caught:
        DigitsJob(1, {"probe-images": path})
    assert str(caught.value).startswith(path)
    with pytest.raises(JobInputError, match=sentence):
        DigitsJob(0, {"gallery": path, "labels": path})


def npy(header: bytes, data: bytes = bytes(48)) -> bytes:
    return b"\x93NUMPY\x01\x00v\x00" + header.ljust(117) + b"\n" + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no array",
        b"\x93NUMPY\x01\x00",
        b"\x93NUMPY\x01\x00v\x00{'descr': '<i8'",
        npy(b"{'descr': '<i8'"),  # numpy lets out a TokenError of the standard library
        npy(b"(" * 117),
        npy(b"{[]: 1}"),
        npy(b"{'descr': '<i8', 'fortran_order': False, 'shape': (2, 9)}"),  # more than there is
        npy(b"{'descr': '<i8', 'fortran_order': False, 'shape': (-2, 3)}"),
        npy(b"{'descr': '<i8', 'fortran_order': False, 'shape': (1099511627776, 16777216)}"),
        npy(b"{'descr': '|O', 'fortran_order': False, 'shape': (2, 3)}"),
    ],
)
def test_a_file_that_is_no_npy_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.npy"
    path.write_bytes(content)
    with pytest.raises(JobInputError, match=r"cannot be read as a \.npy file"):
        DigitsJob(1, {"probe-images": str(path)})


def test_pickles_archives_folders_and_missing_files_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "archive.npz", a=np.zeros(3))
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 and no more")
    os.mkfifo(tmp_path / "pipe.npy")  # opening it would wait for a writer
    for name, sentence in [
        ("broken.npz", "is an archive"),
        ("pipe.npy", "cannot be read: it is no regular file"),
        ("objects.npy", "cannot be read"),
        ("archive.npz", "is an archive"),
        (".", "cannot be read"),
        ("missing.npy", "there is no such file"),
    ]:
        with pytest.raises(JobInputError, match=sentence):
            DigitsJob(1, {"probe-images": str(tmp_path / name)})


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i4", ">u8", "<i8"])
def test_integers_of_any_width_and_byte_order_are_taken(tmp_path: Path, dtype: str, order: Any) -> None:
    images = np.random.default_rng(1).integers(0, 100, (4, 3))
    path = saved(tmp_path / "p.npy", np.array(images, dtype=dtype, order=order))
    loaded = load_probes(DigitsJob(1, {"probe-images": path}).values).images
    np.testing.assert_array_equal(loaded, images)
    assert loaded.dtype == np.uint32
    assert loaded.dtype.isnative


def test_a_file_written_long_ago_is_read_without_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "p.npy"
    path.write_bytes(npy(b"{'descr': '<i8', 'fortran_order': False, 'shape': (2L, 3L), }"))
    assert load_probes(DigitsJob(1, {"probe-images": str(path)}).values).images.shape == (2, 3)


def test_labels_must_belong_to_the_gallery(tmp_path: Path) -> None:
    gallery = saved(tmp_path / "g.npy", np.zeros((3, 2), np.uint8))
    for labels, sentence in [
        (np.zeros(4, np.uint8), "has 4 labels, but .* has 3 images"),
        (np.full(3, -1), "has labels outside 0 to 4294967295$"),
        (np.zeros((3, 1), np.uint8), "one label per image"),
    ]:
        with pytest.raises(JobInputError, match=sentence):
            DigitsJob(0, {"gallery": gallery, "labels": saved(tmp_path / "l.npy", labels)})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"probes": 0}, "--probes must be at least 1"),
        ({"chunk": 0}, "--chunk must be 1 to 4096"),
        ({"chunk": 5000}, "--chunk must be 1 to 4096"),
        ({"value-max": 50000}, "--value-max must be 1 to 46340"),
        ({"gallery": "g.npy"}, "--labels is needed too"),
        ({"labels": "l.npy"}, "--gallery is needed too"),
    ],
)
def test_options_out_of_range_are_refused_at_every_party(options: dict[str, object], sentence: str) -> None:
    for party in range(3):
        with pytest.raises(JobOptionError, match=sentence):
            DigitsJob(party, options)


def test_more_probes_than_there_are_is_one_sentence() -> None:
    with pytest.raises(JobInputError, match="the built-in digits: has 297 probes, not the 298 of --probes"):
        DigitsJob(1, {"probes": 298})


def test_probes_of_another_size_than_the_gallery_fail_at_all_parties(tmp_path: Path) -> None:
    jobs = jobs_with(probe_images=saved(tmp_path / "p.npy", np.zeros((2, 63), np.uint8)))
    with pytest.raises(
        JobInputError, match="the probes of party 1: have 63 values per image, the gallery of party 0 has 64"
    ):
        run_job(jobs)  # run_job itself requires that all three fail


def test_data_that_do_not_fit_each_other_are_a_usage_error_in_one_sentence_for_every_party(tmp_path: Path) -> None:
    """The batch itself ends well, so that no party takes the mistake for a failure of a peer."""
    probes = saved(tmp_path / "p.npy", np.zeros((2, 63), np.uint8))
    command = [sys.executable, "-m", "partywire", "run", "digits", "--local", "3", "--probe-images", probes]
    done = subprocess.run([*command, "--json", "--quiet"], capture_output=True, text=True, timeout=120, check=False)
    sentence = "the probes of bob: have 63 values per image, the gallery of alice has 64"
    assert done.returncode == 2
    assert done.stderr.splitlines() in [[f"partywire: {party}: {sentence}"] for party in ("alice", "bob", "charlie")]
    said = [(failed["kind"], failed["message"]) for failed in orjson.loads(done.stdout)["parties"].values()]
    assert ("JobInputError", sentence) in said
    assert all(kind == "JobInputError" or "interrupted" in message for kind, message in said)


def test_distances_that_do_not_fit_the_ring_fail_at_all_parties(tmp_path: Path) -> None:
    images = saved(tmp_path / "p.npy", np.zeros((2, 64), np.uint8))
    with pytest.raises(JobInputError, match="64 values up to 40000 per image give distances above 31 bits"):
        run_job(jobs_with(probe_images=images, value_max=40000))
