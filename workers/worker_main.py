"""The program of a child worker process. Started by the supervisor, with the descriptor of its control socket.

Its one rule is an order: the memory barrier is registered and BLAS held to one thread before numpy is imported.
"""

from __future__ import annotations

import gc
import os

from partywire.engine.child_process import begin_child
from partywire.engine.control_socket import ControlClosed, ControlSocket
from partywire.shm import fence

WELCOME_TIMEOUT_S = 60.0

BLAS_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def hold_blas_to_one_thread() -> None:
    """One core per compute process, unless the user has said otherwise. Has an effect before numpy is imported only."""
    for name in BLAS_VARIABLES:
        os.environ.setdefault(name, "1")


def main() -> None:
    gc.disable()  # while there is only what was imported, as in engine/program.py
    control_fd = begin_child()
    fence.register()
    hold_blas_to_one_thread()
    serve(ControlSocket.from_fd(control_fd, "the supervisor"))


def serve(control: ControlSocket) -> None:
    """Be the worker that the supervisor describes, until it says Close."""
    import socket

    from .channel import Channel
    from .child_worker import ChildWorker
    from .party import CHILD_VARIABLE
    from .stat_publish import worker_publisher
    from .waiting import run_blocking
    from .worker import Worker

    gc.freeze()
    gc.enable()
    os.environ[CHILD_VARIABLE] = "1"  # a script that opens its party without a guard must not do so again here
    try:
        worker, welcome, fds = Worker.from_control_socket(control, WELCOME_TIMEOUT_S)
    except ControlClosed:
        control.close()
        return
    worker.on_command = worker_publisher(worker).take
    child = ChildWorker(worker, Channel(socket.socket(fileno=fds[0])), welcome.main_path)
    try:
        child.run()
        if worker.failure is None:
            run_blocking(worker, worker.finish(worker.clock() + welcome.options.close_timeout_s))
    finally:
        child.close()
        worker.close()


if __name__ == "__main__":
    main()
