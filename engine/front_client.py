"""One HTTP client of the front, on its loop: deadlines, admission, answers, and a clean end.

Between a socket and the Front. The one invariant: a client costs what it has been admitted for and no more: one
connection, at most one request in flight, and bytes that the Front's budget has granted; all of it is given back in
`_forget`, once, whatever way the connection ends. Nothing of a client reaches the worker before it is whole, and
nothing of an answer leaves before the worker is done with it, so a slow client never holds a worker.

A client that ends its side of the connection has left: its request is cancelled (as nginx does; a client that only
half-closes and waits cannot be told from one that is gone).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
from typing import TYPE_CHECKING, Final, cast

from .http_connection import (
    PROBLEM_TYPE,
    RETRY_AFTER_S,
    HeadReceived,
    HttpConnection,
    Phase,
    Refused,
    RequestReceived,
    problem,
)

if TYPE_CHECKING:
    from .front import Front
    from .http_records import Answer, Headers

LINGER_S: Final = 1.0
"""How long a refused client may go on sending what nobody reads. Closing at once would reset the connection, and the
reset can overtake the answer that says why."""

PIPELINED_SIZE_MAX: Final = 64 * 1024
"""Bytes behind a request without an answer at which the socket is read no more. Below it the front goes on reading, so
as to see the client's end."""

SMALL_ANSWER_SIZE: Final = 64 * 1024
"""Bytes of an answer that need nothing of the budget: announced bodies that fill it cannot keep the answers to what has
been carried out already from their clients. At most one of each connection."""

RETRY_AFTER: Final[Headers] = ((b"retry-after", b"%d" % RETRY_AFTER_S),)
CHALLENGE: Final[Headers] = ((b"www-authenticate", b"Bearer"),)


class Client(asyncio.Protocol):
    """Driven by the loop (bytes, end, timer) and by the Front (answer, failure)."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._options = front.options
        self._http = HttpConnection(front.options)
        self._transport: asyncio.Transport | None = None  # while connected
        self._reserved = 0  # bytes of the Front's budget
        self._request_id: int | None = None  # while the worker has it
        self._is_sending = False  # until the kernel has taken the answer
        self._is_lingering = False  # until the client has seen that it was refused
        self._is_reading_paused = False
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    # The connection.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is one in all but name.
        self._transport = transport = cast("asyncio.Transport", transport)
        transport.set_write_buffer_limits(high=0)  # so that `resume_writing` says when an answer is out
        refusal = self._front.join(self)
        self._expire_after(self._options.header_timeout_s)
        if refusal and not transport.is_closing():
            self._refuse(503, refusal, RETRY_AFTER)

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()

    def eof_received(self) -> bool:
        return False  # the transport closes

    def data_received(self, data: bytes) -> None:
        if self._is_lingering:
            return
        self._http.receive(data)
        if self._request_id is not None or self._is_sending:
            if self._http.unread_size > PIPELINED_SIZE_MAX and not self._is_reading_paused:
                self._is_reading_paused = True
                self._connected.pause_reading()
            return
        self._advance()

    def resume_writing(self) -> None:
        """The kernel has taken everything."""
        if not self._is_sending or self._transport is None:
            return
        self._is_sending = False
        self._release()
        if self._http.is_over:
            self._finish()
            return
        if self._front.is_draining and self._http.phase is Phase.IDLE:
            self._connected.close()
            return
        if self._is_reading_paused:
            self._is_reading_paused = False
            self._connected.resume_reading()
        is_idle = self._http.phase is Phase.IDLE
        self._expire_after(self._options.idle_timeout_s if is_idle else self._options.header_timeout_s)
        if not is_idle:
            self._advance()

    # Requests.

    def _advance(self) -> None:
        """Go on as far as the received bytes allow."""
        before = self._http.phase
        while (event := self._http.next_event()) is not None:
            if isinstance(event, HeadReceived):
                refusal = self._admit(event)
                if refusal is not None:
                    self._refuse(refusal.status, refusal.detail, refusal.headers)
                    return
                if event.expects_continue:
                    self._connected.write(self._http.go_on())
            elif isinstance(event, Refused):
                self._refuse(event.status, event.detail, event.headers)
                return
            else:
                self._submit(event)
                return
        phase = self._http.phase
        if phase is Phase.CLOSED:
            self._finish()
        elif phase is Phase.BODY and not self._reserve(self._http.body_size):
            self._refuse(503, "the front holds as many bytes as it may; try again", RETRY_AFTER)
        elif phase is not before:
            head = phase is Phase.HEAD
            self._expire_after(self._options.header_timeout_s if head else self._options.body_timeout_s)

    def _admit(self, head: HeadReceived) -> Refused | None:
        """What speaks against this request before its body is read, if anything does."""
        if self._options.is_loopback and not names_this_host(head.host):
            return Refused(421, "the Host of the request is not this host; use the address that the front listens on")
        if self._options.token_digest and not self._is_authorized(head.headers):
            return Refused(
                401, "the request needs the header Authorization: Bearer with the service's token", CHALLENGE
            )
        if head.size != 0 and not self._front.may_begin:  # without a body the connection can stay in order
            return Refused(503, self._front.why_busy, RETRY_AFTER)
        if not self._reserve(head.size or 0):
            return Refused(503, "the front holds as many bytes as it may; try again", RETRY_AFTER)
        return None

    def _is_authorized(self, headers: Headers) -> bool:
        given = [value for name, value in headers if name == b"authorization"]
        if len(given) != 1 or given[0][:7].lower() != b"bearer ":
            return False
        return hmac.compare_digest(hashlib.sha256(given[0][7:].strip()).digest(), self._options.token_digest)

    def _submit(self, event: RequestReceived) -> None:
        head = event.head
        if not self._reserve(len(event.body)):
            self._refuse(503, "the front holds as many bytes as it may; try again", RETRY_AFTER)
            return
        number = self._front.submit(self, head.method, head.target, head.headers, event.body)
        if number is None:
            self._send(503, RETRY_AFTER, self._front.why_busy)
            return
        self._request_id = number
        self._expire_after(self._options.answer_timeout_s)

    def answer(self, answer: Answer) -> None:
        """The worker's answer to the request in flight."""
        self._request_id = None
        self._release()
        if len(answer.body) > SMALL_ANSWER_SIZE and not self._reserve(len(answer.body)):
            # Not "try again": the handler has done what was asked.
            self._send(503, (), "the request was carried out, but the front holds too many bytes to take its answer")
            return
        self._write(self._http.answer(answer.status, answer.headers, answer.body, self._front.is_draining))

    def fail(self, status: int, detail: str) -> None:
        """The request in flight will have no answer: its worker is gone."""
        self._request_id = None
        self._release()
        self._send(status, RETRY_AFTER if status == 503 else (), detail)

    def abort(self) -> None:
        """Close the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def drain(self) -> None:
        """The front ends: nothing new is begun, the request that is here is answered."""
        if self._http.phase is Phase.IDLE and not self._is_sending:
            self._connected.close()

    # Answers.

    def _send(self, status: int, headers: Headers, detail: str) -> None:
        """An error that leaves the connection in order."""
        body = problem(status, detail)
        self._write(self._http.answer(status, (PROBLEM_TYPE, *headers), body, self._front.is_draining))

    def _refuse(self, status: int, detail: str, headers: Headers = ()) -> None:
        """An error behind which the connection ends, because what follows on it cannot be trusted or read."""
        self._release()
        self._write(self._http.refuse(status, detail, headers))

    def _write(self, data: bytes) -> None:
        if not data:
            self._finish()
            return
        self._is_sending = True
        self._expire_after(self._options.send_timeout_s)
        self._connected.write(data)
        if self._transport is not None and self._connected.get_write_buffer_size() == 0:
            # It went out at once, so the loop has nothing to resume. What was pipelined waits for its turn: thousands
            # of requests that are refused at once would otherwise be answered inside each other.
            if self._http.unread_size:
                self._front.loop.call_soon(self.resume_writing)
            else:
                self.resume_writing()

    def _finish(self) -> None:
        """End the connection behind what was written; a client that still sends is heard out for a moment."""
        if self._is_lingering:
            return
        if self._http.is_clean_end or not self._connected.can_write_eof():
            self._connected.close()
            return
        self._is_lingering = True
        self._expire_after(LINGER_S)
        if self._is_reading_paused:
            self._is_reading_paused = False
            self._connected.resume_reading()
        self._connected.write_eof()

    # Budget and time.

    def _reserve(self, size: int) -> bool:
        """Hold at least `size` bytes of the Front's budget."""
        more = size - self._reserved
        if more <= 0:
            return True
        if not self._front.try_reserve(more):
            return False
        self._reserved = size
        return True

    def _release(self) -> None:
        self._front.release(self._reserved)
        self._reserved = 0

    def _expire_after(self, seconds: float) -> None:
        """Set the one deadline. The timer is moved only when it would come too late: most requests move none."""
        loop = self._front.loop
        self._deadline = loop.time() + seconds
        if self._timer is None or self._timer_at > self._deadline:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = self._deadline
            self._timer = loop.call_at(self._deadline, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._transport is None:
            return
        loop = self._front.loop
        if loop.time() < self._deadline:
            self._timer_at = self._deadline
            self._timer = loop.call_at(self._deadline, self._on_timer)
            return
        self._expire()

    def _expire(self) -> None:
        options = self._options
        phase = self._http.phase
        if self._is_sending or self._is_lingering:
            self._connected.abort()
        elif self._request_id is not None:
            self._front.cancel(self._request_id)
            self.fail(504, f"the worker has not answered within {options.answer_timeout_s:g} s; it was told to stop")
        elif phase is Phase.HEAD:
            self._refuse(408, f"the head of the request did not come within {options.header_timeout_s:g} s")
        elif phase is Phase.BODY:
            self._refuse(408, f"the body of the request did not come within {options.body_timeout_s:g} s")
        else:
            self._connected.close()  # idle

    @property
    def _connected(self) -> asyncio.Transport:
        assert self._transport is not None
        return self._transport

    def _forget(self) -> None:
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._request_id is not None:
            self._front.cancel(self._request_id)
            self._request_id = None
        self._release()
        self._front.leave(self)


def names_this_host(host: bytes) -> bool:
    """Whether a Host header means the loopback interface: an address of it, or a name that nobody else can have.

    A page that a browser here has loaded from elsewhere can send requests to this port, under its own name only.
    """
    name, separator, port = host.decode("latin-1").rpartition(":")
    if not separator or "]" in port:
        name = host.decode("latin-1")
    name = name.removeprefix("[").removesuffix("]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
