"""Who the parties are, and the arithmetic that tells every process its place without asking.

Between all parties: both ends of a link compute the same dial direction, connection count, and worker and connection of
every session. The one invariant: nothing here depends on our role; exchanging "ours" and "theirs" gives the same link.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import limits

if TYPE_CHECKING:
    from collections.abc import Sequence
from .addresses import format_address
from .iris_options import IrisOptions  # noqa: TC001  (control messages look the annotation up)

_ROUTING_LABEL = b"partywire routing tag 1"

ROUTING_TAG_SIZE = 16


def check_name(name: str) -> None:
    """Refuse a name that could not stand in a configuration, a log line or a HELLO.

    Raises:
        ValueError: empty, above NAME_SIZE_MAX bytes, or with characters that are not printable or are spaces.
    """
    if not name:
        raise ValueError("a party's name must not be empty")
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        raise ValueError("a party's name must be text that UTF-8 can express") from None
    if size > limits.NAME_SIZE_MAX:
        raise ValueError(f"the name {name[:20]!r}... has {size} bytes, at most {limits.NAME_SIZE_MAX} are allowed")
    if not name.isprintable() or any(character.isspace() for character in name):
        raise ValueError(f"the name {name!r} has spaces or unprintable characters")


@dataclass(frozen=True, slots=True)
class PeerSpec:
    """One party as the configuration describes it: name, index, and the address that others dial (`addresses`)."""

    name: str
    index: int
    host: str
    port: int
    iris: IrisOptions | None = None
    """Set at a party whose link to this one speaks iris-mpc's protocol; a matter of the two alone."""

    def __post_init__(self) -> None:
        check_name(self.name)
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port {self.port} of {self.name} is not between 0 and 65535")

    @property
    def address(self) -> str:
        """Host and port as text."""
        return format_address((self.host, self.port))


@dataclass(frozen=True, slots=True)
class PartySpec:
    """Ourselves among all parties. `parties` is in index order and equal everywhere."""

    name: str
    index: int
    parties: tuple[PeerSpec, ...]

    def __post_init__(self) -> None:
        least, most = limits.PARTIES_MIN, limits.PARTIES_MAX
        if not least <= len(self.parties) <= most:
            raise ValueError(f"{len(self.parties)} parties, between {least} and {most} are allowed")
        if [party.index for party in self.parties] != list(range(len(self.parties))):
            raise ValueError("parties must be in the order of their indices 0, 1, 2 ...")
        if len({party.name for party in self.parties}) != len(self.parties):
            raise ValueError("two parties have the same name")
        if not 0 <= self.index < len(self.parties) or self.parties[self.index].name != self.name:
            raise ValueError(f"{self.name} is not party {self.index} of the list of parties")

    @property
    def names(self) -> tuple[str, ...]:
        """All names in index order; the party set of the handshake."""
        return tuple(party.name for party in self.parties)

    @property
    def ours(self) -> PeerSpec:
        """Our own entry."""
        return self.parties[self.index]

    @property
    def peers(self) -> tuple[PeerSpec, ...]:
        """Everybody else, in index order."""
        return tuple(party for party in self.parties if party.index != self.index)


def dials(our_name: str, their_name: str) -> bool:
    """Whether we dial: the name that is greater in byte order does, so exactly one of two different names."""
    return our_name.encode("utf-8") > their_name.encode("utf-8")


def connection_count(our_workers: int, their_workers: int) -> int:
    """Normal connections of a link: the least common multiple, so that no connection mixes two workers of one side.

    Raises:
        ValueError: a count is not in 1..WORKERS_MAX, or the result exceeds CONNECTIONS_MAX.
    """
    for workers in (our_workers, their_workers):
        if not 1 <= workers <= limits.WORKERS_MAX:
            raise ValueError(f"{workers} workers, between 1 and {limits.WORKERS_MAX} are allowed")
    count = math.lcm(our_workers, their_workers)
    if count > limits.CONNECTIONS_MAX:
        raise ValueError(
            f"{our_workers} and {their_workers} workers need {count} connections (their least common multiple), "
            f"at most {limits.CONNECTIONS_MAX} are allowed"
        )
    return count


def shares_of_links(peers: Sequence[int], links_per_process: int) -> list[list[int]]:
    """The peers that each I/O process serves: as few processes as the setting allows, their shares as equal as can be.

    Raises:
        ValueError: `links_per_process` is not in 1..LINKS_PER_IO_PROCESS_MAX.
    """
    if not 1 <= links_per_process <= limits.LINKS_PER_IO_PROCESS_MAX:
        most = limits.LINKS_PER_IO_PROCESS_MAX
        raise ValueError(f"{links_per_process} links for each I/O process, between 1 and {most} are possible")
    processes = math.ceil(len(peers) / links_per_process)
    bounds = [len(peers) * process // processes for process in range(processes + 1)]
    return [list(peers[start:end]) for start, end in itertools.pairwise(bounds)]


def worker_of_connection(connection: int, workers: int) -> int:
    """The worker that owns a connection at the end that has `workers` workers."""
    return connection % workers


def connection_of_session(session: int, connections: int, is_bulk: bool = False) -> int:
    """The connection that carries a session on a link with `connections` normal connections.

    Bulk connections are numbered behind the normal ones, with which they share their workers: bulk connection `i` of
    the wire is number `connections + i` here.
    """
    return session % connections + (connections if is_bulk else 0)


def is_bulk_connection(connection: int, connections: int) -> bool:
    """Whether a number is that of a bulk connection, which need not exist."""
    return connections <= connection < 2 * connections


def routing_tag(acceptor: str, dialler: str) -> bytes:
    """What a preamble shows to be routed by: a digest, so that a scanner learns no names from a refused guess.

    It authenticates nothing; the handshake behind it does.
    """
    digest = hashlib.sha256(_ROUTING_LABEL)
    for name in (acceptor, dialler):
        encoded = name.encode("utf-8")
        digest.update(len(encoded).to_bytes(2, "little") + encoded)
    return digest.digest()[:ROUTING_TAG_SIZE]
