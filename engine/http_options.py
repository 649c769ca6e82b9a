"""What the HTTP front may take: sizes, times and counts, decided once by the party's configuration.

From the opener to the supervisor, the front and the serving worker, inside their control messages. The one invariant:
whatever a client does, the front holds at most `connections_max` connections of `head_size_max` bytes of head each,
and `buffer_size_max` bytes of bodies and answers over all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """Sizes in bytes, times in seconds. The defaults are guesses for small JSON requests on one host."""

    connections_max: int = 256
    """Clients connected at once; one more gets 503 and is closed."""
    in_flight_max: int = 64
    """Requests whose answer has not come yet, over all clients; one more gets 503."""
    head_size_max: int = 16 * KIB
    """Request line and headers of one request; beyond it 431."""
    body_size_max: int = 8 * MIB
    """Body of one request; beyond it 413."""
    answer_size_max: int = 16 * MIB
    """Body of one answer; a handler that returns more has failed (500)."""
    buffer_size_max: int = 64 * MIB
    """Bodies of requests and of answers that are held at once; a request that does not fit gets 503."""
    header_timeout_s: float = 10.0
    """From the first byte of a request to the end of its headers; then 408."""
    body_timeout_s: float = 30.0
    """From the end of the headers to the end of the body; then 408."""
    answer_timeout_s: float = 30.0
    """From the end of the request to the worker's answer; then 504, and the handler is cancelled."""
    send_timeout_s: float = 30.0
    """For the client to take an answer; then the connection is closed."""
    idle_timeout_s: float = 60.0
    """Between two requests of a connection; then it is closed."""
    token_digest: bytes = field(default=b"", repr=False)
    """SHA-256 of the bearer token that every request must carry; empty: none is asked for. The token itself stays in
    the process that read its file."""
    is_loopback: bool = True
    """Requests must name this host: a web page in a browser here cannot reach the front under a name of its own."""
