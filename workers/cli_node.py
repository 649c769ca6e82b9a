"""`partywire node`: a peer-to-peer node in the foreground, for trying addresses out, and for messages from a terminal.

Between the command line and `PeerNode`. The one invariant: whatever peers say reaches the terminal as letters only, one
line for each thing that happens. What is imported for it is imported when it runs.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack
from dataclasses import fields
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from partywire.engine.errors import PartyWireError

from .cli_json import json_text
from .exit_code import ExitCode, UsageMistake

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from partywire.engine.peers.events import EventSubscription
    from partywire.engine.peers.peer_id import PeerId

    from .node import PeerNode

    Say = Callable[[str, dict[str, Any]], None]

TEXT_SIZE_MAX: Final = 2000
"""Characters of a message that are shown."""

SIGNAL_PAUSE_S: Final = 0.5
"""From a signal until a second one ends the command at once: some who send one send it twice."""

HELP = """Run a peer-to-peer node until Ctrl-C, and say what happens to it.

FILE is a TOML file with the table [node]; an empty table is enough to dial others:

\b
  [node]
  identity = "alice.key"                     # made at the first start; its file is who we are
  listen = ["/ip4/0.0.0.0/tcp/7300"]         # leave it out to dial only
  advertise = "/dns4/alice.example/tcp/7300" # what peers are told, behind 0.0.0.0 or a router
  store = "peers"                            # optional: remember peers (partywire peers --store peers)

It prints our id and addresses, then a line for each peer that connects, leaves or sends a message.

\b
Try it, in two terminals:
  printf '[node]\\nlisten = "/ip4/127.0.0.1/tcp/7300"\\n' > alice.toml; printf '[node]\\n' > bob.toml
  partywire node alice.toml
  partywire node bob.toml --send ID@/ip4/127.0.0.1/tcp/7300 "hello"      ID: what alice's node prints

PEER is an id of 26 hexadecimal digits whose address is in [node.peers] or in the store, or ID@ADDRESS. With --send the
command ends when the messages were acknowledged, unless --stay: with 3 if one was not. Ctrl-C and SIGTERM say goodbye
to all peers and end it with 0 (130 if a message was still on its way). Anybody who reaches an address of ours may
connect and send, unless [node.connections] has a list `allowed`: docs/node.md.
"""


@click.command("node", help=HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--send", "messages", nargs=2, multiple=True, metavar="PEER TEXT", help="Send a message; may be given again."
)
@click.option("--stay", is_flag=True, help="Go on behind --send, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def node_command(file: Path, messages: tuple[tuple[str, str], ...], stay: bool, as_json: bool) -> int:
    from partywire.engine.channel.errors import CredentialError
    from partywire.engine.peer_store.errors import PeerStoreError

    from .node import PeerNode, load_node_config

    if stay and not messages:
        raise UsageMistake("--stay is for --send; without it the node stays anyway")
    sending = [(_peer_of(who), text.encode()) for who, text in messages]
    say = say_json if as_json else say_text
    try:
        return asyncio.run(serve(PeerNode(load_node_config(file)), sending, not messages or stay, say))
    except (CredentialError, PeerStoreError, ValueError) as error:
        raise UsageMistake(str(error)) from error
    except BrokenPipeError:  # who read what we say has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK


def _peer_of(who: str) -> tuple[PeerId, str]:
    """An id and an address, which may be empty.

    Raises:
        UsageMistake: it is none.
    """
    from partywire.engine.peers.peer_id import PeerId

    peer_id, _, address = who.partition("@")
    try:
        return PeerId.parse(peer_id), address
    except ValueError as error:
        raise UsageMistake(f"--send: {error}; PEER is an id, or ID@ADDRESS") from None


async def serve(
    node: PeerNode, sending: Sequence[tuple[tuple[PeerId, str], bytes]], is_staying: bool, say: Say
) -> ExitCode:
    """Run the node until a signal, or until everything was sent."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    signals = (signal.SIGINT, signal.SIGTERM)

    def stop() -> None:
        if not stopped.is_set():
            stopped.set()
            loop.call_later(SIGNAL_PAUSE_S, hear_no_more)

    def hear_no_more() -> None:
        for number in signals:
            loop.remove_signal_handler(number)

    code = ExitCode.OK
    async with AsyncExitStack() as stack:
        stack.callback(hear_no_more)  # at the end: uvloop's handlers outlive their loop
        await stack.enter_async_context(node)
        for number in signals:
            loop.add_signal_handler(number, stop)
        say("started", {"peer_id": node.peer_id, "addresses": node.addresses})
        events = node.events()
        background = [loop.create_task(_show_events(events, say)), loop.create_task(_show_messages(node, say))]
        sends = [loop.create_task(_send(node, peer_id, address, body, say)) for (peer_id, address), body in sending]
        stopping = loop.create_task(stopped.wait())
        try:
            everything: asyncio.Future[list[bool]] = asyncio.gather(*sends)
            waits: list[asyncio.Future[Any]] = [everything, stopping]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if not everything.done():
                code = ExitCode.INTERRUPTED
            elif not all(everything.result()):
                code = ExitCode.PEERS
            if is_staying:
                await _first(stopping, *background)
        finally:
            for task in (*background, *sends, stopping):
                task.cancel()
            await asyncio.gather(*background, *sends, stopping, return_exceptions=True)
    say("ended", {})
    return code


async def _first(*tasks: asyncio.Task[Any]) -> None:
    """Until one of them ends; what it raised is raised."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


async def _send(node: PeerNode, peer_id: PeerId, address: str, body: bytes, say: Say) -> bool:
    """Whether it was acknowledged."""
    try:
        if address:
            node.add_peer(peer_id, address)
        delivery = await node.messages.send(peer_id, body)
        await delivery.acknowledged()
    except (PartyWireError, ValueError) as error:
        say("not_delivered", {"peer_id": peer_id, "size": len(body), "cause": str(error)})
        return False
    say("delivered", {"peer_id": peer_id, "size": len(body)})
    return True


async def _show_events(events: EventSubscription, say: Say) -> None:
    async for event in events:
        name = "".join(f"_{one.lower()}" if one.isupper() else one for one in type(event).__name__).lstrip("_")
        say(name, {field.name: getattr(event, field.name) for field in fields(event)})


async def _show_messages(node: PeerNode, say: Say) -> None:
    async for message in node.messages:
        text = printable(message.body.decode(errors="replace"))
        say("message", {"peer_id": message.peer_id, "size": len(message.body), "text": text})


# What is said.


def printable(text: str) -> str:
    """Letters only, and not too many of them."""
    shown = "".join(one if one.isprintable() else "?" for one in text[:TEXT_SIZE_MAX])
    return shown + ("..." if len(text) > TEXT_SIZE_MAX else "")


def plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, float):
        return value if value < float("inf") else None
    return value if value is None or isinstance(value, int) else printable(str(value))


def say_json(event: str, values: dict[str, Any]) -> None:
    """One object on one line."""
    click.echo(json_text({"event": event} | {key: plain(value) for key, value in values.items()}))


SENTENCES: Final = {
    "peer_connected": "{peer_id} connected ({direction}) at {address}",
    "peer_disconnected": "{peer_id} left: {cause}",
    "peer_connect_failed": "{peer_id} was not reached: {cause}",
    "inbound_failed": "somebody at {address} did not become a peer: {cause}",
    "peer_updated": "{peer_id} told us of other addresses, features or protocols",
    "peer_banned": "{peer_id} is banned: {reason}",
    "node_state_changed": "we are {state}; connections: {connections}",
    "lagged": "{count} lines are missing here: too much happened at once",
    "message": "{peer_id}: {text}",
    "delivered": "{peer_id} has the message",
    "not_delivered": "{cause}",
    "ended": "goodbye",
}


def say_text(event: str, values: dict[str, Any]) -> None:
    """One line for a person."""
    shown = {key: plain(value) for key, value in values.items()}
    if event == "started":
        where = "".join(f" at {address}" for address in shown["addresses"]) or ", and listen nowhere"
        click.echo(f"we are {shown['peer_id']}{where}")
    elif event == "address_checked":
        latency = shown["latency_s"]
        found = shown["cause"] if latency is None else f"reached in {latency * 1000:.1f} ms"
        click.echo(f"{shown['address']} of ours: {found}")
    else:
        click.echo(SENTENCES[event].format(**shown))
