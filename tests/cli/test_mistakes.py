"""Every mistake of a user ends in one sentence and the documented code, at every party, never in a trace or hang."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import numpy as np
import pytest

from partywire import PartyWireError
from partywire.workers.config import PartyConfig, load_config, write_config
from partywire.workers.exit_code import failure
from partywire.workers.jobs import load_job

from .command import NAMES, command, commands, free_addresses, refused, write_configs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "digitz"], ["digitz", "digits"]),
        (["run", "sample_jobs:Missing"], ["Missing", "sample_jobs"]),
        (["run", "sample_jobs:NoJob"], ["NoJob", "subclass"]),
        (["run", "no_such_module:Job"], ["no_such_module"]),
        (["run", "digits", "--local", "4"], ["3 parties", "4"]),
        (["run", "digits", "--local", "3", "--config", "x.toml"], ["--local", "--config"]),
        (["run", "digits", "--config", "missing.toml"], ["missing.toml", "cannot be read"]),
        (["run", "digits", "--probes", "many"], ["--probes", "many"]),
        (["run", "digits", "--speed", "9"], ["--speed", "--help"]),
        (["run", "digits", "--workers", "0"], ["--workers"]),
        (["run", "digits", "--retries", "1", "--no-retry"], ["--retries", "--no-retry"]),
        (["run", "digits", "--retry-timeout", "0"], ["--retry-timeout"]),
        (["sum"], ["sum"]),
        (["init"], ["PARTY"]),
    ],
)
def test_a_command_line_that_cannot_be_used_is_one_sentence_and_code_2(
    arguments: list[str], said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = refused(capsys, *arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    for word in said:
        assert word in outcome.sentence


def test_what_only_the_parties_can_refuse_is_one_sentence_and_code_2_too() -> None:
    outcome = command("run", "digits", "--probe-images", "missing.npy")
    assert (outcome.code, outcome.out) == (2, "")
    assert "missing.npy" in outcome.sentence


@pytest.mark.parametrize(
    ("party", "options", "said"),
    [
        (0, {"probes": 0}, "--probes"),
        (1, {"probes": 100_000}, "probes"),  # party 1 has them
        (0, {"gallery": "missing.npy"}, "--labels"),
    ],
    ids=["none", "more than there are", "no labels"],
)
def test_options_that_a_job_cannot_take_are_named(party: int, options: dict[str, object], said: str) -> None:
    assert said in refusal_of_digits(party, options)


def refusal_of_digits(party: int, options: Mapping[str, object]) -> str:
    """What a party says that is started with these options: one sentence, and the code of a mistake."""
    with pytest.raises(PartyWireError) as caught:
        load_job("digits")(party, options)
    failed = failure(NAMES[party], caught.value)
    assert failed.exit_code == 2
    assert len(failed.sentence.splitlines()) == 1
    return failed.sentence


def test_a_mistake_is_an_object_for_machines() -> None:
    outcome = command("run", "digitz", "--json")
    assert outcome.code == 2
    assert outcome.document["exit_code"] == 2
    assert outcome.document["error"]["kind"] == "UsageMistake"
    assert outcome.document["error"]["message"] == outcome.sentence


def test_every_problem_of_a_configuration_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "alice.toml"
    path.write_text('name = "alice"\nspeed = 9\n[parties]\nalice = "127.0.0.1"\nbob = "127.0.0.1:7002"\n')
    outcome = refused(capsys, "run", "digits", "--config", str(path))
    assert outcome.code == 2
    for word in ("alice.toml", "speed", "parties.alice"):
        assert word in outcome.sentence


def test_a_configuration_for_another_number_of_parties_is_refused(tmp_path: Path) -> None:
    parties = dict(zip(("alice", "bob"), free_addresses(2), strict=True))
    path = tmp_path / "alice.toml"
    path.write_text(write_config(PartyConfig(name="alice", parties=parties)))
    outcome = command("run", "digits", "--config", str(path))
    assert outcome.code == 2
    assert "3 parties" in outcome.sentence


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", ["gallery.npy"]),
        (b"this is no array", ["gallery.npy"]),
        (np.zeros((3, 3)), ["gallery.npy", "integer"]),
        (np.zeros(3, dtype=np.int64), ["gallery.npy"]),
        (np.full((3, 3), -1), ["gallery.npy"]),
    ],
    ids=["empty", "text", "floats", "one-dimensional", "negative"],
)
def test_an_npy_file_that_cannot_be_used_is_named(tmp_path: Path, content: object, said: list[str]) -> None:
    path = tmp_path / "gallery.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, np.asarray(content))
    np.save(tmp_path / "labels.npy", np.arange(3))
    files = {"gallery": str(path), "labels": str(tmp_path / "labels.npy")}
    sentence = refusal_of_digits(0, files)
    for word in said:
        assert word in sentence


def test_an_address_in_use_is_named_and_the_peers_say_who_is_missing(tmp_path: Path) -> None:
    alice, *others = write_configs(tmp_path, connect_s=1.5)
    port = load_config(alice).parties["alice"][1]
    with socket.create_server(("127.0.0.1", port)):
        outcomes = commands([["run", "sample_jobs:GoodJob", "--config", path] for path in (alice, *others)])
    assert [outcome.code for outcome in outcomes] == [3, 3, 3]
    assert f"127.0.0.1:{port}" in outcomes[0].sentence
    assert "in use" in outcomes[0].sentence
    for outcome in outcomes[1:]:
        assert "alice" in outcome.sentence


def test_a_peer_that_is_not_there_is_named_after_the_connect_timeout(tmp_path: Path) -> None:
    alice, bob, _ = write_configs(tmp_path, connect_s=1.5)
    for outcome in commands([["run", "sample_jobs:GoodJob", "--config", path] for path in (alice, bob)]):
        assert outcome.code == 3
        assert "charlie" in outcome.sentence


def test_different_jobs_are_an_error_at_every_party(tmp_path: Path) -> None:
    paths = write_configs(tmp_path)
    jobs = ["sample_jobs:GoodJob", "sample_jobs:OtherJob", "sample_jobs:GoodJob"]
    for outcome in commands([["run", job, "--config", path] for job, path in zip(jobs, paths, strict=True)]):
        assert outcome.code == 3
        assert "sample_jobs:GoodJob" in outcome.sentence
        assert "sample_jobs:OtherJob" in outcome.sentence


def test_different_shared_options_are_an_error_at_every_party(tmp_path: Path) -> None:
    paths = write_configs(tmp_path)
    sizes = ["3", "3", "4"]
    lists = [
        ["run", "sample_jobs:GoodJob", "--config", path, "--size", size, "--offset", str(index)]
        for index, (path, size) in enumerate(zip(paths, sizes, strict=True))
    ]
    for outcome in commands(lists):
        assert outcome.code == 3
        assert "--size" in outcome.sentence


def test_different_configurations_are_an_error_at_every_party(tmp_path: Path) -> None:
    paths = write_configs(tmp_path, connect_s=1.5)
    text = (tmp_path / "charlie.toml").read_text().replace("bob", "robert")
    (tmp_path / "charlie.toml").write_text(text)
    for outcome in commands([["run", "sample_jobs:GoodJob", "--config", path] for path in paths]):
        assert outcome.code == 3
        assert "bob" in outcome.sentence or "robert" in outcome.sentence or "charlie" in outcome.sentence


def test_bad_input_at_one_party_ends_the_others_with_a_sentence(tmp_path: Path) -> None:
    paths = write_configs(tmp_path, connect_s=1.5)
    lists = [["run", "digits", "--config", path, "--probes", "2"] for path in paths]
    lists[0] += ["--gallery", "missing.npy", "--labels", "missing.npy"]
    alice, *others = commands(lists)
    assert alice.code == 2
    assert "missing.npy" in alice.sentence
    for outcome in others:
        assert outcome.code == 3
        assert "alice" in outcome.sentence
