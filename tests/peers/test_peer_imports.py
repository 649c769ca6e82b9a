"""A party of secure computation imports nothing of peers."""

from __future__ import annotations

import subprocess
import sys


def test_a_party_and_its_processes_import_no_peers() -> None:
    program = (
        "import sys, partywire\n"
        "from partywire.workers import party, session, batch, cli\n"
        "from partywire.engine import front, gateway, io_process, supervisor\n"
        "from partywire.engine.pairing import process\n"
        "print(*sys.modules)\n"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    loaded = printed.stdout.split()
    assert "partywire.engine.gateway" in loaded
    assert not [name for name in loaded if name.startswith(("partywire.engine.peers", "partywire.engine.substreams"))]
