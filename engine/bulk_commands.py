"""What an opener, its supervisor and the I/O processes say to each other about bulk connections.

Part of `commands`, which says what messages there are. Bulk connections are numbered behind the normal ones of their
link (`topology.connection_of_session`), and belong to one link epoch.
"""

from __future__ import annotations

from .message import ControlMessage


class OpenBulk(ControlMessage):
    """opener -> supervisor -> I/O process: sessions of the bulk class need these connections in this epoch of the link.

    Whichever party dials the link dials them. Those that stand, or are under way, are not made twice.
    """

    peer: int
    epoch: int
    connections: list[int]


class BulkLane(ControlMessage):
    """I/O process -> supervisor -> worker `worker`, verbatim: a bulk connection stands. Descriptors: its (tx, rx)."""

    worker: int
    peer: int
    epoch: int
    connection: int
    message_size_max: int
    """The smaller of both sides' limits."""


class BulkFailed(ControlMessage):
    """I/O process -> supervisor -> opener: a bulk connection could not be made; the link stands. It may be asked for
    again."""

    peer: int
    epoch: int
    cause: str
