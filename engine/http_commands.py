"""What the supervisor, the opener, the HTTP front and the worker that answers tell each other on control sockets.

Part of `commands`, which encodes and checks them; apart because a party without a front sends none of them.
"""

from __future__ import annotations

from .http_options import HttpOptions  # noqa: TC001 - the types of fields are read at run time
from .message import ControlMessage


class StartHttp(ControlMessage):
    """opener -> supervisor: serve HTTP from now on. Descriptors: [listening socket].

    The worker that answers runs `worker_module`, a module name, and is told `handlers`, the user's "module:name" or
    nothing.
    """

    options: HttpOptions
    worker_module: str
    handlers: str


class HttpWorkerStarted(ControlMessage):
    """supervisor -> opener, at every start of the worker that answers. Descriptors: [channel], a stream socket whose
    other end that worker has."""

    pid: int


class HttpFailed(ControlMessage):
    """supervisor -> opener: the front or its worker will not be started any more; HTTP is over."""

    message: str


class ServeHttp(ControlMessage):
    """supervisor -> front, the first message. Descriptors: [listener, own doorbell eventfd, page]."""

    options: HttpOptions


class AnswerHttp(ControlMessage):
    """supervisor -> worker that answers, the first message. Descriptors: [own doorbell eventfd, page, channel]."""

    options: HttpOptions
    handlers: str


class HttpLaneMade(ControlMessage):
    """supervisor -> front and worker: these are your rings from now on; what was in older ones is gone.

    Descriptors: the other side's bell (eventfd, page), then the segments to write and to read. The receiver owns them.
    """


class HttpLaneLost(ControlMessage):
    """supervisor -> front: the worker died. `cause` names the signal or exit code."""

    cause: str
