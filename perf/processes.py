"""What a whole family of processes holds in memory, read from /proc while it runs."""

from __future__ import annotations

from pathlib import Path


def descendants(root: int) -> list[int]:
    """`root` and every process below it, however deep; processes that end meanwhile are simply not in the list."""
    found, unseen = [], [root]
    while unseen:
        pid = unseen.pop()
        found.append(pid)
        try:
            tasks = list(Path(f"/proc/{pid}/task").iterdir())
        except OSError:
            continue
        for task in tasks:
            try:
                unseen.extend(int(child) for child in (task / "children").read_text().split())
            except OSError:
                continue
    return found


def pss_bytes(pids: list[int]) -> int:
    """Proportional set size of all of them: memory shared among n processes counts 1/n in each, so once in the sum."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total
