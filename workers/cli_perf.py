"""`partywire perf`: the measurements, which live above this folder in `partywire.perf`.

The one invariant: nothing of them is imported, or even looked for, before somebody asks for this command, so that the
other commands pay nothing and the folders keep their one direction.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

MODULE = "partywire.perf.command"


class PerfCommand(click.Command):
    """Stands for the real command in the list of all; gives way to it when it is called, for its help too."""

    def __init__(self) -> None:
        super().__init__("perf", short_help="Measure PartyWire beside other libraries, on this machine.")

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        command: click.Command = import_module(MODULE).perf_command
        return command.make_context(info_name, args, parent, **extra)
