"""Every test leaves this process as it found it: no child, socket, eventfd, epoll, pidfd or shared memory is left over.

The check runs around each test of every folder, so that a leak is reported by the test that made it and not by the
one that ran out of descriptors.
"""

from __future__ import annotations

import gc
import os
import select
import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

WATCHED_TARGETS = ("socket:", "anon_inode:[event", "anon_inode:[pidfd]", "/dev/shm/", "/memfd:")
GRACE_S = 10.0

gc.disable()  # until all tests are collected: none of them is garbage

# Two cores shared by all xdist workers: a slow example says nothing about the code. Examples are derived from the
# test's name, so that two runs of one commit try the same ones; `--hypothesis-seed` draws others.
settings.register_profile("partywire", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("partywire")

# A shell starts what it puts into the background with SIGINT ignored, and children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# What tests write, others may not: parties refuse a configuration or certificate that everybody can change.
os.umask(0o022)


def open_descriptors() -> dict[str, str]:
    """The descriptors of this process that the engine could have opened: number -> what it is."""
    found = {}
    for entry in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{entry}")
        except OSError:
            continue  # the descriptor of the listing itself
        if target.startswith(WATCHED_TARGETS):
            found[entry] = target
    return found


def living_children() -> set[int]:
    """Child processes of any thread of this process, zombies included."""
    children: set[int] = set()
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/children", "rb", buffering=0) as file:
                children.update(map(int, file.readall().split()))
        except OSError:
            continue  # the thread ended while we looked
    return children


def wait_for_end(pid: int) -> bool:
    """Whether `pid` ends (it may already be a zombie) within the grace time."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        return bool(poller.poll(GRACE_S * 1000))
    finally:
        os.close(pidfd)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Three for two cores, by `-n auto`: a worker that waits for processes, as many tests do, leaves a core unused."""
    cores = len(os.sched_getaffinity(0))
    return cores + (cores + 1) // 2


def pytest_collection_finish() -> None:
    """Take the thousands of collected tests out of what each test's `gc.collect` walks through (80 ms of 82)."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    descriptors_before = open_descriptors()
    children_before = living_children()
    yield
    gc.collect()
    gc.freeze()  # what is left is none of the next tests' garbage, and each of them would walk through it again
    leaked = {fd: what for fd, what in open_descriptors().items() if descriptors_before.get(fd) != what}
    children = living_children() - children_before
    running = sorted(pid for pid in children if not wait_for_end(pid))
    handler = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert handler is signal.default_int_handler, f"the test left Ctrl-C to {handler}"
    assert not running, f"the test left child processes running: {running}"
    assert not children, f"the test left children that nobody reaped: {sorted(children)}"
    assert not leaked, f"the test left descriptors open: {leaked}"
    named = [name for name in os.listdir("/dev/shm") if name.startswith(f"partywire-{os.getpid()}-")]
    assert not named, f"the test left names in /dev/shm: {named}"
