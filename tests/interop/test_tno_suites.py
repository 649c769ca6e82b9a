"""The test suites of published packages for tno.mpc.communication 4.x, unchanged, on PartyWire's Pool."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Final

import pytest

from tests.interop.own_python import environment, python_with

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.interop

DEADLINE_S: Final = 850

PACKAGES: Final = (
    "tno.mpc.communication==4.12.0",
    "tno.mpc.encryption_schemes.utils<0.16",  # newer ones need 5.x
    "tno.mpc.encryption_schemes.paillier==3.2.0",
    "tno.mpc.encryption_schemes.dgk==3.0.5",
    "tno.mpc.encryption_schemes.elgamal==1.1.5",
    "tno.mpc.protocols.secure_comparison==4.4.0",
    "tno.mpc.protocols.distributed_keygen==4.3.0",
    "tno.mpc.protocols.secure_inner_join==2.0.2",
    "pytest<8.4",
    "pytest-asyncio<0.22",
    "numpy<2",
    "pandas<3",
    "gmpy2",
    "bitarray",
)

SUITES: Final = {
    "paillier": ("encryption_schemes/paillier/test/test_serialization.py", 80),
    "dgk": ("encryption_schemes/dgk/test/test_serialization.py", 10),
    "elgamal": ("encryption_schemes/elgamal/test/test_serialization.py", 10),
    "secure_comparison": ("protocols/secure_comparison/test", 100),
    "distributed_keygen": ("protocols/distributed_keygen/test", 30),
    "secure_inner_join": ("protocols/secure_inner_join/test", 50),
}
"""Name -> where its tests are, and at least how many there are."""

OWN_TESTS: Final = ("test_pool_http_2p.py", "test_pool_http_3p.py", "test_pool_creation.py", "test_pool_https_2p.py")

OTHER_BY_DESIGN: Final = (
    "test_https_pool_fails_if_server_pool_has_unauthorized_certificate",
    "test_https_pool_fails_if_client_pool_has_unauthorized_certificate",
)
"""Expect an error of aiohttp's type; ours is ConnectFailed."""


def run_suite(paths: list[Path], folder: Path, *options: str) -> str:
    """Run pytest on the drop-in; what it said at the end. Every test has to pass."""
    settings = folder / "pytest.ini"
    settings.write_text("[pytest]\n")  # else it finds those of this repository, in which the environment lies
    command = [
        str(python_with("tno-suites", *PACKAGES)), "-m", "pytest", "-q", "-c", str(settings),
        "-p", "partywire.workers.tno.plugin", "-p", "no:cacheprovider",
        "-o", "faulthandler_timeout=300", *options, *map(str, paths),
    ]  # fmt: skip
    outcome = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert outcome.returncode == 0, outcome.stdout[-5000:] + outcome.stderr[-2000:]
    return outcome.stdout.strip().splitlines()[-1]


def installed(path: str) -> Path:
    """A file or folder of the packages."""
    python = python_with("tno-suites", *PACKAGES)
    (found,) = python.parents[1].glob(f"lib/python3*/site-packages/tno/mpc/{path}")
    return found


@pytest.mark.parametrize("name", SUITES)
def test_the_suite_of_a_published_package_passes(name: str, tmp_path: Path) -> None:
    where, least = SUITES[name]
    said = run_suite([installed(where)], tmp_path, "--fixture-pool-scope", "module")
    passed = re.search(r"(\d+) passed", said)
    assert passed is not None
    assert int(passed[1]) >= least, said


def test_the_tests_of_pools_in_the_package_itself_pass(tmp_path: Path) -> None:
    """They stand in the package whose place ours takes, so they run from a copy."""
    theirs = installed("communication/test")
    copy = tmp_path / "own_tests"
    shutil.copytree(theirs, copy, ignore=shutil.ignore_patterns("conftest.py", "pool_fixtures_http.py", "__pycache__"))
    (copy / "__init__.py").write_text("")
    (copy / "conftest.py").write_text(
        'from pathlib import Path\nTEST_CERTIFICATE_DIR = Path(__file__).parents[0] / "tls_certs"\n'
    )
    for key in (copy / "tls_certs").iterdir():
        key.chmod(0o600)
    # Of the tests of packing, which import torch, only the classes that the others send.
    packing = (copy / "test_packing.py").read_text()
    classes = re.findall(r"^class ClassCorrectKwargs.*?(?=^(?:class|def|@))", packing, re.MULTILINE | re.DOTALL)
    imports = (
        "from __future__ import annotations\nfrom typing import Any\n"
        "from tno.mpc.communication import SupportsSerialization\n"
        "from tno.mpc.communication.httphandlers import HTTPClient\n\n"
    )
    (copy / "test_packing.py").write_text(imports + "".join(classes))
    for file in copy.glob("*.py"):
        file.write_text(file.read_text().replace("tno.mpc.communication.test", "own_tests"))
    said = run_suite([copy / name for name in OWN_TESTS], tmp_path, "-k", f"not ({' or '.join(OTHER_BY_DESIGN)})")
    passed = re.search(r"(\d+) passed, 2 deselected", said)
    assert passed is not None
    assert int(passed[1]) >= 45, said
