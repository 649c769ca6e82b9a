"""A test-only child worker: echoes every byte of its lanes back to the peer it came from, and ends when told to."""

from __future__ import annotations

import os
import select
import sys
from contextlib import ExitStack

from partywire.engine import records
from partywire.engine.child_process import begin_child
from partywire.engine.commands import Close, Lanes, Welcome
from partywire.engine.control_socket import ControlClosed, ControlSocket
from partywire.engine.frames import encode_goodbye
from partywire.shm import fence
from partywire.shm.doorbell import Doorbell
from tests.support.family import TestLane, attach_lanes


def echo(lanes: list[TestLane]) -> None:
    for lane in lanes:
        lane.read()
        while lane.received:
            part = bytes(lane.received[: lane.tx.record_size_max])
            if not lane.tx.try_write([part], len(part), records.DATA):
                lane.tx.request_space()
                break
            lane.tx.publish()
            del lane.received[: len(part)]


def finish(lanes: list[TestLane]) -> None:
    goodbye = encode_goodbye()
    for lane in lanes:
        lane.tx.try_write([goodbye], len(goodbye), records.DATA)
        lane.tx.try_write([], 0, records.FINISH)
        lane.tx.publish()


def main() -> None:
    fence.register()
    control = ControlSocket.from_fd(begin_child(), "the supervisor")
    with ExitStack() as stack, control:
        welcome, fds = control.receive(30)
        assert isinstance(welcome, Welcome)
        fence_ = fence.probe()
        doorbell = stack.enter_context(Held(Doorbell.from_fds(fds[0], fds[1], fence_)))
        os.write(fds[2], b"worker %d is here" % welcome.worker)
        os.close(fds[2])
        lanes: list[TestLane] = []
        poller = select.poll()
        poller.register(control, select.POLLIN)
        poller.register(doorbell.bell, select.POLLIN)
        while True:
            doorbell.bell.arm()
            echo(lanes)
            poller.poll(1000)
            doorbell.bell.disarm()
            doorbell.bell.drain()
            try:
                while (received := control.try_receive()) is not None:
                    message, fds = received
                    if isinstance(message, Lanes):
                        lanes += attach_lanes(stack, message, fds, fence_)[0].values()
                    elif isinstance(message, Close):
                        echo(lanes)
                        finish(lanes)
                        return
            except ControlClosed:
                sys.exit(3)


class Held:
    """A doorbell as a context manager."""

    def __init__(self, bell: Doorbell) -> None:
        self.bell = bell

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self.bell.close()

    def fileno(self) -> int:
        return self.bell.fileno()


if __name__ == "__main__":
    main()
