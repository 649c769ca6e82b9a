"""Builds small Go programs against the Go packages of Debian, or says why that cannot be done here."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

PACKAGES = ("golang-go", "golang-github-hashicorp-yamux-dev", "golang-github-flynn-noise-dev")
SOURCES = Path("/usr/share/gocode/src/github.com")
INSTALL_TIMEOUT_S = 600


def build(source: Path, folder: Path, needs: str, *others: Path) -> Path:
    """The program made of a source file, and of `others`. `needs` is the package that it imports, below github.com.

    Installs Debian's packages where we may (as root, with apt-get); else the test is skipped and says what is missing.
    """
    if shutil.which("go") is None or not (SOURCES / needs).exists():
        _install()
    program = folder / source.stem
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOCACHE": str(folder / "cache")}
    made = subprocess.run(
        ["go", "build", "-o", program, source, *others],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    return program


def _install() -> None:
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        pytest.skip(f"needs {', '.join(PACKAGES)}, which only root can install, on Debian")
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False)
        if done.returncode:
            pytest.skip(f"{' '.join(command[:2])} failed: {done.stderr.strip()[-300:]}")
