"""Both implementations of a ring's ends and of a bell in one process, whichever the process itself uses."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

from partywire.shm import compiled
from partywire.shm import doorbell as doorbell_module
from partywire.shm import ring as ring_module
from partywire.shm.doorbell import Bell
from partywire.shm.ring import RingReader, RingWriter

if TYPE_CHECKING:
    from types import ModuleType


class Implementation(NamedTuple):
    """The classes of one implementation. Both have the types of the process's own."""

    name: str
    writer: type[RingWriter]
    reader: type[RingReader]
    bell: type[Bell]


def load() -> dict[str, Implementation]:
    """What can be had, by name: `pure`, and `compiled` where the core was built."""
    own = "pure" if compiled.core is None else "compiled"
    found = {own: Implementation(own, RingWriter, RingReader, Bell)}
    other = None if compiled.core is not None else compiled.load("auto")
    if other is not None or own == "compiled":
        name = "compiled" if own == "pure" else "pure"
        ring, doorbell = twin(ring_module, other), twin(doorbell_module, other)
        found[name] = Implementation(name, ring.RingWriter, ring.RingReader, doorbell.Bell)
    return found


def twin(module: ModuleType, core: ModuleType | None) -> ModuleType:
    """A private copy of a module of partywire.shm that was executed as if `core` were this process's."""
    spec = importlib.util.find_spec(module.__name__)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "core", core)
        spec.loader.exec_module(made)
    return made


IMPLEMENTATIONS: Final = load()
PURE: Final = IMPLEMENTATIONS["pure"]
OWN: Final = IMPLEMENTATIONS["pure" if compiled.core is None else "compiled"]


def implementation(name: str) -> Implementation:
    """The implementation, or a skip that says why there is none."""
    if name not in IMPLEMENTATIONS:
        pytest.skip("the compiled core was not built")
    return IMPLEMENTATIONS[name]


def compiled_core() -> ModuleType:
    """The extension module, or a skip."""
    core = compiled.load("auto")
    if core is None:
        pytest.skip("the compiled core was not built")
    return core
