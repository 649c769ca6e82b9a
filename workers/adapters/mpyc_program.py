"""Runs an ordinary MPyC program, unchanged, over PartyWire.

Between the command line and the program, which imports MPyC whenever and however it likes. The one invariant: until it
does, and in everything but the way in which messages travel, the program finds what it would find if Python had been
given it directly: its arguments, its folder in front of the module path, itself as `__main__`.

With `-M3` and no `-I`, MPyC starts the other parties itself, with the command line that it finds in `sys.argv`. While
it does, that is the command line of this module, so that they come here as well.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import runpy
import sys
from typing import TYPE_CHECKING, Final

from partywire.engine.errors import PartyWireError

from .mpyc_config import CONNECT_S_MAX, CONNECT_S_MIN, INBOX_MIB_MAX, MpycSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

RUNTIME: Final = "mpyc.runtime"

MODULE: Final = "partywire.workers.adapters.mpyc"
"""What the other parties are started as: `python -m ...`."""


def main() -> None:
    """`python -m partywire.workers.adapters.mpyc`: `partywire mpyc` without the other commands, and without what reads
    a command line if this one is as `command_line` writes it: so are those of the parties that MPyC starts."""
    read = read_command_line(sys.argv[1:])
    if read is None:
        from ..cli_mpyc import main as read_and_run

        read_and_run()
        return
    try:
        code = run_to_end(*read)
    except PartyWireError as error:
        from ..exit_code import code_of, sentence_of

        print(f"partywire: {sentence_of(error)}", file=sys.stderr)
        if os.environ.get("PARTYWIRE_DEBUG"):
            raise
        code = int(code_of(error))
    except KeyboardInterrupt:
        from ..exit_code import ExitCode

        code = int(ExitCode.INTERRUPTED)
    sys.exit(code)


def run_to_end(program: str, arguments: Sequence[str], settings: MpycSettings) -> int:
    """Run the program in a file. Returns the exit code; a traceback of the program is on stderr then.

    Raises:
        PartyWireError: there is no such program, no MPyC, or why it cannot go on.
    """
    if not os.path.isfile(program):
        from ..exit_code import UsageMistake

        raise UsageMistake(f"there is no program {program}")
    try:
        run_program(program, arguments, settings)
    except PartyWireError:
        raise
    except Exception as error:
        return _end_of(error)
    return 0


def _end_of(error: Exception) -> int:
    import traceback

    from ..exit_code import ExitCode, UsageMistake

    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == "mpyc":
        raise UsageMistake("MPyC is not installed: pip install 'partywire[mpyc]'") from error
    traceback.print_exception(error)  # the program's own, which Python would show like this
    return int(ExitCode.JOB)


def run_program(program: str, arguments: Sequence[str], settings: MpycSettings) -> None:
    """Run the program in a file as the main script, until it ends. What it raises is raised."""
    hook = RuntimeHook([MODULE, *command_line(settings), program], settings)
    before = sys.argv, sys.path[:]
    sys.argv = [program, *arguments]
    if not sys.flags.safe_path:
        sys.path[0] = os.path.dirname(os.path.abspath(program))
    sys.meta_path.insert(0, hook)
    try:
        runpy.run_path(program, run_name="__main__")
    finally:
        sys.meta_path.remove(hook)
        sys.argv, sys.path[:] = before


class RuntimeHook(importlib.abc.MetaPathFinder):
    """Finds MPyC's runtime as Python would, and changes it when it is loaded."""

    def __init__(self, prefix: Sequence[str], settings: MpycSettings) -> None:
        """`prefix` is what stands between `python -m` and the program's own arguments."""
        self._prefix = list(prefix)
        self._settings = settings

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The specification of MPyC's runtime; None for every other module."""
        if name != RUNTIME:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._load)
        return spec

    def _load(self, execute: Callable[[], None], module: ModuleType) -> None:
        from .mpyc import patch

        arguments = sys.argv[1:]
        if {"-h", "--help", "-H", "--HELP", "-V", "--VERSION"}.isdisjoint(arguments):
            # MPyC starts the other parties with `python [flags] *sys.argv`, and takes its options out of sys.argv.
            program, sys.argv = sys.argv[0], ["-m", *self._prefix, *arguments]
            try:
                execute()
                if sys.argv[1 : 1 + len(self._prefix)] != self._prefix:
                    raise RuntimeError("this release of MPyC reads its command line in a way that is not known here")
            finally:
                sys.argv = [program, *sys.argv[1 + len(self._prefix) :]]
        else:
            execute()
        patch(module.Runtime, self._settings)


class _Loader(importlib.abc.Loader):
    """Loads the module by its own loader, which is what the module has afterwards."""

    def __init__(self, loader: importlib.abc.Loader, load: Callable[[Callable[[], None], ModuleType], None]) -> None:
        self._loader = loader
        self._load = load

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._load(lambda: self._loader.exec_module(module), module)


def read_command_line(words: Sequence[str]) -> tuple[str, Sequence[str], MpycSettings] | None:
    """Program, arguments and settings, if they are said as `command_line` does it; None means: ask `cli_mpyc`."""
    found: dict[str, object] = {}
    try:
        for at, word in enumerate(words):
            name, _, value = word.partition("=")
            if not word.startswith("-"):
                return word, words[at + 1 :], MpycSettings(**found)  # type: ignore[arg-type]
            if word == "--insecure":
                found["insecure"] = True
            elif name == "--connect-s" and CONNECT_S_MIN <= float(value) <= CONNECT_S_MAX:
                found["connect_s"] = float(value)
            elif name == "--inbox-mib" and 1 <= int(value) <= INBOX_MIB_MAX:
                found["inbox_mib"] = int(value)
            elif word in ("--io=in-process", "--io=processes"):
                found["io"] = value
            else:
                break
    except ValueError:
        pass
    return None


def command_line(settings: MpycSettings) -> list[str]:
    """The options of `partywire mpyc` that stand for the settings."""
    words = ["--insecure"] if settings.insecure else []
    if settings.connect_s is not None:
        words.append(f"--connect-s={settings.connect_s}")
    if settings.io is not None:
        words.append(f"--io={settings.io}")
    return [*words, f"--inbox-mib={settings.inbox_mib}"]
