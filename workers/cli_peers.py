"""`partywire peers`: who a node knows and whom it banned, looked at and changed from a terminal.

Between the command line and a peer store, beside the node that runs on it or without one. The one invariant: what is
imported for it is imported when one of its commands runs, so that no other command pays for it.
"""

from __future__ import annotations

import math
import re
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from .cli_json import json_text
from .exit_code import ExitCode, UsageMistake

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from partywire.engine.peer_store.record import PeerRecord
    from partywire.engine.peer_store.store import PeerStore
    from partywire.engine.peers.contract import Ban
    from partywire.engine.peers.peer_id import PeerId

LIMIT_DEFAULT: Final = 100
ADDED: Final = "in the store"
DURATION_MAX_S: Final = 100 * 365 * 86_400.0

HELP = """Look at and change whom a peer-to-peer node knows: its peer store.

A store is a folder, the one that the node was given; these commands work beside a node that runs, which hears of a
change the next time it asks, and without one. WHO is a peer's public key (64 hexadecimal digits), its id (26, or at
least the first 4 of it), or the name that you gave it.

\b
Examples:
  partywire peers list --store peers
  partywire peers add 3b6a27bc...da29 /dns4/bob.example/tcp/7201 --name bob --store peers
  partywire peers ban bob --for 2h --reason "sends garbage" --store peers
  partywire peers unban bob --store peers
  partywire peers list --banned --store peers

It needs the library lmdb: pip install 'partywire[node]'. What is kept and for how long: docs/peer-store.md.
"""


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic in click's newest release only
    """`90s`, `30m`, `2h`, `7d`; where `forever` is allowed it is infinite. In seconds."""

    name = "duration"

    def __init__(self, *, is_endless: bool = False) -> None:
        self._is_endless = is_endless

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        if self._is_endless and value == "forever":
            return math.inf
        found = re.fullmatch(r"([0-9]{1,9})(s|m|h|d)", str(value))
        seconds = float(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[found[2]] if found else 0.0
        if not 0 < seconds <= DURATION_MAX_S:
            endless = " or forever" if self._is_endless else ""
            self.fail(f"{str(value)[:20]!r} is no time such as 90s, 30m, 2h, 7d{endless}", param, ctx)
        return seconds


store_option = click.option(
    "--store",
    "path",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    metavar="FOLDER",
    help="The peer store.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group("peers", help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
def peers_command() -> None:
    pass


@peers_command.command("list")
@click.argument("prefix", required=False, default="")
@store_option
@click.option("--sort", type=click.Choice(["id", "seen", "added"]), default="id", show_default=True,
              help="Those seen last, or added last, come first.")  # fmt: skip
@click.option("--closest-to", metavar="WHO", help="Sort by the distance to this id instead, the nearest first.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=LIMIT_DEFAULT, show_default=True, metavar="N",
              help="Show so many.")  # fmt: skip
@click.option("--seen-within", type=Duration(), metavar="TIME", help="Only peers seen so recently: 90s, 30m, 2h, 7d.")
@click.option("--protocol", default="", metavar="ID", help="Only peers that say they serve this protocol.")
@click.option("--banned", is_flag=True, help="Only banned ones, also such as nothing else is known of.")
@click.option("--removed", is_flag=True, help="Only removed ones that are not forgotten yet.")
@json_option
def list_command(
    prefix: str,
    path: Path,
    sort: str,
    closest_to: str | None,
    limit: int,
    seen_within: float | None,
    protocol: str,
    banned: bool,
    removed: bool,
    as_json: bool,
) -> int:
    """Show peers: how many addresses each has, the best one and its score (0 to 1000), bans.

    PREFIX: only ids that begin with these hexadecimal digits.
    """
    from partywire.engine.peer_store.query import Order, PeerFilter

    from .peer_rows import known_id, peer_document, table_lines

    if closest_to is not None and (prefix or sort != "id"):
        raise UsageMistake("--closest-to is an order of its own, over all peers; give neither PREFIX nor --sort")
    if prefix and sort != "id":
        raise UsageMistake("peers whose ids begin with PREFIX come by id; leave --sort out")
    now = time.time()
    filter_ = PeerFilter(
        protocol=protocol,
        seen_since=None if seen_within is None else now - seen_within,
        is_banned=True if banned else None,
        is_deleted=removed,
    )
    with opened(path) as store:
        if closest_to is not None:
            found = store.closest(known_id(store, closest_to), limit + 1, filter_)
        elif prefix:
            with saying_what_is_wrong():
                found = store.find(prefix, filter_, limit + 1)
        else:
            found = store.select(filter_, Order(sort), limit + 1)
        bans = store.bans()
        rows: list[tuple[PeerId, PeerRecord | None, Ban | None]] = [
            (one.peer_id, one, bans.get(one.peer_id)) for one in found
        ]
        if banned and not (removed or protocol or seen_within or closest_to):
            strangers = [one for one in sorted(bans) if str(one).startswith(prefix.lower()) and store.get(one) is None]
            rows += [(peer_id, None, bans[peer_id]) for peer_id in strangers]
        unreadable = store.set_aside_count() + len(store.quarantined)
    has_more, rows = len(rows) > limit, rows[:limit]
    if as_json:
        document = {
            "peers": [peer_document(*row, now) for row in rows],
            "has_more": has_more,
            "unreadable": unreadable,
        }
        click.echo(json_text(document))
        return ExitCode.OK
    click.echo("\n".join(table_lines(rows, now)) if rows else "no peers")
    if has_more:
        click.echo(f"partywire: there are more; --limit shows more than {limit}", err=True)
    if unreadable:
        click.echo(
            f"partywire: records that cannot be read, and count as unknown: {unreadable} (docs/peer-store.md)", err=True
        )
    return ExitCode.OK


@peers_command.command("add")
@click.argument("who")
@click.argument("addresses", nargs=-1, metavar="[ADDRESS]...")
@click.option("--name", default=None, metavar="NAME", help="Call the peer so, in lists and as WHO; empty: no more.")
@store_option
@json_option
def add_command(who: str, addresses: Sequence[str], name: str | None, path: Path, as_json: bool) -> int:
    """Add a peer, or addresses of it, or give it a name. A removed peer is back.

    ADDRESS is a multiaddress such as /ip4/10.0.0.1/tcp/7201 or /dns4/bob.example/tcp/7201. Addresses that you add are
    not dropped in favour of those that a peer claims. The folder is made if there is no store in it.
    """
    from partywire.engine.multiaddr import Multiaddr
    from partywire.engine.peer_store.known_address import ADDRESSES_MAX, KnownAddress, Source, bounded_text
    from partywire.engine.peer_store.record import NAME_KEY, NAME_SIZE_MAX, PeerRecord

    from .peer_rows import exact_id, known_id

    if len(addresses) > ADDRESSES_MAX:
        raise UsageMistake(f"{len(addresses)} addresses, at most {ADDRESSES_MAX} of a peer are kept")
    told = []
    for text in addresses:
        with saying_what_is_wrong(f"{text[:80]} is not an address that can be added: "):
            told.append(KnownAddress(Multiaddr.parse(text), Source.CONFIG))
    if name is not None and bounded_text(name, NAME_SIZE_MAX) != name:
        raise UsageMistake(f"a name is printable and has at most {NAME_SIZE_MAX} bytes")
    exact = exact_id(who)
    now = time.time()
    with opened(path, changes=True, makes=exact is not None) as store:
        peer_id, key = (known_id(store, who), b"") if exact is None else exact

        def adding(old: PeerRecord | None) -> PeerRecord:
            record = replace(old or PeerRecord(peer_id, now), deleted_at=None).with_addresses(told, now)
            record = replace(record, public_key=record.public_key or key)
            return record if name is None else record.with_metadata(NAME_KEY, name.encode())

        store.apply([(peer_id, adding)])
        return _say(store, peer_id, ADDED, as_json)


@peers_command.command("ban")
@click.argument("who")
@click.option("--for", "duration_s", type=Duration(is_endless=True), default="forever", show_default=True,
              metavar="TIME", help="So long: 90s, 30m, 2h, 7d, forever.")  # fmt: skip
@click.option("--reason", default="banned by hand", show_default=True, metavar="TEXT", help="Why, for the list.")
@store_option
@json_option
def ban_command(who: str, duration_s: float, reason: str, path: Path, as_json: bool) -> int:
    """Ban a peer, known or not: it is neither dialled nor accepted. A longer ban that holds already stays.

    A node that runs refuses it from the next connection on; one that stands is not closed by this.
    """
    from partywire.engine.peers.contract import Ban

    from .peer_rows import exact_id, known_id

    exact = exact_id(who)
    with opened(path, changes=True, makes=exact is not None) as store:
        peer_id = known_id(store, who) if exact is None else exact[0]
        store.ban(peer_id, Ban(reason, time.time() + duration_s))
        return _say(store, peer_id, "", as_json)


@peers_command.command("unban")
@click.argument("who")
@store_option
@json_option
def unban_command(who: str, path: Path, as_json: bool) -> int:
    """End the ban of a peer."""
    from .peer_rows import known_id

    with opened(path, changes=True) as store:
        peer_id = known_id(store, who)
        if not store.unban(peer_id):
            raise UsageMistake(f"{peer_id} is not banned; `partywire peers list --banned` shows who is")
        return _say(store, peer_id, "no more banned", as_json)


@peers_command.command("remove")
@click.argument("who")
@click.option("--forget", is_flag=True, help="Keep nothing about it, also not how its addresses served.")
@store_option
@json_option
def remove_command(who: str, forget: bool, path: Path, as_json: bool) -> int:
    """Remove a peer: it is dialled no more. It comes back when it is added again, or connects; `ban` prevents that."""
    from .peer_rows import known_id

    with opened(path, changes=True) as store:
        peer_id = known_id(store, who)
        if not store.remove(peer_id, forget=forget):
            raise UsageMistake(f"{peer_id} is not in this store, or was removed already")
        return _say(store, peer_id, "forgotten" if forget else "removed", as_json)


@contextmanager
def opened(path: Path, *, changes: bool = False, makes: bool = False) -> Iterator[PeerStore]:
    """The store in a folder for as long as the block lasts, to be read unless it `changes`; made if it may be.

    Raises:
        UsageMistake: there is none, it cannot be used, or the library is missing.
    """
    from partywire.engine.peer_store.environment import DATA_FILE
    from partywire.engine.peer_store.errors import PeerStoreMissing, PeerStoreUnavailable, PeerStoreUnusable
    from partywire.engine.peer_store.store import PeerStore

    try:
        if not makes and not (path / DATA_FILE).is_file():
            raise PeerStoreMissing(str(path))
        store = PeerStore(path, "share" if changes else "read")
    except (PeerStoreMissing, PeerStoreUnavailable, PeerStoreUnusable) as error:
        raise UsageMistake(str(error)) from error
    with store:
        yield store


@contextmanager
def saying_what_is_wrong(with_: str = "") -> Iterator[None]:
    """A ValueError about what the user typed, as a mistake of theirs."""
    try:
        yield
    except ValueError as error:
        raise UsageMistake(f"{with_}{error}") from error


def _say(store: PeerStore, peer_id: PeerId, done: str, as_json: bool) -> int:
    """Print how the peer is now."""
    from .peer_rows import ban_text, peer_document

    record, ban, now = store.get(peer_id), store.ban_of(peer_id), time.time()
    if as_json:
        click.echo(json_text(peer_document(peer_id, record, ban, now)))
        return ExitCode.OK
    name = f"{record.name} ({peer_id})" if record is not None and record.name else str(peer_id)
    addresses = f"; its addresses: {len(record.addresses)}" if record is not None and done == ADDED else ""
    click.echo(f"{name} is {done}{addresses}" if done or ban is None else f"{name} is {ban_text(ban, now)}")
    return ExitCode.OK
