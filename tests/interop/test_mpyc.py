"""MPyC itself: its own tests with our adapter installed, and its demos, unchanged, with three parties.

The tests come with its source distribution, which pip downloads. The demos are in its repository only: MPYC_SOURCE
names a folder with a checkout, otherwise git clones it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.adapters.test_mpyc import three_ports_in_a_row

pytestmark = pytest.mark.interop

REPOSITORY = "https://github.com/lschoe/mpyc"
SUITE = Path(__file__).with_name("mpyc_suite.py")
ADAPTER = ("-m", "partywire.workers.adapters.mpyc")
TESTS_MIN = 80
DOWNLOAD_TIMEOUT_S = 120
RUN_TIMEOUT_S = 600


def fetched(what: str, command: list[str]) -> None:
    """Run a command that needs the network, or skip and say what it said."""
    try:
        ran = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"{what} cannot be had here: {error}")
    if ran.returncode != 0:
        pytest.skip(f"{what} cannot be had here: {ran.stderr.strip()[-300:]}")


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution of the installed release."""
    pytest.importorskip("mpyc")
    name = f"mpyc-{version('mpyc')}"
    folder = tmp_path_factory.mktemp("released")
    download = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", "--no-build-isolation"]
    fetched(name, [*download, "--dest", str(folder), name.replace("-", "==")])
    with tarfile.open(folder / f"{name}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / name


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of the repository."""
    if given := os.environ.get("MPYC_SOURCE"):
        return Path(given).resolve()
    folder = tmp_path_factory.mktemp("repository") / "mpyc"
    what = "MPyC's repository (MPYC_SOURCE=FOLDER names a checkout)"
    fetched(what, ["git", "clone", "-q", "--depth", "1", REPOSITORY, str(folder)])
    return folder


def run(*command: str | Path, source: Path, folder: Path) -> str:
    """What a program says that imports MPyC from a source folder."""
    ran = subprocess.run(
        [sys.executable, *command],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(source)}, capture_output=True, text=True,
        timeout=RUN_TIMEOUT_S, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def run_demo(repository: Path, transport: tuple[str, ...], demo: str, *arguments: str) -> str:
    """What party 0 of three says."""
    with three_ports_in_a_row() as base:
        options = ("-M3", "-B", str(base), "--no-log")
        return run(*transport, demo, *options, *arguments, source=repository, folder=repository / "demos")


@pytest.mark.parametrize("which", ["released", "repository"])
def test_mpycs_own_tests_pass_with_the_adapter_installed(which: str, request: pytest.FixtureRequest) -> None:
    source: Path = request.getfixturevalue(which)
    said = run(*ADAPTER, SUITE, source / "tests", source=source, folder=source)
    found = re.search(r"ran (\d+) of (.*)", said)
    assert found is not None
    assert int(found[1]) >= TESTS_MIN
    assert found[2].startswith(str(source))


def test_secret_santa_draws_permutations_without_fixed_points(repository: Path) -> None:
    said = run_demo(repository, ADAPTER, "secretsanta.py", "5")
    drawn = [re.findall(r"\d+", line)[1:] for line in said.splitlines() if re.match(r"\d+ \[[\d, ]*\]$", line)]
    assert len(drawn) >= 3 * 4  # integers and two prime fields, two to five people each
    for givers in drawn:
        assert sorted(map(int, givers)) == list(range(len(givers)))
        assert all(int(receiver) != giver for giver, receiver in enumerate(givers))


@pytest.mark.parametrize("demo", ["aes.py", "np_aes.py"])
def test_aes_encrypts_the_vector_of_fips_197(repository: Path, demo: str) -> None:
    assert "69c4e0d86a7b0430d8cdb78070b4c55a" in run_demo(repository, ADAPTER, demo, "-1")


@pytest.mark.parametrize("demo", ["lpsolver.py", "np_lpsolver.py"])
def test_linear_programs_have_the_solution_that_mpycs_own_transport_finds(repository: Path, demo: str) -> None:
    ours = run_demo(repository, ADAPTER, demo, "-i2")
    assert "verification" in ours
    assert "False" not in ours
    assert ours == run_demo(repository, (), demo, "-i2")


@pytest.mark.parametrize("demo", ["sha3.py", "dsa.py", "sort.py", "unanimous.py", "id3gini.py", "onewayhashchains.py"])
def test_further_demos_run(repository: Path, demo: str) -> None:
    run_demo(repository, ADAPTER, demo)
