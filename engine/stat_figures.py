"""Every figure that a process of a party publishes: its name, unit and meaning.

Between those who publish (supervisor, I/O processes, workers), and those who show (`stat`, `top`, Prometheus). The one
invariant: a name means the same wherever it stands, and a published value is a whole number in the unit given here;
`scale` turns it into the unit of the name.

Names are those of the Prometheus text without their prefix: `_total` ends what only grows, the unit stands before it.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple


class Figure(NamedTuple):
    """What one name means."""

    kind: Literal["counter", "gauge"]
    unit: str  # of the published whole number; "" for a count or a truth value
    help: str
    labels: tuple[str, ...] = ()
    scale: float = 1.0  # published number times this is in the unit of the name

    @property
    def is_time(self) -> bool:
        """Whether the value is an instant on CLOCK_MONOTONIC, to be shown as its age."""
        return self.unit == "ns (monotonic)"


_RING: Final = ("peer", "connection", "worker", "direction")
_LANE: Final = ("peer", "connection", "worker")
_LINK: Final = ("peer",)
_PROCESS: Final = ("process",)
_WORKER: Final = ("worker",)

FIGURES: Final[dict[str, Figure]] = {
    # Links, as the supervisor hears of them.
    "link_up": Figure("gauge", "", "Whether the link to the peer stands (1) or not (0).", _LINK),
    "link_epoch": Figure("gauge", "", "Life of the link, as agreed in its handshake; 0 before the first.", _LINK),
    "link_losses_total": Figure("counter", "", "How often the link was lost, without goodbye.", _LINK),
    "link_heartbeat_age_seconds": Figure(
        "gauge", "ns (monotonic)", "Time since anything came from the peer on the control connection.", _LINK, 1e-9
    ),
    # Rings: tx is worker to I/O process, rx is I/O process to worker.
    "ring_capacity_bytes": Figure("gauge", "bytes", "Size of the ring.", _RING),
    "ring_depth_bytes": Figure("gauge", "bytes", "Published and not released by its reader yet.", _RING),
    "ring_depth_max_bytes": Figure("gauge", "bytes", "The most that its reader ever found waiting.", _RING),
    "ring_bytes_total": Figure(
        "counter", "bytes", "Published in the ring, its record headers and padding included.", _RING
    ),
    "ring_records_total": Figure("counter", "", "Records published; a record is a batch of messages.", _RING),
    "ring_full_total": Figure("counter", "", "Writes that found no room.", _RING),
    "ring_stalled": Figure("gauge", "", "Whether its writer waits for room now (1) or not (0).", _RING),
    "ring_bells_total": Figure("counter", "", "Times that its writer woke the sleeping reader.", _RING),
    "ring_space_bells_total": Figure("counter", "", "Times that its reader woke the writer waiting for room.", _RING),
    "ring_late_wakeups_total": Figure(
        "counter", "", "Sleeps that only their time limit ended although data was there; must stay 0.", _RING
    ),
    "ring_bad_records_total": Figure("counter", "", "Records that its reader refused; must stay 0.", _RING),
    # Processes.
    "process_asleep": Figure("gauge", "", "Whether the process sleeps on its doorbell (1) or not (0).", _PROCESS),
    "process_sleeps_total": Figure("counter", "", "Times that the process armed its doorbell to sleep.", _PROCESS),
    "worker_losses_total": Figure("counter", "", "Further workers that died."),
    "gateway_restarts_total": Figure("counter", "", "Times that the gateway died and was started again."),
    "refused_connections_total": Figure(
        "counter", "", "Connections at our address that were closed because they could not be routed.", ("reason",)
    ),
    "stat_readers": Figure("gauge", "", "Programs that read these figures now."),
    # Workers, as each says itself.
    "sessions": Figure("gauge", "", "Sessions that the worker has open.", _WORKER),
    "inbox_bytes": Figure("gauge", "bytes", "Received, and not asked for by a session yet.", _WORKER),
    "inbox_limit_bytes": Figure("gauge", "bytes", "What limits.inbox_mib allows the inbox.", _WORKER),
    "parked_frames_total": Figure("counter", "", "Frames that came before their session was made here.", _WORKER),
    "dropped_stale_frames_total": Figure(
        "counter", "", "Late frames of closed sessions, dropped as they must be.", _WORKER
    ),
    "dropped_unknown_frames_total": Figure("counter", "", "Frames of sessions that nobody knows, refused.", _WORKER),
    "worker_late_wakeups_total": Figure(
        "counter", "", "Sleeps of the worker that only their time limit ended although data was there.", _WORKER
    ),
    "lane_sent_bytes_total": Figure("counter", "bytes", "Frames that sessions sent on the connection.", _LANE),
    "lane_received_bytes_total": Figure("counter", "bytes", "Frames that came on the connection.", _LANE),
    "lane_received_messages_total": Figure("counter", "", "Messages that came on the connection.", _LANE),
    "lane_sessions": Figure("gauge", "", "Sessions whose messages with the peer go over the connection.", _LANE),
    "lane_waiting_senders": Figure("gauge", "", "Sends that wait for room in the tx ring.", _LANE),
    # The party's node, as its process says itself.
    "node_connections": Figure("gauge", "", "Peers of the party's node that are connected; linked parties are not."),
    "node_events_total": Figure(
        "counter", "", "What happened to the node's connections: dials, failures, refusals, bans ...", ("event",)
    ),
}

TEXTS: Final = ("link_state", "link_cause")
"""What is published as words, with the label `peer`: connecting, up, closed, lost or failed; and why it is not up."""
