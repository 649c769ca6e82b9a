"""The rival: torch.distributed with the gloo backend over TCP, one rank a party, tag = session.

A message is a tensor of bytes, `length u32 | payload`, sent by `isend` and received by `irecv` into a buffer that its
session keeps for the peer: what `recv` returns is a view of it, good until the session's next message from this peer.
The length is there because gloo tells the sender's size to nobody.

gloo cannot say which of many works is done, only wait for one. Up to a few sessions each is a thread that waits for
its own. Many take turns in one thread, which is faster: always the one that has waited least often so far goes on next,
so that sessions which do the same advance side by side at every party and nobody waits for somebody who waits for him.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import struct
import threading
import time
import types
from collections import deque
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
import torch.distributed

from partywire.perf.contender import CONNECT_TIMEOUT_S, NotOffered
from partywire.perf.mailboxes import plays_of

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator, Iterator

    from partywire.perf.contender import Place
    from partywire.perf.workloads import Workload

LENGTH = struct.Struct("<I")
MESSAGE_SIZE_MAX = 4 * 1024 * 1024
"""Of a receive buffer. Memory that no message touches costs nothing."""
SENDS_UNDER_WAY_MAX = 16
"""For each session and peer. A send is over when its receive has been posted, so with few of them parties that all
send some messages ahead would wait for one another."""
THREADS_MAX = 8
WAIT_TIMEOUT = timedelta(minutes=5)

# torch's own hints do not know all of what its documentation offers.
distributed: Any = torch.distributed


class Work(Protocol):
    """What one can wait for, of torch or of ours."""

    def wait(self) -> object: ...


class Sleep:
    """Waiting for nothing but time."""

    def __init__(self, seconds: float) -> None:
        self._due = time.monotonic() + seconds

    def wait(self) -> None:
        time.sleep(max(0.0, self._due - time.monotonic()))


@types.coroutine
def waited_for(work: Work) -> Generator[Work, None, None]:
    """Have whoever runs the coroutine wait for this before it goes on."""
    yield work


class TagChannel:
    """One session: its number is the tag of its messages."""

    def __init__(self, session: int) -> None:
        self._session = session
        self._sends: dict[int, deque[tuple[Work, torch.Tensor]]] = {}  # by peer: works, and the tensors that they send
        self._buffers: dict[int, tuple[torch.Tensor, memoryview]] = {}  # by peer: the tensor, and the same memory

    async def send(self, peer: int, value: bytes) -> None:
        sends = self._sends.get(peer)
        if sends is None:
            sends = self._sends[peer] = deque()
        if len(sends) == SENDS_UNDER_WAY_MAX:
            await waited_for(sends.popleft()[0])
        tensor = torch.frombuffer(bytearray(LENGTH.pack(len(value)) + value), dtype=torch.uint8)
        sends.append((distributed.isend(tensor, peer, tag=self._session), tensor))

    async def recv(self, peer: int) -> bytes:
        if peer not in self._buffers:
            tensor = torch.empty(LENGTH.size + MESSAGE_SIZE_MAX, dtype=torch.uint8)
            array: Any = tensor.numpy()
            self._buffers[peer] = tensor, memoryview(array)
        tensor, view = self._buffers[peer]
        await waited_for(distributed.irecv(tensor, peer, tag=self._session))
        (length,) = LENGTH.unpack_from(view)
        return cast("bytes", view[LENGTH.size : LENGTH.size + length])

    async def sleep(self, seconds: float) -> None:
        await waited_for(Sleep(seconds))

    def wait_for_sends(self) -> None:
        """Returns when everything that was sent has left."""
        for sends in self._sends.values():
            while sends:
                sends.popleft()[0].wait()


class TagParty:
    """One rank, with its sessions."""

    def __init__(self, party: int, work: Workload) -> None:
        """In a process in which torch's process group stands."""
        self._party = party
        self._work = work
        self._channels = [TagChannel(session) for session in range(work.sessions)]

    def play(self, units: int) -> list[list[int]]:
        """As in `OpenParty`."""
        plays, latencies = plays_of(self._work, self._party, self._channels, units)
        run_in_turns(plays) if len(plays) > THREADS_MAX else run_in_threads(plays)
        for channel in self._channels:
            channel.wait_for_sends()
        return latencies


def run_in_threads(plays: list[Coroutine[Any, Any, None]]) -> None:
    """Each in a thread of its own; raises the first of their exceptions, if any."""
    errors: list[BaseException] = []

    def run(play: Coroutine[Any, Any, None]) -> None:
        try:
            while True:
                play.send(None).wait()
        except StopIteration:
            pass
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(play,), daemon=True) for play in plays[1:]]
    for thread in threads:
        thread.start()
    run(plays[0])
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def run_in_turns(plays: list[Coroutine[Any, Any, None]]) -> None:
    """All in this thread; the one with the fewest waits behind it is waited for next."""
    waiting: list[tuple[int, int, Work]] = []
    for session, play in enumerate(plays):
        with contextlib.suppress(StopIteration):
            waiting.append((0, session, play.send(None)))
    while waiting:
        waits, session, work = waiting[0]
        work.wait()
        try:
            heapq.heapreplace(waiting, (waits + 1, session, plays[session].send(None)))
        except StopIteration:
            heapq.heappop(waiting)


@contextlib.contextmanager
def open_party(place: Place, work: Workload) -> Iterator[TagParty]:
    if place.dial_ports != place.ports:
        raise NotOffered("gloo connects its ranks over ports of its own choice, past an emulated link")
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    timeout = timedelta(seconds=CONNECT_TIMEOUT_S)
    if place.party == 0:
        store = distributed.TCPStore(
            "127.0.0.1", place.ports[0], is_master=True, master_listen_fd=place.listener.detach(),
            wait_for_workers=False, timeout=timeout,
        )  # fmt: skip
    else:
        place.listener.close()
        store = distributed.TCPStore("127.0.0.1", place.ports[0], is_master=False, timeout=timeout)
    distributed.init_process_group(
        "gloo", store=store, rank=place.party, world_size=place.parties, timeout=WAIT_TIMEOUT
    )
    party = TagParty(place.party, work)
    yield party
    distributed.barrier()
    distributed.destroy_process_group()
