"""The children of a supervisor, as it knows each of them."""

from __future__ import annotations

import selectors
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .child_process import ChildProcess
    from .control_socket import ControlSocket


class Kind(Enum):
    """What a child does."""

    GATEWAY = "gateway"
    LINK = "link"  # an I/O process
    WORKER = "worker"
    HTTP = "http"  # the HTTP front, and the worker that answers its requests
    NODE = "node"  # the party's peer-to-peer node


@dataclass(slots=True)
class Child:
    """One process under supervision. `index` is the first peer of an I/O process, the index of a worker."""

    kind: Kind
    index: int
    process: ChildProcess
    control: ControlSocket
    links: set[int] = field(default_factory=set)  # peers whose link is not over for good
    connected: dict[int, str] = field(default_factory=dict)  # peers with a connection -> its address, as last told
    watched_events: int = selectors.EVENT_READ
    fault: str = ""  # why we killed it
