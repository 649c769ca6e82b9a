"""What the supervisor does about the node of its party, with a process that is only pretended."""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING, Any, cast

import pytest

from partywire.engine.commands import Accepted, CommandError, Here, LinkClaimed, Start
from partywire.engine.control_socket import ControlSocket
from partywire.engine.link_options import LinkOptions
from partywire.engine.node_commands import NodeFailed, NodeLane, NodeLost, NodeOptions, RunNode
from partywire.engine.node_family import NODE_ROLE, NodeFamily, NodeSteps
from partywire.engine.peers.wire import LIVENESS
from partywire.engine.supervisor_retries import RETRY_INTERVAL_S, Retries
from partywire.engine.topology import PartySpec, PeerSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from partywire.engine.children import Child
    from partywire.engine.commands import Message

PARTY = PartySpec("alice", 0, tuple(PeerSpec(name, index, "::1", 1) for index, name in enumerate(("alice", "bob"))))
OPTIONS = NodeOptions("{}", "alice.toml", 7, module="a.module")
LANE = NodeLane(1, "ab" * 13, [])


class Rig:
    """Everything that the family asks of its supervisor, kept."""

    def __init__(self) -> None:
        ours, theirs = ControlSocket.pair()
        theirs.close()
        self.opener = ControlSocket(ours, "the opener")
        self.told: list[Message] = []  # the opener
        self.said: list[Message] = []  # to processes of the node
        self.started: list[tuple[str, str]] = []
        self.answers = 0
        self.restarts_left = 2
        self.error: OSError | None = None
        self.retries = Retries("alice")
        steps = NodeSteps(self._start, self._send, self._may_restart, self._is_there, self.retries)
        start = Start(PARTY, (), options=LinkOptions(advertised=("/dns/alice/tcp/1",)), node=OPTIONS)
        self.family = NodeFamily(steps, self.opener, start, OPTIONS, (3, 4))

    def _start(self, role: str, module: str) -> Child:
        if self.error is not None:
            raise self.error
        self.started.append((role, module))
        child: Any = type("Started", (), {"control": object()})()
        return cast("Child", child)

    def _send(self, sock: ControlSocket, message: Message, fds: Sequence[int]) -> None:
        (self.told if sock is self.opener else self.said).append(message)

    def _may_restart(self, role: str) -> bool:
        assert role == NODE_ROLE
        self.restarts_left -= 1
        return self.restarts_left >= 0

    def _is_there(self, role: str) -> None:
        assert role == NODE_ROLE
        self.answers += 1


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    rig.family.start_process()
    yield rig
    rig.family.free()
    rig.opener.close()


def test_a_process_is_told_who_it_is_and_who_linked_peers_are(rig: Rig) -> None:
    assert rig.started == [(NODE_ROLE, "a.module")]
    [run] = rig.said
    assert isinstance(run, RunNode)
    assert (run.party, run.options, run.advertised, run.epoch) == ("alice", OPTIONS, ["/dns/alice/tcp/1"], 1)
    claims = [LinkClaimed(1, b"old", ""), LinkClaimed(1, b"new", ""), LinkClaimed(2, b"other", "")]
    for claim in claims:
        rig.family.learn(claim)
    assert rig.said[1:] == claims
    rig.said.clear()
    rig.family.hear(LANE, ())
    rig.family.on_end("was killed by SIGKILL", is_closing=False)
    again, *learnt = rig.said
    assert isinstance(again, RunNode)
    assert again.epoch == 2
    assert learnt == claims[1:]  # the latest of each


def test_lanes_and_losses_reach_the_opener_in_turns_until_it_stays_away(rig: Rig) -> None:
    for _ in range(2):
        rig.family.hear(LANE, ())
        assert rig.family.on_end("was killed by SIGKILL", is_closing=False) == ""
    rig.family.hear(LANE, ())
    rig.family.on_end("exited with code 1", is_closing=False)
    killed = NodeLost("the node's process was killed by SIGKILL", True)
    *before, last = rig.told
    assert before == [LANE, killed, LANE, killed, LANE]
    assert isinstance(last, NodeLost)
    assert not last.is_replaced
    assert "exited with code 1; it died 11 times" in last.cause
    assert len(rig.started) == 3


def test_a_node_that_cannot_start_at_first_is_not_started_again(rig: Rig) -> None:
    rig.family.hear(NodeFailed("the node of alice cannot start: its address is taken"), ())
    assert rig.told == []
    assert rig.family.on_end("", is_closing=False) == ""
    assert rig.told == [NodeFailed("the node of alice cannot start: its address is taken")]
    assert len(rig.started) == 1


def test_a_node_that_dies_before_it_ever_stood_is_tried_again_and_then_fails(rig: Rig) -> None:
    for _ in range(3):
        rig.family.on_end("was killed by SIGBUS", is_closing=False)
    *lost, failed = rig.told
    assert lost == [NodeLost("the node's process was killed by SIGBUS", True)] * 2
    assert isinstance(failed, NodeFailed)
    assert "SIGBUS; it died 11 times" in failed.message


def test_a_node_that_stood_and_cannot_start_again_is_tried_again(rig: Rig) -> None:
    rig.family.hear(LANE, ())
    rig.family.on_end("exited with code 1", is_closing=False)
    rig.family.hear(NodeFailed("its address is taken"), ())
    rig.family.on_end("", is_closing=False)
    assert rig.told[-1] == NodeLost("the node could not start again: its address is taken", True)
    assert len(rig.started) == 3


def test_a_node_that_the_machine_cannot_start_again_is_tried_until_it_can(
    rig: Rig, capfd: pytest.CaptureFixture[str]
) -> None:
    rig.family.hear(LANE, ())
    rig.error = OSError(errno.EAGAIN, "Resource temporarily unavailable")
    rig.family.on_end("exited with code 1", is_closing=False)
    reason = "the node's process exited with code 1; the machine cannot start it again yet"
    assert rig.told == [LANE, NodeLost(reason, True)]
    assert "the node cannot be started again yet: resource temporarily unavailable; raise" in capfd.readouterr().err
    later = time.monotonic() + 2 * RETRY_INTERVAL_S
    assert not rig.retries.tick(later)
    rig.family.learn(LinkClaimed(1, b"claim", ""))
    rig.error = None
    assert rig.retries.tick(later + RETRY_INTERVAL_S)
    assert capfd.readouterr().err == "partywire: alice: the supervisor: the node is started again\n"
    assert len(rig.started) == 2
    assert rig.said[-1] == LinkClaimed(1, b"claim", "")


def test_an_end_with_the_party_is_no_loss(rig: Rig) -> None:
    rig.family.hear(LANE, ())
    assert rig.family.on_end("", is_closing=True) == ""
    assert rig.told == [LANE]
    assert rig.family.on_end("was killed by SIGKILL", is_closing=True) == "the node was killed by SIGKILL"


def test_what_is_not_a_nodes_to_say_is_an_error(rig: Rig) -> None:
    rig.family.hear(Here(), ())
    assert rig.answers == 1
    with pytest.raises(CommandError, match="Accepted from the node"):
        rig.family.hear(Accepted(b"", ""), ())


def test_the_gateway_is_told_the_bytes_that_the_settings_allow(rig: Rig) -> None:
    assert rig.family.first_bytes == b"\x07"
    rig.family._options = NodeOptions("{}", "", 7, has_echo=True)
    assert rig.family.first_bytes == bytes((7, LIVENESS))
