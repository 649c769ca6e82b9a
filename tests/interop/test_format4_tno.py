"""The byte format of tno.mpc.communication 4.x against the library itself: what each writes, the other one reads."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from partywire.workers.objects.serialization import Serialization
from tests.interop.tno_venv import python_with_tno
from tests.objects.vectors4 import VECTORS

pytestmark = pytest.mark.interop

values4 = pytest.importorskip("tests.objects.values4", reason="pandas, gmpy2 and bitarray are not installed")

VERSION: Final = "4.12.0"
OBJECTS: Final = Path(__file__).resolve().parents[1] / "objects"

READ_OURS: Final = """
import json, sys
import values4
from tno.mpc.communication import Serialization
values4.write_all(Serialization)
packed = json.load(sys.stdin)
print(json.dumps({name: repr(Serialization.unpack(bytes.fromhex(data))[1]) for name, data in packed.items()}))
"""


def run(*arguments: str, text: str = "") -> Any:
    python = python_with_tno(VERSION, "numpy", "pandas", "pyarrow", "gmpy2", "bitarray")
    done = subprocess.run(
        [python, *arguments], input=text, capture_output=True, text=True, cwd=OBJECTS, timeout=120, check=True
    )
    return json.loads(done.stdout)


def test_the_vectors_are_what_the_library_writes() -> None:
    written = run(str(OBJECTS / "values4.py"))
    assert written.keys() == VECTORS.keys()
    for name, data in written.items():
        if name not in values4.UNSTABLE:
            assert data == VECTORS[name], name


def test_the_library_reads_what_we_write_as_it_reads_its_own() -> None:
    ours = values4.write_all(Serialization)
    Serialization.clear_serialization_logic()
    read_ours = run("-c", READ_OURS, text=json.dumps(ours))
    read_its_own = run("-c", READ_OURS, text=json.dumps(VECTORS))
    del read_ours["class"], read_its_own["class"]  # shown by their addresses
    assert read_ours == read_its_own
