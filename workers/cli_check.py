"""`partywire check`: what stands between a configuration and a working party, found out without starting one.

Between the person who wrote a configuration and the parties that run by theirs. The one invariant: nothing that runs is
disturbed: our addresses are bound for a moment and not listened on, and peers are asked by a probe, which their
gateways answer and their links never see.
"""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from partywire.engine.addresses import Address, format_address, parse_address
from partywire.engine.link_transport import transport_of
from partywire.engine.listening import ListenError, open_listening
from partywire.engine.prober import Finding, Probed, Prober
from partywire.engine.tcp import TcpTransport
from partywire.engine.topology import dials

from .check_row import Row
from .cli_json import json_text
from .config import PartyConfig, load_config
from .exit_code import ExitCode
from .security import check_files, crl_paths, is_soon, own_certificate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from partywire.engine.topology import PartySpec, PeerSpec

    from .security import OwnCertificate

HELP = """Check a configuration, and find out what is at each peer's address.

Validates CONFIG and the files of its [security], loads the handlers that [node.protocols] names, tries to bind our own
addresses, those of the node too, and asks every peer, over a secured connection if the link is to be one, whether it
would accept a link with us. Our party need not run; a peer's party must run to answer, and does not notice. Each row
says what was found and what to do.

\b
Examples:
  partywire check parties/alice.toml
  partywire check parties/alice.toml --timeout 30 --json

\b
Exit codes:
  0   our addresses can be listened on, and every peer answered and fits
  2   the configuration cannot be used
  3   an address of ours is taken or not ours, our certificate was revoked, a handler cannot be loaded, or a peer did
      not answer or does not fit
"""

PROGRESS_AFTER_S: Final = 2.0
PROGRESS_EVERY_S: Final = 5.0

CLOCK_AGREES_S: Final = 0.05
"""Difference of two clocks that is not shown, beside half a round trip, which is how well it is known."""

CLOCK_AHEAD_MAX_S: Final = 2.0
"""Difference of two clocks that is worth a word. Nothing in PartyWire depends on it, but logs are hard to compare."""

NOT_ASKED: Final = "nothing more is asked of a peer that speaks the iris protocol (see docs/iris-compat.md)"
PROVEN: Final = "its certificate is the one that we expect, and it did not refuse ours; "

_LOOPBACK_OF: Final = {"*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}

_COMPARE = "compare the [parties] tables of both configurations"
_ADVICE: Final = {
    Finding.UNRESOLVED: "Check the name in [parties], and this host's DNS or /etc/hosts",
    Finding.REFUSED: "Start {peer}, or compare this address with what {peer} listens on",
    Finding.NO_ANSWER: "The address is wrong, its host is down, or a firewall drops what we send",
    Finding.UNREACHABLE: "This host has no way to that address: check the address, the network and its routes",
    Finding.CLIENT_HOST: "Set [dial] client_host to an address of this host, or leave it out",
    Finding.PROXY: "Check [dial.socks], and whether the proxy runs and takes us",
    Finding.FAILED: "Check the address; a unix socket can be used by its own user only",
    Finding.SILENT: "Something accepts there and does not answer: another program, a proxy without its target, "
    "or a party that was stopped; check the address and the port",
    Finding.CLOSED: "Another program, a party that is not called {peer} or does not know {us}, or an older PartyWire: "
    f"check the port, and {_COMPARE}",
    Finding.NOT_PARTYWIRE: "Another program uses that port: check the address and the port",
    Finding.WRONG_PARTY: f"The addresses are mixed up: {_COMPARE}",
    Finding.VERSION: "Install the same PartyWire version at both parties",
    Finding.PARTY_SET: "Make the [parties] tables of both configurations equal, in the same order",
    Finding.PARAMETERS: "Make [parameters], and what else must be equal, the same in both configurations",
    Finding.SECURITY: "Give [security] the same mode, pattern and cipher in both configurations",
    Finding.CREDENTIALS: "Compare certificates, keys and [security] of both configurations (see docs/security.md)",
    Finding.NOT_SECURED: "Another program, or another version of PartyWire, uses that port: check the address",
    Finding.REJECTED: "Ask whoever runs {peer}",
}
_NOT_REACHED: Final = frozenset(
    {Finding.UNRESOLVED, Finding.REFUSED, Finding.NO_ANSWER, Finding.UNREACHABLE, Finding.PROXY, Finding.FAILED}
)


@click.command("check", help=HELP)
@click.argument("config", type=click.Path(dir_okay=False, path_type=Path), metavar="CONFIG")
@click.option("--timeout", "timeout_s", type=click.FloatRange(0.1, 600), default=10.0, show_default=True,
              metavar="SECONDS", help="For each peer, the looking up of its name included.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print what was found as one JSON object.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
def check_command(config: Path, timeout_s: float, as_json: bool, quiet: bool) -> int:
    party = load_config(config)
    check_files(party)
    own = security_rows(party)
    node, addresses = _node_of(party)
    found = asyncio.run(Check(party, timeout_s, addresses, quiet=quiet).run())
    node += found.node
    listen, peers = found.listen, found.peers
    code = ExitCode.OK if all(row.ok for row in (*own, *node, *listen, *peers)) else ExitCode.PEERS
    if as_json:
        document = {
            "config": str(config),
            "party": party.name,
            "security": [row.document() for row in own],
            "node": [row.document() for row in node],
            "listen": [row.document() for row in listen],
            "peers": [row.document() for row in peers],
            "exit_code": int(code),
        }
        click.echo(json_text(document))
        return code
    print_rows(party, str(config), [*own, *node, *listen, *peers])
    return code


def _node_of(party: PartyConfig) -> tuple[list[Row], dict[str, Address]]:
    """What is known of our node, and where it would listen."""
    if party.node is None:
        return [], {}
    from .check_node import node_addresses, node_rows  # only here: most parties have no node

    return node_rows(party), node_addresses(party.node)


class Found(NamedTuple):
    """Rows of our own addresses, of those of our node, and of every peer in index order."""

    listen: list[Row]
    node: list[Row]
    peers: list[Row]


class Check:
    """Everything that is tried for one configuration, all at once."""

    def __init__(
        self, config: PartyConfig, timeout_s: float, node_addresses: Mapping[str, Address], *, quiet: bool
    ) -> None:
        self._config = config
        self._node_addresses = node_addresses
        self._party = config.spec
        self._timeout_s = timeout_s
        self._quiet = quiet
        self._steps: dict[str, str] = {}  # what is still waited for: of whom -> what

    async def run(self) -> Found:
        """Until every answer is there, or late."""
        loop, options = asyncio.get_running_loop(), self._config.link_options
        prober = Prober(transport_of(loop, options), self._party, self._config.workers, options)
        direct = Prober(TcpTransport(loop), self._party, self._config.workers, options)
        telling = asyncio.ensure_future(self._tell_progress())
        try:
            ours = [*self._config.listen_addresses, *own_ports(self._party).values()]
            listen = asyncio.gather(*(self._listen(direct, "listen", format_address(at), at) for at in ours))
            node = asyncio.gather(
                *(self._listen(direct, "node", text, at) for text, at in self._node_addresses.items())
            )
            peers = asyncio.gather(*(self._peer(prober, peer) for peer in self._party.peers))
            return Found(await listen, await node, await peers)
        finally:
            telling.cancel()

    async def _tell_progress(self) -> None:
        await asyncio.sleep(PROGRESS_AFTER_S)
        while not self._quiet:
            waiting = ", ".join(f"{name} ({step})" for name, step in self._steps.items())
            click.echo(f"partywire: still waiting for {waiting}", err=True)
            await asyncio.sleep(PROGRESS_EVERY_S)

    async def _step(self, name: str, first: str, task: Awaitable[Row]) -> Row:
        self._steps[name] = first
        try:
            return await task
        finally:
            del self._steps[name]

    # Our own addresses.

    async def _listen(self, prober: Prober, name: str, text: str, address: Address) -> Row:
        return await self._step(text, "binding our address", self._try_to_listen(prober, name, text, address))

    async def _try_to_listen(self, prober: Prober, name: str, text: str, address: Address) -> Row:
        try:
            trial = await asyncio.to_thread(open_listening, [address], is_trial=True)
        except ListenError as error:
            if error.number == errno.EADDRINUSE and await self._is_running(prober, address):
                return Row(name, text, True, "in use by this party", f"{self._party.name} is running")
            return Row(name, text, False, "cannot be listened on", str(error))
        trial.close()
        return Row(name, text, True, "free")

    async def _is_running(self, prober: Prober, address: Address) -> bool:
        # At a port of the node, or one that is one peer's own, our party knows no probe.
        asked = address if address in self._config.listen_addresses else self._config.listen_addresses[0]
        host, port = asked
        try:
            async with asyncio.timeout(self._timeout_s):
                return await prober.is_running(_LOOPBACK_OF.get(host, host), port)
        except TimeoutError:
            return False

    # Peers.

    async def _peer(self, prober: Prober, peer: PeerSpec) -> Row:
        return await self._step(peer.name, "connecting", self._ask(prober, peer))

    async def _ask(self, prober: Prober, peer: PeerSpec) -> Row:
        def step(words: str) -> None:
            self._steps[peer.name] = words

        us = self._party.name
        if peer.iris is not None and dials(peer.name, us):
            where = f"at {peer.iris.listen}, by TLS; " if peer.iris.tls else ""
            return Row(peer.name, peer.address, True, "dials us", where + NOT_ASKED, "", Probed(Finding.OK))
        if peer.iris is not None:
            probed = await prober.reach(peer, self._timeout_s)
        else:
            probed = await prober.probe(peer, self._timeout_s, step)
        if peer.iris is not None and probed.finding is Finding.OK:
            detail = (PROVEN if peer.iris.tls else "") + NOT_ASKED
            return Row(peer.name, peer.address, True, "takes connections", detail, "", probed)
        if probed.finding is Finding.OK:
            return Row(peer.name, peer.address, True, "ok", measured(probed), clock_advice(probed), probed)
        detail = probed.detail
        if probed.finding is Finding.NOT_PARTYWIRE:
            detail = f"it answered {probed.detail!r}"
        elif probed.who:
            detail = f"{probed.who} answers there" if probed.who != us else "that is our own address"
        advice = _ADVICE[probed.finding].format(peer=peer.name, us=us)
        if probed.finding in _NOT_REACHED and dials(peer.name, us):
            advice += f". (For the link it is enough that {peer.name} reaches us: it dials)"
        return Row(peer.name, peer.address, False, probed.finding.value, detail, advice, probed)


def own_ports(party: PartySpec) -> dict[str, Address]:
    """Where we listen for one peer alone, by its name."""
    listening = {peer.name: peer.iris.listen for peer in party.peers if peer.iris is not None and peer.iris.listen}
    return {name: parse_address(text, listening=True) for name, text in listening.items()}


def security_rows(config: PartyConfig) -> list[Row]:
    """What our certificate tells our peers, and how long our lists of revoked ones are good, if links need them. Their
    files were checked before."""
    own = own_certificate(config)
    if own is None:
        return []
    return [*_certificate_rows(config, own), *_list_rows(config)]


def _list_rows(config: PartyConfig) -> list[Row]:
    from .keygen import revocations_until  # only here: it imports much

    rows = []
    for path in crl_paths(config):
        end = revocations_until(path)
        if end is not None and is_soon(end):
            advice = "Get the next list from the issuer (partywire keygen --revoke), or no link comes up from then on"
            rows.append(Row("crl", path, True, "ends soon", f"valid until {end:%Y-%m-%d}", advice))
    return rows


def _certificate_rows(config: PartyConfig, own: OwnCertificate) -> list[Row]:
    from .keygen import is_revoked  # only here: it imports much

    until = f"valid until {own.not_after:%Y-%m-%d}"
    if (path := next((path for path in crl_paths(config) if is_revoked(own.path, path)), "")):
        advice = f"Peers with that list refuse it: make a new one (partywire keygen {config.name} --ca FOLDER)"
        return [Row("certificate", own.path, False, "revoked", f"{path} names it", advice)]
    if config.name not in own.names:
        names = ", ".join(own.names) or "nobody"
        advice = f"Peers that have not pinned this very certificate refuse it: partywire keygen {config.name} makes one"
        return [Row("certificate", own.path, True, f"made for {names}, not {config.name}", until, advice)]
    if is_soon(own.not_after):
        advice = f"Make the next one (partywire keygen {config.name} --ca FOLDER) and put it in the place of this one"
        return [Row("certificate", own.path, True, "ends soon", until, advice)]
    return [Row("certificate", own.path, True, "ok", until)]


def measured(probed: Probed) -> str:
    """Round trip and clock in words."""
    if probed.round_trip_s is None or probed.clock_ahead_s is None:
        return ""
    answer = f"answers in {probed.round_trip_s * 1000:.1f} ms; its clock"
    if abs(probed.clock_ahead_s) <= CLOCK_AGREES_S + probed.round_trip_s / 2:
        return f"{answer} agrees with ours"
    side = "ahead of" if probed.clock_ahead_s > 0 else "behind"
    return f"{answer} is {abs(probed.clock_ahead_s):.2f} s {side} ours"


def clock_advice(probed: Probed) -> str:
    """What to do about two clocks, or nothing."""
    if probed.round_trip_s is None or probed.clock_ahead_s is None:
        return ""
    if abs(probed.clock_ahead_s) - probed.round_trip_s / 2 <= CLOCK_AHEAD_MAX_S:
        return ""
    return "Set both clocks (NTP), or the times in the two logs will not fit together"


def print_rows(config: PartyConfig, path: str, rows: list[Row]) -> None:
    """For a person: a line for each address, and below it what to do."""
    spec = config.spec
    click.echo(f"{click.format_filename(path)}: {spec.name}, party {spec.index} of {len(spec.parties)}")
    names = max(len(row.name) for row in rows)
    addresses = max(len(row.address) for row in rows)
    for row in rows:
        mark = "ok  " if row.ok else "FAIL"
        click.echo(f"  {mark}  {row.name:{names}}  {row.address:{addresses}}  {row.found}")
        for words in (row.detail, row.advice):
            if words:
                click.echo(f"        {words}")
    failed = sum(not row.ok for row in rows)
    click.echo(f"{failed} of {len(rows)} need care" if failed else "all of it is ready")
