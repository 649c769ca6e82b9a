"""Peers of a store as JSON objects and as a table; and what a person calls a peer.

Between `partywire peers` and the peer store. The one invariant: nothing that a stranger wrote reaches a terminal with
characters that cannot be printed. Imported only by that command, so that all others do without the store.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from partywire.engine.peer_store.known_address import bounded_text, dial_order
from partywire.engine.peer_store.query import PREFIX_DIGITS_MIN, PeerFilter
from partywire.engine.peers.peer_id import PEER_ID_SIZE, PUBLIC_KEY_SIZE, PeerId

from .exit_code import UsageMistake
from .stat_table import duration_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from partywire.engine.peer_store.known_address import KnownAddress
    from partywire.engine.peer_store.record import PeerRecord
    from partywire.engine.peer_store.store import PeerStore
    from partywire.engine.peers.contract import Ban

EVERYBODY_EVER: Final = PeerFilter(is_banned=None, is_deleted=None)
CELL_SIZE_MAX: Final = 80
NAMED_MAX: Final = 5
"""Peers that are listed where one of several has to be chosen."""


def exact_id(who: str) -> tuple[PeerId, bytes] | None:
    """The id that is meant and the public key, if it was given; None if neither was given whole."""
    if not all(digit in "0123456789abcdefABCDEF" for digit in who):
        return None
    if len(who) == 2 * PUBLIC_KEY_SIZE:
        key = bytes.fromhex(who)
        return PeerId.of_key(key), key
    return (PeerId.parse(who), b"") if len(who) == 2 * PEER_ID_SIZE else None


def known_id(store: PeerStore, who: str) -> PeerId:
    """The one peer that is meant by a public key, an id, the beginning of one, or a name.

    Raises:
        UsageMistake: nobody is, or several are.
    """
    exact = exact_id(who)
    if exact is not None:
        return exact[0]
    found: list[PeerRecord] = []
    if len(who) >= PREFIX_DIGITS_MIN:
        try:
            found = store.find(who, EVERYBODY_EVER, NAMED_MAX)
        except ValueError:
            pass  # no digits, so it may be a name
    if not found:
        found = store.select(PeerFilter(is_banned=None, is_deleted=None, where=lambda one: one.name == who))
    if len(found) == 1:
        return found[0].peer_id
    if found:
        names = ", ".join(str(one.peer_id) for one in found[:NAMED_MAX])
        raise UsageMistake(f"{who} may be several peers; say more digits of one of these: {names}")
    raise UsageMistake(
        f"{bounded_text(who, CELL_SIZE_MAX)!r} is no peer of this store: give a public key (64 hexadecimal digits), "
        f"an id (26, or its first {PREFIX_DIGITS_MIN} or more), or a name; `partywire peers list` shows them"
    )


def peer_document(peer_id: PeerId, record: PeerRecord | None, ban: Ban | None, now: float) -> dict[str, Any]:
    """For --json. Times are seconds since the epoch; null: never, or for good."""
    document: dict[str, Any] = {"id": str(peer_id)}
    if ban is not None:
        document["ban"] = {"reason": ban.reason, "until": None if math.isinf(ban.until) else ban.until}
    else:
        document["ban"] = None
    if record is None:
        return document | {"is_known": False}
    return document | {
        "is_known": True,
        "public_key": record.public_key.hex() or None,
        "name": record.name or None,
        "added_at": record.added_at,
        "seen_at": record.seen_at,
        "removed_at": record.deleted_at,
        "features": record.features,
        "protocols": list(record.protocols),
        "user_agent": record.user_agent,
        "claimed_at": record.claimed_at or None,
        "addresses": [_address_document(one, now) for one in dial_order(record.addresses, now)],
    }


def _address_document(one: KnownAddress, now: float) -> dict[str, Any]:
    return {
        "address": str(one.address),
        "source": one.source.name.lower(),
        "score": one.score(now),
        "last_seen": one.last_seen,
        "last_attempt": one.last_attempt,
        "attempts": one.attempts,
        "failures": one.failures,
        "latency_s": one.latency_s if one.samples else None,
        "last_failure": one.last_failure or None,
    }


def table_lines(rows: Sequence[tuple[PeerId, PeerRecord | None, Ban | None]], now: float) -> list[str]:
    """A line for each peer, under a head."""
    lines = [["id", "name", "seen", "addresses", "the best one", "score", ""]]
    lines += [_row(*row, now) for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]) - 1)]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1]]).rstrip()
        for line in lines
    ]


def _row(peer_id: PeerId, record: PeerRecord | None, ban: Ban | None, now: float) -> list[str]:
    remarks = [] if ban is None else [ban_text(ban, now)]
    if record is None:
        return [peer_id.short, "-", "-", "-", "-", "-", "; ".join(remarks)]
    if record.deleted_at is not None:
        remarks.append(f"removed {_ago(record.deleted_at, now)}")
    best = next(iter(dial_order(record.addresses, now)), None)
    if best is not None and best.failures:
        remarks.append(f"failures in a row: {best.failures} ({best.last_failure})")
    score = None if best is None else best.score(now)
    return [
        peer_id.short,
        record.name or "-",
        "never" if record.seen_at is None else _ago(record.seen_at, now),
        str(len(record.addresses)),
        "-" if best is None else bounded_text(str(best.address), CELL_SIZE_MAX),
        "-" if score is None else f"{score:.0f}",
        "; ".join(remarks),
    ]


def ban_text(ban: Ban, now: float) -> str:
    """How long a ban still holds, and why."""
    length = "for good" if math.isinf(ban.until) else f"for {duration_text(max(0.0, ban.until - now))}"
    return f"banned {length}: {ban.reason}" if ban.reason else f"banned {length}"


def _ago(time: float, now: float) -> str:
    return f"{duration_text(max(0.0, now - time))} ago"
