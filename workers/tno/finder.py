"""Where `import tno.mpc.communication` finds our modules.

Between Python's import system and the modules of this folder. The one invariant: a program sees either our modules
under those names or those of the package that is installed, never some of each.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

PACKAGE: Final = "tno.mpc.communication"

MODULES: Final = {
    PACKAGE: "communication",
    f"{PACKAGE}.pool": "pool",
    f"{PACKAGE}.httphandlers": "httphandlers",
    f"{PACKAGE}.serialization": "serialization",
    f"{PACKAGE}.exceptions": "exceptions",
    f"{PACKAGE}.functions": "functions",
    f"{PACKAGE}.test": "fixtures",
    f"{PACKAGE}.test.pool_fixtures_http": "fixtures",
}

PACKAGES_WITH_PARTS: Final = frozenset({PACKAGE, f"{PACKAGE}.test"})

NAMESPACES: Final = ("tno", "tno.mpc", "pytest_tno", "pytest_tno.tno", "pytest_tno.tno.mpc")
"""Made only if nothing that is installed has them."""

FIXTURES: Final = "pytest_tno.tno.mpc.communication"
"""Where packages import `determine_pool_scope` from; ours if theirs is not installed."""


class _Finder(MetaPathFinder):
    """Stands before all others: what is ours is never looked for elsewhere."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Our module of this name."""
        ours = MODULES.get(name)
        if ours is None:
            return None
        return ModuleSpec(name, _Loader(ours), is_package=name in PACKAGES_WITH_PARTS)


class _LastFinder(MetaPathFinder):
    """Stands behind all others."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """What is missing around our modules."""
        if name in NAMESPACES:
            return ModuleSpec(name, None, is_package=True)
        if name == FIXTURES:
            return ModuleSpec(name, _Loader("plugin"))
        return None


class _Loader(Loader):
    """Fills a module with the public names of one of ours."""

    def __init__(self, ours: str) -> None:
        self._ours = ours

    def create_module(self, spec: ModuleSpec) -> None:
        """A module of the usual kind."""

    def exec_module(self, module: ModuleType) -> None:
        """Copy the names."""
        ours = import_module(f".{self._ours}", __package__)
        public: Sequence[str] = ours.__all__
        module.__dict__.update({name: getattr(ours, name) for name in public})
        module.__dict__["__all__"] = list(public)
        module.__doc__ = ours.__doc__


_FINDERS: Final = (_Finder(), _LastFinder())


def install() -> None:
    """Let `tno.mpc.communication` be PartyWire's in this process. May be called again.

    Raises:
        RuntimeError: the package of that name has been imported already, so that both would be in use.
    """
    first, last = _FINDERS
    if first in sys.meta_path:
        return
    if any(name == PACKAGE or name.startswith(f"{PACKAGE}.") for name in sys.modules):
        raise RuntimeError(f"{PACKAGE} has been imported already; install before anything that uses it is imported")
    sys.meta_path.insert(0, first)
    sys.meta_path.append(last)


def uninstall() -> None:
    """Forget our modules under those names; what has been imported from them stays in use where it is. May be called
    again."""
    for finder in _FINDERS:
        if finder in sys.meta_path:
            sys.meta_path.remove(finder)
    for name in [name for name in sys.modules if name == PACKAGE or name.startswith(f"{PACKAGE}.")]:
        module = sys.modules.pop(name)
        parent = sys.modules.get(name.rpartition(".")[0])
        if parent is not None and getattr(parent, name.rpartition(".")[2], None) is module:
            delattr(parent, name.rpartition(".")[2])
