"""Sizes between real parties: messages at their limits, inboxes that are full, ten thousand sessions.

`make large` runs what is marked as large. Each party runs tests/workers/sizes_program.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from partywire.engine.limits import MESSAGE_SIZE_MAX
from partywire.workers.hot import IS_COMPILED
from tests.workers.party_cast import Cast

PROGRAM = "tests.workers.sizes_program"
MIB = 1 << 20
GIB = 1 << 30
LARGE_WATCHDOG_S = 900.0


@pytest.mark.slow
def test_limits_hold_to_the_byte_and_name_the_setting() -> None:
    with Cast(PROGRAM) as cast:
        alice, bob = cast.play("limits", 2)
    assert (alice["in place"], bob["in place"]) == (True, True)
    assert alice["over"] == (
        f"MessageTooLarge: session 0: a message of {48 * MIB + 1} bytes to bob is above the limit of {48 * MIB}, "
        "the smaller limits.message_mib of the two parties; raise it there, or send pieces"
    )
    assert (alice["full"], bob["full"]) == (True, True)
    for number, name, size in ((2, "flood", 48 * MIB), (4, "fuller", 32 * MIB - 128 + 1)):
        reason = (
            f"session {number}: a message of {size} bytes from alice does not fit into the inbox, which holds "
            f"{32 * MIB} bytes of what nobody has received. Receive earlier, send less ahead, or raise limits.inbox_mib"
        )
        assert bob[name] == f"InboxOverflow: {reason}"
        assert alice[name] == f"PeerAborted: bob gave up session {number}: {reason}"
    assert (alice["inbox"], bob["inbox"]) == (0, 0)


def test_a_receiver_that_has_stopped_bounds_what_its_sender_holds() -> None:
    with Cast(PROGRAM) as cast:
        cast.start("stopped_receiver", 2)
        cast.wait_until_ready()
        cast.hear(0)
        cast.let_go(1)
        answers = cast.answers()
        cast.check_nothing_left()
    alice, bob = answers[0], answers[1]
    assert (alice["error"], bob["error"]) == ("SessionTimeout", "PeerAborted")
    rings, kernel, cut = 2 * 4, tcp_buffers_mib(), 1  # the sender's and the receiver's ring
    assert bob["received"] <= alice["sent"] <= rings + kernel + cut
    # Of these its own ring, which two processes have mapped; 1 MiB in the making, and what malloc keeps of others.
    assert alice["grown"] <= (2 * 4 + 8) * MIB


def tcp_buffers_mib() -> int:
    """The most that the kernel holds for one direction of a connection."""
    sizes = (Path(f"/proc/sys/net/ipv4/{name}").read_text().split()[2] for name in ("tcp_rmem", "tcp_wmem"))
    return sum(-(-int(size) // MIB) for size in sizes)


@pytest.mark.slow
def test_ten_thousand_sessions_with_a_message_each_way_in_flight_on_all() -> None:
    with Cast(PROGRAM) as cast:
        for answer in cast.play("ten_thousand_sessions", 3):
            assert answer["ids"] == 10_000
            assert answer["wrong"] == []
            assert answer["inbox"] == 0
            assert answer["bytes per session"] < 6 * 1024  # perf/idle.py has the target


# What takes minutes.


def check_memory() -> None:
    """Both parties hold the message, and plain Python a copy of it."""
    available = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable"))
    needed = 10 if IS_COMPILED else 16
    if int(available.split()[1]) * 1024 < needed * GIB:
        pytest.skip(f"needs {needed} GiB of free memory")


@pytest.mark.large
@pytest.mark.timeout(LARGE_WATCHDOG_S)
def test_the_largest_message_travels_as_bytes_both_ways() -> None:
    check_memory()
    with Cast(PROGRAM, LARGE_WATCHDOG_S) as cast:
        alice, bob = cast.play("largest_bytes", 2)
    assert (alice["right"], bob["right"], bob["alive"]) == (True, True, True)
    above = f"is above the {MESSAGE_SIZE_MAX} bytes that any message can have; send pieces"
    assert alice["over"] == f"MessageTooLarge: session 0: a message of {MESSAGE_SIZE_MAX + 1} bytes to bob {above}"
    assert alice["bits"].startswith(f"MessageTooLarge: session 0: a message of {2**29} bytes to bob is above")
    if IS_COMPILED:
        assert max(alice["peak"], bob["peak"]) < 4.5 * GIB


@pytest.mark.large
@pytest.mark.timeout(LARGE_WATCHDOG_S)
def test_the_largest_array_travels_into_the_receivers_own_memory() -> None:
    check_memory()
    with Cast(PROGRAM, LARGE_WATCHDOG_S) as cast:
        alice, bob = cast.play("largest_array", 2)
    assert (alice["right"], bob["right"]) == (True, True)
    assert max(alice["peak"], bob["peak"]) < 4.5 * GIB
