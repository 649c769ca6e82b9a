"""A client of Tor's control port: commands one after another, events as they come, a deadline for each answer.

Between an onion service and Tor, on one stream. The one invariant: a reply belongs to the oldest command that has none,
and once a reply did not come, was no reply, or the stream ended, the connection is over: `lost` says why, and every
command raises TorControlLost.

Passwords, cookies and keys are in what is sent only: an error names the first word of a command, and of the answers to
commands that carry a secret only the code.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import secrets
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..exchange import send_all
from ..frames import printable_untrusted
from .errors import (
    OnionCollision,
    TorAuthenticationFailed,
    TorCommandRefused,
    TorControlError,
    TorControlLost,
    TorProtocolError,
)
from .tor_lines import (
    COOKIE_SIZE,
    NONCE_SIZE,
    ReplyLines,
    proof_of_client,
    proof_of_server,
    protocol_info_untrusted,
    quote,
    words_untrusted,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..transport import Stream
    from .tor_lines import Reply

COMMAND_TIMEOUT_S: Final = 15.0
"""For the answer to one command. Tor answers all that are used here from memory."""

RECEIVE_SIZE: Final = 16 * 1024

_OK: Final = 250
_SECRET: Final = frozenset({"AUTHENTICATE", "ADD_ONION"})
"""Commands whose arguments are secret; of the answers to them no text is shown."""


@dataclass(frozen=True, slots=True)
class TorAuthentication:
    """How to be let in. Without anything: by the cookie whose file Tor names, if it proves to know it (SAFECOOKIE),
    or by nothing if Tor asks for nothing."""

    password: str | None = field(default=None, repr=False)
    """Without control characters."""
    cookie_path: Path | None = None
    """The file of the cookie, in place of the one that Tor names. Where Tor has no SAFECOOKIE, the plain COOKIE method
    is used for a file named here only: else any program at the port could have a file of 32 bytes read to it."""

    def __post_init__(self) -> None:
        """Raises ValueError if the password cannot be sent."""
        if self.password is not None:
            quote(self.password)


class TorControl:
    """One control connection. For one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, stream: Stream, address: str) -> None:
        """Owns `stream`, a fresh connection; `address` is for messages."""
        self._stream = stream
        self._address = address
        self._replies = ReplyLines(address)
        self._waiting: deque[asyncio.Future[Reply]] = deque()
        self._turn = asyncio.Lock()
        self._scratch = memoryview(bytearray(RECEIVE_SIZE))
        self._loop = loop
        self.on_event: Callable[[str], object] | None = None
        """Called with the first line of every event."""
        self.lost: asyncio.Future[str] = loop.create_future()
        """Done when the connection is over, with the cause."""
        stream.on_readable(self._receive)

    # Commands.

    async def command(self, line: str) -> Reply:
        """Send one command and return Tor's positive answer.

        Cancelled or timed out, the connection is over, because the answer could be taken for the next one's.

        Raises:
            TorCommandRefused: Tor answered with an error.
            TorControlLost, TorProtocolError: there is no answer.
        """
        verb = line.partition(" ")[0]
        async with self._turn:
            self._check(verb)
            answer: asyncio.Future[Reply] = self._loop.create_future()
            self._waiting.append(answer)
            try:
                async with asyncio.timeout(COMMAND_TIMEOUT_S):
                    await send_all(self._stream, line.encode() + b"\r\n")
                    reply = await answer
            except TimeoutError:
                self._lose(f"no answer to {verb} within {COMMAND_TIMEOUT_S:.3g} s")
                raise TorControlLost(self._address, self.lost.result()) from None
            except OSError as error:
                self._lose(f"its connection broke: {(error.strerror or str(error)).lower()}")
                raise TorControlLost(self._address, self.lost.result()) from None
            except asyncio.CancelledError:
                self._lose(f"{verb} was given up")
                raise
            finally:
                if not answer.cancel() and not answer.cancelled():
                    answer.exception()  # what the loss of the connection left there has been raised, or is no news
        if reply.code != _OK:
            if verb == "ADD_ONION" and reply.code == 550 and "collision" in reply.lines[-1]:
                raise OnionCollision(self._address, verb, reply.code, "it has this onion service already")
            text = "" if verb in _SECRET else printable_untrusted(reply.lines[-1][:200].encode())
            raise TorCommandRefused(self._address, verb, reply.code, text)
        return reply

    async def authenticate(self, how: TorAuthentication) -> None:
        """Be let in.

        Raises:
            TorAuthenticationFailed: Tor does not want us, or what it wants is not there.
            TorControlError: as `command`.
        """
        info = protocol_info_untrusted(await self.command("PROTOCOLINFO 1"))
        if how.password is not None and "HASHEDPASSWORD" in info.methods:
            await self._authenticate(quote(how.password), "the password is wrong")
        elif "SAFECOOKIE" in info.methods:
            named = os.fsdecode(info.cookie_path) if info.cookie_path else ""
            await self._prove(await self._cookie(how.cookie_path or Path(named)))
        elif "COOKIE" in info.methods and how.cookie_path is not None:
            cookie = await self._cookie(how.cookie_path)
            await self._authenticate(cookie.hex(), "the cookie is not the one that it wrote last")
        elif "NULL" in info.methods:
            await self._authenticate("", "it does not do without")
        elif "HASHEDPASSWORD" in info.methods:
            raise TorAuthenticationFailed(self._address, "it wants the password of its HashedControlPassword")
        else:
            offered = printable_untrusted(", ".join(sorted(info.methods))[:200].encode()) or "nothing"
            raise TorAuthenticationFailed(
                self._address, f"it offers {offered}; set CookieAuthentication 1 in its configuration"
            )

    async def _prove(self, cookie: bytes) -> None:
        """SAFECOOKIE: each side shows that it knows the cookie, and neither sends it."""
        nonce = secrets.token_bytes(NONCE_SIZE)
        reply = await self.command(f"AUTHCHALLENGE SAFECOOKIE {nonce.hex()}")
        words = words_untrusted(reply.lines[0])
        try:
            shown, theirs = bytes.fromhex(words.get("SERVERHASH", "")), bytes.fromhex(words.get("SERVERNONCE", ""))
        except ValueError:
            shown = theirs = b""
        if len(theirs) != NONCE_SIZE or not hmac.compare_digest(shown, proof_of_server(cookie, nonce, theirs)):
            raise TorAuthenticationFailed(
                self._address, "it did not prove that it knows the cookie; is it the Tor that wrote the file?"
            )
        await self._authenticate(
            proof_of_client(cookie, nonce, theirs).hex(), "the cookie is not the one it wrote last"
        )

    async def _cookie(self, path: Path) -> bytes:
        try:
            cookie = await asyncio.get_running_loop().run_in_executor(None, _read_cookie, path)
        except OSError as error:
            cause = (error.strerror or str(error)).lower()
            raise TorAuthenticationFailed(
                self._address, f"the file of its cookie, {path}, cannot be read ({cause}); may this user read it?"
            ) from None
        if len(cookie) != COOKIE_SIZE:
            raise TorAuthenticationFailed(self._address, f"{path} does not have the {COOKIE_SIZE} bytes of a cookie")
        return cookie

    async def _authenticate(self, argument: str, otherwise: str) -> None:
        try:
            await self.command(f"AUTHENTICATE {argument}".rstrip())
        except TorCommandRefused as error:
            raise TorAuthenticationFailed(self._address, f"it does not let us in ({error.code}): {otherwise}") from None

    # Onion services.

    async def get_info(self, key: str) -> str:
        """The value of one key.

        Raises:
            TorControlError: as `command`.
        """
        reply = await self.command(f"GETINFO {key}")
        name, separator, value = reply.lines[0].partition("=")
        if name != key or not separator:
            raise TorProtocolError(self._address, f"it answered GETINFO {key} with another key")
        return value.removeprefix("\n")

    async def add_onion(self, key: str, onion_port: int, target: str, *, detach: bool) -> tuple[str, str | None]:
        """Have Tor run an onion service that delivers to `target`, which is host:port.

        `key` is TYPE:BLOB as Tor writes it, or NEW:ED25519-V3.

        Returns:
            The service's id; and the key, if Tor made it.

        Raises:
            OnionCollision: Tor has a service of that key already.
            TorControlError: as `command`.
        """
        flags = " Flags=Detach" if detach else ""
        reply = await self.command(f"ADD_ONION {key}{flags} Port={onion_port},{target}")
        words: dict[str, str] = {}
        for line in reply.lines:
            words |= words_untrusted(line)
        if "ServiceID" not in words:
            raise TorProtocolError(self._address, "it added an onion service and did not say which")
        return words["ServiceID"], words.get("PrivateKey")

    async def delete_onion(self, service_id: str) -> None:
        """End an onion service of this connection, or a detached one.

        Raises:
            TorControlError: as `command`; TorCommandRefused with 552 if there is none.
        """
        await self.command(f"DEL_ONION {service_id}")

    # Receiving and ending.

    def _receive(self) -> None:
        try:
            count = self._stream.try_recv_into(self._scratch)
            if count is None:
                return
            if count == 0:
                self._lose("it ended the connection")
                return
            replies = self._replies.receive_data_untrusted(bytes(self._scratch[:count]))
        except OSError as error:
            self._lose(f"its connection broke: {(error.strerror or str(error)).lower()}")
            return
        except TorProtocolError as error:
            self._lose(error.cause, error)
            return
        for reply in replies:
            if reply.is_event:
                if self.on_event is not None:
                    self.on_event(reply.lines[0])
            elif not self._waiting:
                self._lose("it sent an answer that nothing had asked for")
                return
            elif not (answer := self._waiting.popleft()).done():
                answer.set_result(reply)

    def _check(self, verb: str) -> None:
        if self.lost.done():
            raise TorControlLost(self._address, f"{self.lost.result()}, so there is no {verb}")

    def _lose(self, cause: str, error: TorControlError | None = None) -> None:
        if self.lost.done():
            return
        self.lost.set_result(cause)
        self._stream.close()
        for answer in self._waiting:
            if not answer.done():
                answer.set_exception(error or TorControlLost(self._address, cause))
        self._waiting.clear()

    def close(self) -> None:
        """End the connection; Tor ends every onion service of it that is not detached. May be called again."""
        self._lose("we closed it")


def _read_cookie(path: Path) -> bytes:
    """Its first bytes. Not to wait for the other end of a named pipe, which whoever named the path may have chosen."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
        return file.read(COOKIE_SIZE + 1)
