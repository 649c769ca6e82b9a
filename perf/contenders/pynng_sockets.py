"""The rival: pynng over TCP, a PAIR socket with deep queues for each peer, session number in front.

A message is `session u32 | payload`. Blocking-free calls and `poll` on the sockets' descriptors, not pynng's asyncio
methods, which are several times slower: each of them crosses from one of NNG's threads into the loop. Without the
queues NNG hands over one message at a time.

PAIR takes one peer a socket and a party has one port, so the connections are made first and given to NNG's `socket://`
transport, which costs the same as its `tcp://`.
"""

from __future__ import annotations

import contextlib
import math
import select
import struct
import time
from typing import TYPE_CHECKING, cast

import pynng
from pynng import options

from partywire.perf.contender import CONNECT_TIMEOUT_S
from partywire.perf.coroutines import TurnMailbox, Turns, park
from partywire.perf.frames import meet
from partywire.perf.mailboxes import plays_of

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from partywire.perf.contender import Place
    from partywire.perf.workloads import Workload

HEADER = struct.Struct("<I")
GOODBYE = 0xFFFFFFFF
"""Session number of the last message to each peer: NNG throws away what is queued when a socket is closed."""
QUEUE_DEPTH = 8192
"""Messages, each way: the most that NNG allows."""
VIEWED_SIZE_MIN = 64 * 1024
"""From here on a payload is a view of the message that NNG gave us, and below a copy, which is cheaper then."""


class PairChannel(TurnMailbox):
    """One session over the sockets of its party."""

    __slots__ = ("_descriptors", "_header", "_pairs", "_waiting_for_room")

    def __init__(
        self,
        session: int,
        place: Place,
        turns: Turns,
        pairs: dict[int, pynng.Pair0],
        descriptors: select.poll,
        waiting_for_room: dict[int, list[Coroutine[object, None, None]]],
    ) -> None:
        super().__init__(place.parties, turns)
        self._header = HEADER.pack(session)
        self._pairs = pairs
        self._descriptors = descriptors
        self._waiting_for_room = waiting_for_room

    async def send(self, peer: int, value: bytes) -> None:
        message = self._header + value
        while True:
            try:
                self._pairs[peer].send(message, block=False)
                return
            except pynng.TryAgain:
                descriptor = self._pairs[peer].send_fd
                self._descriptors.register(descriptor, select.POLLIN)  # readable says that one can send
                self._waiting_for_room.setdefault(descriptor, []).append(self._turns.current)
                await park()


class PairParty:
    """One party: a socket for each peer, and its sessions as coroutines."""

    def __init__(self, place: Place, work: Workload, stack: contextlib.ExitStack) -> None:
        self._place = place
        self._work = work
        self._turns = Turns()
        self._waiting_for_room: dict[int, list[Coroutine[object, None, None]]] = {}
        """Sessions by the descriptor that says that one can send."""
        self._peers_gone: set[int] = set()
        """Those who said goodbye, and those whose connection has ended (told by a thread of NNG)."""
        self._pairs: dict[int, pynng.Pair0] = {}
        self._descriptors = select.poll()
        self._receiving: dict[int, int] = {}
        """Peers by the descriptor that says that one can receive."""
        for peer, connected in meet(place).items():
            pair = stack.enter_context(
                pynng.Pair0(send_buffer_size=QUEUE_DEPTH, recv_buffer_size=QUEUE_DEPTH, recv_max_size=0)
            )
            pair.add_post_pipe_remove_cb(lambda _, peer=peer: self._peers_gone.add(peer))
            listener = pair.listen("socket://")
            options._setopt_int(listener, "socket:fd", connected.detach())  # NNG closes it
            self._pairs[peer] = pair
            self._receiving[pair.recv_fd] = peer
            self._descriptors.register(pair.recv_fd, select.POLLIN)
        self._channels = [
            PairChannel(session, place, self._turns, self._pairs, self._descriptors, self._waiting_for_room)
            for session in range(work.sessions)
        ]

    def play(self, units: int) -> list[list[int]]:
        """As in `OpenParty`."""
        plays, latencies = plays_of(self._work, self._place.party, self._channels, units)
        turns = self._turns
        turns.start(plays)
        while True:
            turns.run()
            if not turns.unfinished_count:
                return latencies
            wait_s = turns.wait_s()
            self._receive(None if wait_s is None else math.ceil(wait_s * 1000))

    def _receive(self, timeout_ms: int | None) -> None:
        """Deliver what has come; wait for it, or for room in a full queue, up to the timeout (None: for good)."""
        for descriptor, _ in self._descriptors.poll(timeout_ms):
            peer = self._receiving.get(descriptor)
            if peer is not None:
                self._receive_from(peer)
            else:
                self._descriptors.unregister(descriptor)
                self._turns.ready.extend(self._waiting_for_room.pop(descriptor))

    def _receive_from(self, peer: int) -> None:
        pair, channels, unpack_from, header_size = self._pairs[peer], self._channels, HEADER.unpack_from, HEADER.size
        try:
            while True:
                message = pair.recv(block=False)
                (session,) = unpack_from(message)
                if session == GOODBYE:
                    self._peers_gone.add(peer)
                elif len(message) < VIEWED_SIZE_MIN:
                    channels[session].deliver(peer, message[header_size:])
                else:
                    # A view is as good as bytes to every workload, and would be copied to make it bytes.
                    channels[session].deliver(peer, cast("bytes", memoryview(message)[header_size:]))
        except pynng.TryAgain:
            return

    def leave(self) -> None:
        """Say goodbye to everybody, and stay until everybody has said it or is gone: nobody still needs our messages.

        Our own goodbye may be lost when we close; the end of the connection says the same.
        """
        for pair in self._pairs.values():
            pair.send(HEADER.pack(GOODBYE))
        deadline = time.monotonic() + CONNECT_TIMEOUT_S
        while len(self._peers_gone) < len(self._pairs):
            if time.monotonic() > deadline:
                raise TimeoutError(f"no goodbye within {CONNECT_TIMEOUT_S:.0f} s: did another party fail?")
            self._receive(10)  # the end of a connection does not wake us


@contextlib.contextmanager
def open_party(place: Place, work: Workload) -> Iterator[PairParty]:
    with contextlib.ExitStack() as stack:
        party = PairParty(place, work, stack)
        yield party
        party.leave()
