"""Parties in network namespaces of their own, with a cable between each two of them that can be pulled.

    alice --- bob       every cable is a veth pair with a network of its own; nothing is attached to the
       \\      /         namespace of the host, so no packet can leave it
       charlie

Needs root and iproute2; `why_not` says what is missing. Whatever happens in the block, behind it the namespaces are
gone.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

COMMAND_TIMEOUT_S = 20.0


def why_not() -> str:
    """Why namespaces cannot be made here; empty if they can."""
    if shutil.which("ip") is None:
        return "iproute2 is not installed"
    name = f"pw{os.getpid()}-try"
    made = _ip("netns", "add", name)
    if made.returncode:
        return f"network namespaces cannot be made ({made.stderr.strip()}); this test needs root"
    cable = _ip("-n", name, "link", "add", "name", "try0", "type", "veth", "peer", "name", "try1")
    _ip("netns", "del", name)
    return f"virtual cables cannot be made ({cable.stderr.strip()})" if cable.returncode else ""


def _ip(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["ip", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)


class Network:
    """Namespaces named by `names`, joined each to each, from `with` to its end."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._prefix = f"pw{os.getpid()}-"

    def __enter__(self) -> Self:
        try:
            for name in self._names:
                self._do("netns", "add", self._prefix + name)
                self._do("-n", self._prefix + name, "link", "set", "lo", "up")
            for number, (one, other) in enumerate(itertools.combinations(self._names, 2)):
                ours, theirs = self._prefix + one, self._prefix + other
                self._do(
                    *("link", "add", "name", f"to-{other}", "netns", ours, "type", "veth"),
                    *("peer", "name", f"to-{one}", "netns", theirs),
                )
                for namespace, device, host in ((ours, f"to-{other}", 1), (theirs, f"to-{one}", 2)):
                    self._do("-n", namespace, "addr", "add", f"198.18.{number}.{host}/24", "dev", device)
                    self._do("-n", namespace, "link", "set", device, "up")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for name in self._names:
            _ip("netns", "del", self._prefix + name)

    def address(self, whom: str, seen_by: str) -> str:
        """The address of `whom` on the cable to `seen_by`."""
        for number, pair in enumerate(itertools.combinations(self._names, 2)):
            if {whom, seen_by} == set(pair):
                return f"198.18.{number}.{1 + pair.index(whom)}"
        raise ValueError(f"there is no cable between {whom} and {seen_by}")

    def command(self, name: str, command: Sequence[str]) -> list[str]:
        """`command`, to be run at `name`."""
        return ["ip", "netns", "exec", self._prefix + name, *command]

    def pull(self, one: str, other: str) -> None:
        """Pull the cable between two."""
        self._do("-n", self._prefix + one, "link", "set", f"to-{other}", "down")

    def plug_in(self, one: str, other: str) -> None:
        """Put it back."""
        self._do("-n", self._prefix + one, "link", "set", f"to-{other}", "up")

    @staticmethod
    def _do(*arguments: str) -> None:
        done = _ip(*arguments)
        if done.returncode:
            raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
