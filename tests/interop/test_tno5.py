"""The Pool of tno.mpc.communication 5.x over PartyWire's links, as two processes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.interop.own_python import environment, python_with
from tests.support.reserved_ports import reserved_ports

pytestmark = pytest.mark.interop

PROGRAM = Path(__file__).with_name("tno5_program.py")
DEADLINE_S = 120


def test_two_pools_of_5_talk_through_our_communicator_and_a_closed_peer_fails_a_send() -> None:
    python = python_with("tno-5", "tno.mpc.communication==5.0.4")
    with reserved_ports(2) as ports:
        arguments = [str(port) for port in ports]
        started = [
            subprocess.Popen(
                [python, PROGRAM, name, *arguments],
                env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for name in ("alice", "bob")
        ]  # fmt: skip
        try:
            said = [process.communicate(timeout=DEADLINE_S) for process in started]
        finally:
            for process in started:
                process.kill()
                process.wait()
    assert [process.returncode for process in started] == [0, 0], said
    assert said[0][0].splitlines() == [
        "hello from bob",
        "[0, 1, 2]",
        "bob has closed its pool; no further message can come or go",
    ]
    assert said[1][0].splitlines() == ["hello from alice", "[0, 1, 2]"]
