"""Memory that is paid for when it is used."""

from __future__ import annotations

from pathlib import Path

from partywire.shm.blank_pages import blank_pages

MIB = 1024 * 1024


def resident() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def test_pages_are_zeros_and_can_be_written_to_the_last_byte() -> None:
    pages = blank_pages(10_001)
    assert (len(pages), pages.readonly, bytes(pages)) == (10_001, False, bytes(10_001))
    pages[10_000] = 7
    assert pages[-1] == 7


def test_what_is_not_used_takes_no_memory_and_what_was_used_is_given_back() -> None:
    before = resident()
    unused = [blank_pages(4 * MIB) for _ in range(64)]
    assert resident() - before < 32 * MIB
    for pages in unused[:16]:
        pages[:] = bytes(4 * MIB)
    assert resident() - before > 48 * MIB
    del pages, unused
    assert resident() - before < 32 * MIB
