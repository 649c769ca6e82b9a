"""Chat between two terminals: what is typed in one is shown in the other. Over TCP, or as an onion service of Tor's.

python chat.py --identity alice.key --listen /ip4/0.0.0.0/tcp/7300
python chat.py --identity bob.key --peer ID@/ip4/192.0.2.7/tcp/7300          ID: what Alice's chat says

python chat.py --identity alice.key --onion-key alice.onion                  Tor with ControlPort 9051
python chat.py --identity bob.key --tor --peer ID@/onion3/...:7300
"""

import argparse
import asyncio
import sys
import threading

from partywire import PartyWireError, PeerId, PeerNode
from partywire.workers.node import OnionConfig, SocksConfig

LINE_SIZE_MAX = 4096


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--identity", default="", help="file of our key, made if it is not there (a new one each time)")
    parser.add_argument("--listen", action="append", default=[], metavar="ADDRESS", help="where others may dial us")
    parser.add_argument("--peer", metavar="ID@ADDRESS", help="whom to talk to; else whoever dials us")
    parser.add_argument("--tor", action="store_true", help="dial through Tor at 127.0.0.1:9050")
    parser.add_argument("--onion-key", metavar="FILE", help="be an onion service, whose key is in FILE")
    parser.add_argument("--control", default="/ip4/127.0.0.1/tcp/9051", metavar="ADDRESS", help="Tor's control port")
    return parser.parse_args()


def make_node(options: argparse.Namespace) -> PeerNode:
    onion = None
    if options.onion_key:
        onion = OnionConfig(control=options.control, key_file=options.onion_key, port=7300)
    return PeerNode(
        identity=options.identity,
        listen=options.listen,
        user_agent="chat example",
        socks=SocksConfig(address="/ip4/127.0.0.1/tcp/9050") if options.tor else None,
        onion=onion,
    )


def typed_lines() -> asyncio.Queue[bytes]:
    """What is typed; an empty line of no bytes is the end. A thread, since a terminal may not be waited for."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[bytes] = asyncio.Queue()

    def read() -> None:
        line = b"\n"
        while line:
            line = sys.stdin.buffer.readline(LINE_SIZE_MAX)
            try:
                loop.call_soon_threadsafe(lines.put_nowait, line)
            except RuntimeError:
                return  # the chat has ended

    threading.Thread(target=read, daemon=True).start()
    return lines


def printable(data: bytes) -> str:
    """A peer may send anything: nothing of it reaches the terminal but letters."""
    return "".join(one if one.isprintable() else "?" for one in data.decode(errors="replace"))


async def show(node: PeerNode) -> None:
    async for message in node.messages:
        print(f"{message.peer_id.short}: {printable(message.body.rstrip())}", flush=True)


async def say(node: PeerNode, partner: PeerId | None) -> None:
    lines = typed_lines()
    while line := await lines.get():
        listeners = [partner] if partner else [connection.peer_id for connection in node.connections]
        if not listeners:
            print("(nobody is connected)", flush=True)
        for peer_id in listeners:
            try:
                delivery = await node.messages.send(peer_id, line)
                await delivery.acknowledged()
            except PartyWireError as error:
                print(f"({error})", flush=True)


async def main() -> None:
    options = arguments()
    async with make_node(options) as node:
        print(f"We are {node.peer_id}", *(f"at {address}" for address in node.addresses), flush=True)
        partner = None
        if options.peer:
            peer_id, _, address = options.peer.partition("@")
            partner = node.add_peer(peer_id, address)
        showing = asyncio.create_task(show(node))
        await say(node, partner)
        showing.cancel()


try:
    asyncio.run(main())
except (PartyWireError, OSError, ValueError) as error:
    sys.exit(f"chat: {error}")
except KeyboardInterrupt:
    pass
