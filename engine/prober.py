"""Probes one peer and names what was found: what `partywire check` rests on.

Between the command and whoever listens at a peer's address, which may be the peer, another party, another program, or
nobody. The one invariant: every outcome is a Finding, within the deadline; nothing that a stranger sends raises.

The probe is asked on a connection of its own (docs/wire.md, Probe). A connection that is closed without a word is what
a gateway gives whoever it does not know; then the names of the other parties are tried, to tell a mixed-up address from
a stranger.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Final

from .channel.errors import CredentialError
from .channel.link_security import security_of
from .dialler import DialCause, DialFailed, Dialler
from .errors import HandshakeRejected, LinkProtocolError, RejectCode
from .exchange import receive_some, send_all
from .frames import printable_untrusted
from .greeting import GreetingFailed, GreetingFailure, dismiss
from .guard import Guard
from .handshake import Role
from .hello import hello_of
from .preamble import ConnectionClass, Preamble
from .probe import Probe, ProbeResult
from .topology import PartySpec, PeerSpec, routing_tag

if TYPE_CHECKING:
    from collections.abc import Callable

    from .link_options import LinkOptions
    from .transport import Stream, Transport

ANSWER_TIMEOUT_S: Final = 3.0
"""For the answer of a party: one round trip."""

HALF_CLOSE_AFTER_S: Final = 1.0
"""After so much silence the prober says that nothing more comes. Many servers of other protocols wait for the rest of a
line before they complain, and complain then."""

SEEN_SIZE_MAX: Final = 60
"""Bytes of a stranger's answer that are shown."""


class Finding(Enum):
    """What was found at a peer's address."""

    OK = "ok"
    UNRESOLVED = "name not resolved"
    REFUSED = "refused"
    NO_ANSWER = "no answer"
    UNREACHABLE = "unreachable"
    CLIENT_HOST = "cannot dial from client_host"
    PROXY = "no way through the proxy"
    FAILED = "connecting failed"
    SILENT = "says nothing"
    CLOSED = "closes without a word"
    NOT_PARTYWIRE = "not PartyWire"
    NOT_SECURED = "cannot be secured"
    WRONG_PARTY = "another party"
    VERSION = "another version"
    PARTY_SET = "other parties"
    PARAMETERS = "other parameters"
    SECURITY = "other security"
    CREDENTIALS = "not proven"
    REJECTED = "refused us"


_OF_DIAL: Final = {
    DialCause.UNRESOLVED: Finding.UNRESOLVED,
    DialCause.REFUSED: Finding.REFUSED,
    DialCause.NO_ANSWER: Finding.NO_ANSWER,
    DialCause.UNREACHABLE: Finding.UNREACHABLE,
    DialCause.CLIENT_HOST: Finding.CLIENT_HOST,
    DialCause.PROXY: Finding.PROXY,
    DialCause.OTHER: Finding.FAILED,
}

_OF_REJECTION: Final = {
    RejectCode.VERSION: Finding.VERSION,
    RejectCode.UNKNOWN_PEER: Finding.PARTY_SET,
    RejectCode.WRONG_IDENTITY: Finding.WRONG_PARTY,
    RejectCode.PARTY_SET: Finding.PARTY_SET,
    RejectCode.PARAMETERS: Finding.PARAMETERS,
    RejectCode.SECURITY: Finding.SECURITY,
    RejectCode.CREDENTIALS: Finding.CREDENTIALS,
}

_OF_GREETING: Final = {GreetingFailure.SILENT: Finding.SILENT, GreetingFailure.CLOSED: Finding.CLOSED}

_ANSWERS: Final = frozenset({Finding.OK, Finding.REJECTED, *_OF_REJECTION.values()})
"""What only a party can say that knows the names it was asked by."""


@dataclass(frozen=True, slots=True)
class Probed:
    """What became of one probe. Times in seconds; None where nothing was measured."""

    finding: Finding
    detail: str = ""
    """What was seen: causes of each address, the peer's sentence, the first bytes of a stranger."""
    address: str = ""
    """The address that was connected to."""
    round_trip_s: float | None = None
    clock_ahead_s: float | None = None
    """How far the peer's clock is ahead of ours; known to half a round trip."""
    who: str = ""
    """The party that answers in the peer's place."""


class Prober:
    """Probes the peers of one party. Each `probe` is independent of the others."""

    def __init__(self, transport: Transport, party: PartySpec, workers: int, options: LinkOptions) -> None:
        self._transport = transport
        self._party = party
        self._workers = workers
        self._options = options

    async def probe(self, peer: PeerSpec, timeout_s: float, on_step: Callable[[str], object] = str) -> Probed:
        """Find out what is at the address of `peer`; `on_step` hears what is being waited for."""
        step = Finding.NO_ANSWER  # what a deadline means at the moment

        def said(words: str, meaning: Finding = Finding.SILENT) -> None:
            nonlocal step
            step = meaning
            on_step(words)

        try:
            async with asyncio.timeout(timeout_s):
                said("connecting", Finding.NO_ANSWER)
                found = await self._ask(peer, peer.name, self._party.name, said)
                if found.finding is Finding.CLOSED:
                    said("asking who it is", Finding.CLOSED)
                    found = await self._ask_who(peer, found)
                return found
        except TimeoutError:
            return Probed(step, f"not done within {timeout_s:g} s")

    async def reach(self, peer: PeerSpec, timeout_s: float) -> Probed:
        """Find out whether anything takes connections at the address of a peer that does not know probes, and whether
        it is this peer and knows us if the link speaks TLS."""
        dialler = Dialler(self._transport, peer.name, peer.host, peer.port, self._options.client_host)
        try:
            async with asyncio.timeout(timeout_s):
                stream = await dialler.attempt()
                found = await self._shake_hands(peer, stream)
        except DialFailed as error:
            return Probed(_OF_DIAL[error.kind], error.cause)
        except TimeoutError:
            return Probed(Finding.NO_ANSWER, f"not done within {timeout_s:g} s")
        return replace(found, address=stream.peer_address)

    async def _shake_hands(self, peer: PeerSpec, stream: Stream) -> Probed:
        """Prove to each other who we are, if that is the link's way, and end the connection."""
        if peer.iris is None or not peer.iris.tls:
            stream.close()
            return Probed(Finding.OK)
        from .iris_tls import IrisGuard  # only here: most parties have no such peer

        security = security_of(self._options.security, peer.index)
        guard = IrisGuard(asyncio.get_running_loop(), self._party.name, peer, security)
        try:
            stream = await guard.admit(stream, Role.INITIATOR)
            is_refused = await _is_left(stream)  # it sees our certificate last
            await dismiss(stream, b"")
        except HandshakeRejected as error:
            return _rejected(error)
        except CredentialError as error:
            return Probed(Finding.CREDENTIALS, str(error))
        except GreetingFailed as error:
            return Probed(_OF_GREETING.get(error.kind, Finding.NOT_SECURED), error.cause)
        finally:
            stream.close()
        if is_refused:
            return Probed(Finding.CREDENTIALS, "it refuses us: it left when it had seen our certificate")
        return Probed(Finding.OK)

    async def is_running(self, host: str, port: int) -> bool:
        """Whether our own party is what listens at an address of ours."""
        # Its gateway knows its peers, so it is asked in the name of one that knows probes.
        known = next((peer for peer in self._party.peers if peer.iris is None), self._party.peers[0])
        ours = replace(self._party.ours, host=host, port=port)
        # Not from client_host: our address may be of a family, or an interface, that it does not reach.
        local = Prober(self._transport, self._party, self._workers, replace(self._options, client_host=None))
        return (await local._ask(ours, ours.name, known.name)).finding in _ANSWERS

    async def _ask(
        self, peer: PeerSpec, name: str, our_name: str, said: Callable[[str], object] = str
    ) -> Probed:
        """One probe of whoever is at `peer`'s address, as the party `name`, by us as `our_name`."""
        dialler = Dialler(self._transport, peer.name, peer.host, peer.port, self._options.client_host)
        try:
            stream = await dialler.attempt()
        except DialFailed as error:
            return Probed(_OF_DIAL[error.kind], error.cause)
        said("waiting for its answer")
        party = replace(self._party, name=our_name, index=self._party.names.index(our_name))
        core = Probe(Role.INITIATOR, hello_of(party, name, self._workers, self._options))
        security = security_of(self._options.security, self._party.names.index(name))
        guard = Guard(asyncio.get_running_loop(), our_name, name, security)
        preamble = Preamble(ConnectionClass.PROBE, 0, routing_tag(name, our_name), guard.mode).encode()
        address = stream.peer_address
        try:
            stream, opening = await guard.admit_dialled(stream, preamble)
            found = await _converse(stream, core, opening)
        except HandshakeRejected as error:
            found = _rejected(error)
        except CredentialError as error:
            found = Probed(Finding.CREDENTIALS, str(error))
        except GreetingFailed as error:
            found = Probed(_OF_GREETING.get(error.kind, Finding.NOT_SECURED), error.cause)
        finally:
            stream.close()
        return replace(found, address=address)

    async def _ask_who(self, peer: PeerSpec, found: Probed) -> Probed:
        """Somebody closed without a word: is it another of our parties?"""
        for other in self._party.parties:
            if other.name != peer.name:
                # Ourselves we ask in the name of the peer, which is somebody that we know.
                our_name = self._party.name if other.name != self._party.name else peer.name
                answer = await self._ask(peer, other.name, our_name)
                if answer.finding in _ANSWERS:
                    return replace(found, finding=Finding.WRONG_PARTY, who=other.name)
        return found


async def _converse(stream: Stream, core: Probe, preamble: bytes) -> Probed:
    """Ask, and read the answer."""
    received = b""
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            asked_at, asked_s = time.time(), time.monotonic()
            await send_all(stream, preamble + core.data_to_send())
            while core.result is None:
                data = await _next(stream)
                received += data
                if not data:
                    core.receive_eof()
                core.receive_data(data)
            return _measured(core.result, asked_at, time.monotonic() - asked_s)
    except HandshakeRejected as error:
        return _rejected(error)
    except LinkProtocolError:
        if not received:
            return Probed(Finding.CLOSED)
        return Probed(Finding.NOT_PARTYWIRE, printable_untrusted(received[:SEEN_SIZE_MAX]))
    except TimeoutError:
        return Probed(Finding.SILENT, f"nothing within {ANSWER_TIMEOUT_S:g} s")
    except OSError:
        # A gateway that closes before it has read everything resets the connection.
        return Probed(Finding.CLOSED)


async def _is_left(stream: Stream) -> bool:
    """Whether the other end, which waits for our first word, ends the connection before it; HandshakeRejected if it
    says that our proof is why."""
    try:
        async with asyncio.timeout(HALF_CLOSE_AFTER_S):
            return not await receive_some(stream)
    except TimeoutError:
        return False
    except OSError:
        return True


def _rejected(error: HandshakeRejected) -> Probed:
    detail = error.detail
    if error.code is RejectCode.CREDENTIALS:
        detail = f"{'we refuse it' if error.by_us else 'it refuses us'}: {detail}"
    return Probed(_OF_REJECTION.get(error.code, Finding.REJECTED), detail)


async def _next(stream: Stream) -> bytes:
    receiving = asyncio.ensure_future(receive_some(stream))
    try:
        done, _ = await asyncio.wait([receiving], timeout=HALF_CLOSE_AFTER_S)
        if not done:
            stream.shutdown_write()
        return await receiving
    finally:
        receiving.cancel()


def _measured(result: ProbeResult, asked_at: float, round_trip_s: float) -> Probed:
    ahead_s = result.clock_ms / 1000 - (asked_at + round_trip_s / 2)
    return Probed(Finding.OK, round_trip_s=round_trip_s, clock_ahead_s=ahead_s)
