"""One party of a rival in a process of its own, playing messages whose every byte is checked.

Started by test_rivals.py with the contender's name, our index, the ports and the descriptor of our listening socket.
Any loss, change, or swap of messages ends it with an exception.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from partywire.perf.contender import CONTENDERS, Place

if TYPE_CHECKING:
    from partywire.perf.workloads import Channel, Stopwatch

LABEL = struct.Struct("<IIII")
PLAYS = (1, 3)
"""Units of each play, one after the other."""


@dataclass(frozen=True, slots=True)
class NumberedMessages:
    """Everybody sends everybody messages of all kinds of sizes, some of them ahead, and checks what comes.

    Sizes lie around what the rivals treat specially: nothing, a cache line, their buffers and thresholds.
    """

    name: ClassVar[str] = "numbered"
    unit: ClassVar[str] = "round"
    SIZES: ClassVar[tuple[int, ...]] = (0, 1, 5, 64, 4_000, 65_535, 65_536, 65_537, 300_000, 0, 7)
    parties: int
    sessions: int = 9
    messages_per_unit: int = 0
    bytes_per_unit: int = 0

    @property
    def counted_sessions(self) -> int:
        return self.sessions

    async def play(self, channel: Channel, party: int, session: int, units: int, stopwatch: Stopwatch | None) -> None:
        others = [other for other in range(self.parties) if other != party]
        sizes = (*self.SIZES, 1_048_576) if session == 0 else self.SIZES
        for unit in range(units):
            for number, size in enumerate(sizes):
                for other in others:
                    await channel.send(other, numbered(party, other, session, number, size))
                if number % 2 == 0:
                    continue  # one ahead: the even message is received behind the odd one
                for received in (number - 1, number):
                    for other in others:
                        message = await channel.recv(other)
                        assert bytes(message) == numbered(other, party, session, received, sizes[received])
            if len(sizes) % 2:
                for other in others:
                    message = await channel.recv(other)
                    assert bytes(message) == numbered(other, party, session, len(sizes) - 1, sizes[-1])
            if session % 2:
                await getattr(channel, "sleep", asyncio.sleep)(0.001 * (unit % 2))
            if stopwatch is not None:
                stopwatch.latencies_ns.append(unit)


def numbered(sender: int, receiver: int, session: int, number: int, size: int) -> bytes:
    label = LABEL.pack(sender, receiver, session, number)
    return (label * (size // LABEL.size + 1))[:size]


def main() -> None:
    contender, party = sys.argv[1], int(sys.argv[2])
    ports = tuple(map(int, sys.argv[3].split(",")))
    work = NumberedMessages(len(ports))
    with (
        socket.socket(fileno=int(sys.argv[4])) as listener,
        CONTENDERS[contender].load().open_party(Place(party, len(ports), ports, ports, listener), work) as opened,
    ):
        for units in PLAYS:
            assert opened.play(units) == [list(range(units))] * 4
    print("played")


if __name__ == "__main__":
    main()
