"""A further worker of a simulated party: the real worker and its real share of batches, under a simulated loop.

Between the simulated supervisor (Lanes, Close, deaths), the opener (a real channel, over a real socket pair) and the
I/O processes (rings and doorbells). Real is everything of `ChildWorker` but the loop around it, which waits natively
in a process of its own and is played here by its asyncio twin.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

from partywire.engine.control_socket import close_all
from partywire.shm import fence
from partywire.workers.channel import Channel
from partywire.workers.child_worker import ChildWorker
from partywire.workers.errors import PartyFailed, WorkerDied
from partywire.workers.waiting import LoopDriver
from partywire.workers.worker import Worker

from .loop import SimLoop

if TYPE_CHECKING:
    from partywire.engine.commands import Message

    from .family import Family


class SimChild:
    """One life of it."""

    def __init__(self, family: Family, index: int, incarnation: int) -> None:
        from .family import SimDoorbell

        config = family.party.config
        self.index = index
        self.family = family
        self.loop = SimLoop(family.world, f"{family.name}/worker{index}.{incarnation}")
        self.is_over = False
        ours, theirs = socket.socketpair()
        self.opener_end = ours.detach()
        """For the opener; its owner closes it."""
        eventfd, page = (os.dup(fd) for fd in family.doorbells[index].fds)
        doorbell = SimDoorbell.from_fds(eventfd, page, fence.probe())
        self.worker = Worker(
            config.spec,
            doorbell,
            fence.probe(),
            index=index,
            workers=config.workers,
            inbox_size_max=config.inbox_mib << 20,
            message_size_max=family.options.message_size_max,
        )
        self.worker.clock = self.loop.time
        self.child = ChildWorker(self.worker, Channel(theirs), None)
        self._task = self.loop.create_task(self._run())
        self._task.add_done_callback(self._ended)

    async def _run(self) -> None:
        """What worker_main.serve and ChildWorker.run do."""
        worker, child = self.worker, self.child
        driver = LoopDriver(worker, self.loop)
        driver.attach()
        worker.watch(child._channel.fileno(), self._take_messages)
        try:
            while not worker.is_closing and child._has_opener:
                child._obey_stops()
                try:
                    await child._scheduler.run_async(self._must_look)
                except WorkerDied:
                    worker.lost_workers.clear()
            await worker.finish(worker.clock() + self.family.options.close_timeout_s)
        except PartyFailed:
            pass
        finally:
            worker.unwatch(child._channel.fileno())
            driver.detach()

    def _take_messages(self) -> None:
        self.child._take_messages()
        self.child._scheduler.notify()  # a native run looks at its condition after every sleep

    def _must_look(self) -> bool:
        return self.worker.is_closing or not self.child._has_opener or self.child._stop is not None

    def _ended(self, task: Any) -> None:
        if not task.cancelled() and task.exception() is not None:
            self.loop.bugs.append(task.exception())
        if not self.loop.is_dead:
            self.is_over = True
            self.close()
            self.family.supervisor.on_child_end(self, "")

    def take_command(self, message: Message, fds: list[int]) -> None:
        """What the supervisor passed on has arrived."""
        if self.is_over or self.loop.is_dead:
            close_all(fds)
            return
        self.worker.commands.take(message, fds)
        self.child._scheduler.notify()
        if self.worker.loop_driver is not None:
            self.worker.loop_driver.schedule()

    def kill(self) -> None:
        """SIGKILL. The kernel closes its end of the channel."""
        self.loop.kill()
        if not self.is_over:
            self.child._channel.close()

    def close(self) -> None:
        """Give everything back."""
        self.child.close()
        self.worker.close()

    def tear_down(self) -> None:
        self.loop.tear_down()
        if not self.is_over:
            self.close()
