"""What answers like a control port of Tor, on one event loop, as far as a test wants it to."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from typing import TYPE_CHECKING

from partywire.engine.exchange import receive_some, send_all
from partywire.engine.tcp import TcpTransport
from partywire.engine.transports.tor_lines import proof_of_client, proof_of_server

if TYPE_CHECKING:
    from pathlib import Path

    from partywire.engine.transport import Stream

COOKIE = bytes(range(32))
SERVER_NONCE = bytes(range(32, 64))
SECRET_BLOB = "ED25519-V3:" + base64.b64encode(bytes(64)).decode()


def onion_id(seed: int) -> str:
    """The id of some onion service."""
    public = bytes([seed]) * 32
    checksum = hashlib.sha3_256(b".onion checksum" + public + b"\x03").digest()[:2]
    return base64.b32encode(public + checksum + b"\x03").decode().lower()


class ScriptedTor:
    """Listens on loopback. `heard` has every line; `replies` answers a command in place of what is here."""

    def __init__(self, loop: asyncio.AbstractEventLoop, cookie_path: Path | None = None) -> None:
        self._loop = loop
        self._tcp = TcpTransport(loop)
        self._tasks: set[asyncio.Task[None]] = set()
        self._streams: set[Stream] = set()
        self._listener = self._tcp.listen("127.0.0.1", 0, self._accept)
        self.port = self._listener.address[1]
        self.methods = "NULL"
        self.password = ""
        self.cookie_path = cookie_path
        self.cookie = COOKIE
        self.heard: list[str] = []
        self.replies: dict[str, bytes | None] = {}  # None: no answer at all
        self.service_id = onion_id(1)
        self.detached: list[str] = []
        self.running: set[str] = set()
        self.was_heard = asyncio.Event()
        self.added = asyncio.Event()
        self._client_nonce = b""

    def _accept(self, stream: Stream) -> None:
        task = self._loop.create_task(self._serve(stream))
        self._tasks.add(task)
        self._streams.add(stream)

    def drop(self) -> None:
        """End every connection, as Tor does when it dies."""
        for stream in self._streams:
            stream.abort()
        self._streams.clear()
        self.running.clear()
        self.added.clear()

    def stop_listening(self) -> None:
        self._listener.close()

    def listen_again(self) -> None:
        self._listener = self._tcp.listen("127.0.0.1", self.port, self._accept)

    async def say(self, data: bytes) -> None:
        """To everybody."""
        for stream in self._streams:
            await send_all(stream, data)

    async def aclose(self) -> None:
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for stream in self._streams:
            stream.close()

    async def _serve(self, stream: Stream) -> None:
        buffer = b""
        try:
            while data := await receive_some(stream, 4096):
                buffer += data
                while b"\r\n" in buffer:
                    line, _, buffer = buffer.partition(b"\r\n")
                    answer = self._answer(line.decode("latin-1"))
                    if answer is not None:
                        await send_all(stream, answer)
        except OSError:
            pass  # dropped, or gone
        finally:
            stream.close()

    def _answer(self, line: str) -> bytes | None:
        self.heard.append(line)
        self.was_heard.set()
        verb, _, rest = line.partition(" ")
        for key in (line, verb):
            if key in self.replies:
                return self.replies[key]
        return self._known(verb, rest)

    def _known(self, verb: str, rest: str) -> bytes:
        match verb:
            case "PROTOCOLINFO":
                file = f' COOKIEFILE="{self.cookie_path}"' if self.cookie_path else ""
                auth = f"250-AUTH METHODS={self.methods}{file}"
                return f'250-PROTOCOLINFO 1\r\n{auth}\r\n250-VERSION Tor="0.4.9.11"\r\n250 OK\r\n'.encode()
            case "AUTHCHALLENGE":
                self._client_nonce = bytes.fromhex(rest.split(" ")[1])
                shown = proof_of_server(self.cookie, self._client_nonce, SERVER_NONCE).hex().upper()
                return f"250 AUTHCHALLENGE SERVERHASH={shown} SERVERNONCE={SERVER_NONCE.hex().upper()}\r\n".encode()
            case "AUTHENTICATE":
                return b"250 OK\r\n" if self._lets_in(rest) else b"515 Authentication failed\r\n"
            case "SETEVENTS":
                return b"250 OK\r\n"
            case "GETINFO":
                values = {
                    "net/listeners/socks": ' "unix:/run/tor/socks" "127.0.0.1:9050"',
                    "onions/detached": "\n".join(self.detached),
                }
                value = values[rest]
                if "\n" in value:
                    return f"250+{rest}=\r\n".encode() + value.replace("\n", "\r\n").encode() + b"\r\n.\r\n250 OK\r\n"
                return f"250-{rest}={value.strip()}\r\n250 OK\r\n".encode()
            case "ADD_ONION":
                if self.service_id in self.running or self.service_id in self.detached:
                    return b"550 Onion address collision\r\n"
                self.running.add(self.service_id)
                self.added.set()
                key = f"250-PrivateKey={SECRET_BLOB}\r\n" if rest.startswith("NEW:") else ""
                return f"250-ServiceID={self.service_id}\r\n{key}250 OK\r\n".encode()
            case "DEL_ONION":
                if rest in self.detached or rest in self.running:
                    self.running.discard(rest)
                    self.detached = [each for each in self.detached if each != rest]
                    return b"250 OK\r\n"
                return b"552 Unknown Onion Service id\r\n"
        return b"510 Unrecognized command\r\n"

    def _lets_in(self, argument: str) -> bool:
        methods = self.methods.split(",")
        if argument == "":
            return "NULL" in methods
        if argument.startswith('"'):
            return "HASHEDPASSWORD" in methods and argument == f'"{self.password}"'
        proof = proof_of_client(self.cookie, self._client_nonce, SERVER_NONCE).hex()
        return argument == proof if "SAFECOOKIE" in methods else argument == self.cookie.hex()
