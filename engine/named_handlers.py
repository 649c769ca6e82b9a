"""Handlers of protocols that a configuration names: "module:function", loaded by the process that serves them.

Between [node.protocols] and whoever serves substreams. The one invariant: what cannot be loaded is said in a sentence
that names the protocol, before anything is served.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from typing import TYPE_CHECKING

from .errors import PartyWireError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .peers.contract import ProtocolHandler


class HandlerNotLoaded(PartyWireError):
    """Raised when a handler that a configuration names cannot be used."""

    def __init__(self, protocol: str, target: str, cause: str) -> None:
        super().__init__(protocol, target, cause)
        self.protocol = protocol
        self.target = target
        self.cause = cause

    def __str__(self) -> str:
        return f"the handler of {self.protocol}, {self.target}, cannot be loaded: {self.cause}"


def load_handlers(named: Mapping[str, str]) -> dict[str, ProtocolHandler]:
    """The handlers of all protocols; runs the code of their modules.

    Raises:
        HandlerNotLoaded: one is not there, its module does not load, or it is no `async def`.
    """
    return {protocol: _load(protocol, target) for protocol, target in named.items()}


def _load(protocol: str, target: str) -> ProtocolHandler:
    module_name, _, name = target.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a module beside the user; last, so that it shadows none of ours
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's module does when it is loaded
        raise HandlerNotLoaded(protocol, target, f"{type(error).__name__}: {error}") from error
    handler = getattr(module, name, None)
    if not inspect.iscoroutinefunction(handler):
        raise HandlerNotLoaded(protocol, target, f"{module_name} has no {name} that is an async function")
    return handler
