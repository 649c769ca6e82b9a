"""Environments of their own in which packages of others use PartyWire from this repository."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
BUILD: Final = ROOT / "build" / "interop"
INSTALL_DEADLINE_S: Final = 600


@cache
def python_with(name: str, *packages: str) -> Path:
    """The interpreter of the environment `name`, with these packages and what PartyWire needs, kept for later runs.
    Skips where they cannot be installed."""
    folder = BUILD / name
    python = folder / "bin" / "python"
    wanted = [*packages, *tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]]
    ready = folder / ".ready"
    if ready.exists() and ready.read_text() == "\n".join(wanted):
        return python
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True, capture_output=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted]
        subprocess.run(install, check=True, capture_output=True, text=True, timeout=INSTALL_DEADLINE_S)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"{', '.join(packages)} cannot be installed here: {str(error.stderr).strip()[-500:]}")
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"{', '.join(packages)} cannot be installed here: {error}")
    ready.write_text("\n".join(wanted))
    return python


def environment() -> dict[str, str]:
    """The variables under which such an interpreter finds PartyWire here."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPATH": str(ROOT / "src")}
