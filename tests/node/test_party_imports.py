"""A party of secure computation, and every process of its family, imports nothing of what a node is made of."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.docs.commands import run

if TYPE_CHECKING:
    from pathlib import Path

PARTS = (
    "partywire.engine.yamux",
    "partywire.engine.substreams",
    "partywire.engine.peers",
    "partywire.engine.peer_store",
    "partywire.engine.transports",
    "partywire.engine.messaging",
    "partywire.engine.rpc",
    "partywire.engine.negotiation",
    "partywire.workers.node",
)

OF_PARTIES = (
    "partywire.engine.link_substreams",
    "partywire.engine.named_handlers",
    "partywire.engine.node_family",
    "partywire.engine.ring_stream",
    "partywire.engine.worker_bridge",
    "partywire.workers.party_node",
)
"""What a party with a table [node] has beside them."""


def imported(script: str, folder: Path) -> set[str]:
    """Every module that a Python process of the script imported, which python says at the end of each import."""
    said = run(f"export PYTHONPROFILEIMPORTTIME=1; {script}", folder)
    assert said.code == 0, said.text[-3000:]
    return set(re.findall(r"\| +([\w.]+)$", said.text, re.MULTILINE))


def test_a_run_of_parties_imports_no_part_of_a_node(tmp_path: Path) -> None:
    modules = imported("partywire run sum --local 2 --workers 2", tmp_path)
    # One that only the supervisor imports, the I/O processes, the gateway, a child worker, the opener: all were heard.
    engine = {f"partywire.engine.{name}" for name in ("children", "link_keeper", "secure_probe")}
    assert engine | {"partywire.workers.child_worker", "partywire.workers.party"} <= modules
    assert not [name for name in modules if name.startswith(PARTS + OF_PARTIES)]


def test_a_node_imports_all_of_them_but_the_store(tmp_path: Path) -> None:
    modules = imported("python -c 'import partywire.workers.node'", tmp_path)
    assert [part for part in PARTS if part not in modules] == ["partywire.engine.peer_store"]


def test_the_process_of_a_partys_node_imports_neither_numpy_nor_the_command(tmp_path: Path) -> None:
    modules = imported("python -c 'import partywire.workers.node.node_process'", tmp_path)
    assert "partywire.engine.peers.connections" in modules
    assert not modules & {"numpy", "click", "rich", "lmdb", "partywire.workers.party", "partywire.engine.supervisor"}
