"""What the supervisor, the opener, the HTTP front and the worker that answers tell each other on control sockets.

Part of `commands`, which encodes and checks them; apart because a party without a front sends none of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .http_options import HttpOptions  # noqa: TC001 - the types of fields are read at run time


@dataclass(frozen=True, slots=True)
class StartHttp:
    """opener -> supervisor: serve HTTP from now on. Descriptors: [listening socket].

    The worker that answers runs `worker_module`, a module name, and is told `handlers`, the user's "module:name" or
    nothing.
    """

    options: HttpOptions
    worker_module: str
    handlers: str


@dataclass(frozen=True, slots=True)
class HttpWorkerStarted:
    """supervisor -> opener, at every start of the worker that answers. Descriptors: [channel], a stream socket whose
    other end that worker has."""

    pid: int


@dataclass(frozen=True, slots=True)
class HttpFailed:
    """supervisor -> opener: the front or its worker will not be started any more; HTTP is over."""

    message: str


@dataclass(frozen=True, slots=True)
class ServeHttp:
    """supervisor -> front, the first message. Descriptors: [listener, own doorbell eventfd, page]."""

    options: HttpOptions = field(repr=False)


@dataclass(frozen=True, slots=True)
class AnswerHttp:
    """supervisor -> worker that answers, the first message. Descriptors: [own doorbell eventfd, page, channel]."""

    options: HttpOptions = field(repr=False)
    handlers: str


@dataclass(frozen=True, slots=True)
class HttpLaneMade:
    """supervisor -> front and worker: these are your rings from now on; what was in older ones is gone.

    Descriptors: the other side's bell (eventfd, page), then the segments to write and to read. The receiver owns them.
    """


@dataclass(frozen=True, slots=True)
class HttpLaneLost:
    """supervisor -> front: the worker died. `cause` names the signal or exit code."""

    cause: str
