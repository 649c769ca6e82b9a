"""An environment of its own with tno.mpc.communication, installed from the package index when a test needs it."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Final

import pytest

BUILD: Final = Path(__file__).resolve().parents[2] / "build" / "interop"
INSTALL_DEADLINE_S: Final = 600


@cache
def python_with_tno(version: str, *others: str) -> Path:
    """The interpreter of an environment with this version, kept for later runs; skips where it cannot be installed."""
    folder = BUILD / f"tno-{version}"
    python = folder / "bin" / "python"
    ready = folder / ".ready"
    if ready.exists():
        return python
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True, capture_output=True)
        wanted = f"tno.mpc.communication=={version}"
        command: list[str | Path] = [python, "-m", "pip", "install", "--quiet", wanted, *others]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_DEADLINE_S)
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"tno.mpc.communication {version} cannot be installed here: {error}")
    ready.touch()
    return python
