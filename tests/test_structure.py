"""What no linter checks: the direction of imports at run time, the half of the engine that does no I/O, file sizes."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("shm", "engine", "workers")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))

# The half of engine/ that a reader could lift out as a library of its own.
WITHOUT_IO = (
    "addresses",
    "allowance",
    "antechamber",
    "channel/channel",
    "channel/link_security",
    "channel/noise",
    "connection",
    "control",
    "errors",
    "filler",
    "frame_buffer",
    "frames",
    "handshake",
    "handshake_messages",
    "http_options",
    "http_records",
    "iris_frame_buffer",
    "iris_handshake",
    "iris_options",
    "limits",
    "link",
    "link_options",
    "link_substreams/errors",
    "link_substreams/introduction",
    "link_addresses",
    "link_events",
    "multiaddr",
    "negotiation",
    "pairing/meeting",
    "peers/address_rules",
    "peer_store/codec",
    "peer_store/errors",
    "peer_store/known_address",
    "peer_store/query",
    "peer_store/record",
    "peers/claims",
    "peers/connectivity",
    "peers/identity_exchange",
    "peers/peer_id",
    "peers/strangers",
    "peers/strangers",
    "peers/wire",
    "preamble",
    "probe",
    "rendezvous",
    "session_resets",
    "sessions",
    "silent_link",
    "socks_options",
    "topology",
    "transports/errors",
    "transports/routes",
    "transports/socks",
    "transports/tor_lines",
    "yamux/errors",
    "yamux/events",
    "yamux/frames",
    "yamux/limits",
    "yamux/overdue",
    "yamux/pings",
    "yamux/session",
    "yamux/substream",
    "yamux/window_growth",
)
FORBIDDEN_WITHOUT_IO = {
    "asyncio", "fcntl", "mmap", "multiprocessing", "numpy", "os", "random", "select", "selectors", "signal",
    "socket", "ssl", "subprocess", "threading", "time", "uvloop",
}  # fmt: skip
# numpy's import alone costs each I/O process 70 ms and 20 MiB; the command's libraries cost about the same.
FORBIDDEN_IN_ENGINE = {"numpy", "click", "rich", "sklearn"}

LINES_MAX = 700


def imported_names(path: Path) -> set[str]:
    """Absolute names of every import in the file, at any depth; relative ones resolved against its folder."""
    tree = ast.parse(path.read_text(), str(path))
    package = ["partywire", *path.relative_to(ROOT).with_suffix("").parts[:-1]]
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            names.add(".".join([*base, *([node.module] if node.module else [])]))
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_folder_never_imports_one_above_it(path: Path) -> None:
    folder = path.relative_to(ROOT).parts[0]
    above = FOLDERS[FOLDERS.index(folder) + 1 :]
    upward = {name for name in imported_names(path) if any(name.startswith(f"partywire.{up}") for up in above)}
    assert not upward


@pytest.mark.parametrize("name", WITHOUT_IO)
def test_the_upper_half_of_the_engine_does_no_io_and_reads_no_clock(name: str) -> None:
    tops = {imported.split(".")[0] for imported in imported_names(ROOT / "engine" / f"{name}.py")}
    assert not tops & FORBIDDEN_WITHOUT_IO
    within = {imported.removeprefix("partywire.engine.") for imported in imported_names(ROOT / "engine" / f"{name}.py")}
    lower_half = {path.stem for path in (ROOT / "engine").glob("*.py")} - set(WITHOUT_IO) - {"__init__"}
    assert not within & lower_half


def test_shm_needs_nothing_but_the_standard_library() -> None:
    for path in (ROOT / "shm").glob("*.py"):
        tops = {name.split(".")[0] for name in imported_names(path)}
        assert tops <= set(sys.stdlib_module_names) | {"partywire", "__future__"}


@pytest.mark.parametrize(
    "module", ["engine.front", "engine.gateway", "engine.io_process", "engine.pairing.process", "engine.supervisor"]
)
def test_a_child_of_the_supervisor_imports_neither_numpy_nor_the_command(module: str) -> None:
    program = f"import sys, partywire.{module}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    ).stdout.split()
    assert not {name.split(".")[0] for name in loaded} & FORBIDDEN_IN_ENGINE
    assert not [name for name in loaded if name.startswith("partywire.workers")]


def test_importing_the_package_imports_no_numpy_and_starts_nothing() -> None:
    program = "import sys, partywire; print('numpy' in sys.modules, 'asyncio' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert printed.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_source_file_is_short_and_finished(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= LINES_MAX
    assert not re.search(r"TODO|FIXME|XXX|NotImplementedError", text)


def test_control_words_are_never_written_with_struct() -> None:
    """pack_into clears its span first: a reader would see a phantom zero in head or tail."""
    for path in (ROOT / "shm").glob("*.py"):
        for line in path.read_text().splitlines():
            if "pack_into(" in line and "unpack" not in line:
                assert "words" not in line, f"{path.name}: {line.strip()}"


def test_the_folders_of_the_package_are_those_of_the_repository() -> None:
    package = ROOT / "src" / "partywire"
    linked = {entry.name: entry.readlink() for entry in package.iterdir() if entry.is_symlink()}
    assert linked == {folder: Path("../..") / folder for folder in (*FOLDERS, "perf")}
