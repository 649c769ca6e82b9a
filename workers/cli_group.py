"""The commands of `partywire` by name, each imported when somebody asks for it.

What one command needs (`check` a whole I/O process, `stat` its tables) the others need not wait for.
"""

from __future__ import annotations

from importlib import import_module
from typing import Final

import click

COMMANDS: Final = {
    "run": ("cli_run", "JobGroup"),
    "init": ("cli_init", "init_command"),
    "keygen": ("cli_keygen", "keygen_command"),
    "check": ("cli_check", "check_command"),
    "serve": ("cli_serve", "serve_command"),
    "stat": ("cli_stat", "stat_command"),
    "top": ("cli_top", "top_command"),
    "mpyc": ("cli_mpyc", "mpyc_command"),
    "node": ("cli_node", "node_command"),
    "peers": ("cli_peers", "peers_command"),
    "perf": ("cli_perf", "PerfCommand"),
}
"""Name -> the module of this folder and in it the command, or the class of it."""


class CommandGroup(click.Group):
    """A group whose commands are those of COMMANDS."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name]
        found = getattr(import_module(f"partywire.workers.{module}"), name)
        command: click.Command = found() if isinstance(found, type) else found
        return command
