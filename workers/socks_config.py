"""The tables [dial.socks] and [node.socks]: the SOCKS5 proxy, such as Tor's, by which others are reached.

Between the person who writes the file and whoever dials. The one invariant: what has no problem can be used, but for
what only the machine can say: whether somebody answers there, and what is in the file of the password.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from partywire.engine.link_addresses import service_of
from partywire.engine.socks_options import SCOPES, SocksOptions

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class SocksConfig:
    """[dial.socks] or [node.socks]: a SOCKS5 proxy, such as Tor's."""

    address: str
    """127.0.0.1:9050, or a multiaddress: /ip4/127.0.0.1/tcp/9050, or a unix socket."""
    scope: str = SCOPES[0]
    """onion: onion addresses and look-ups of names. all: every connection over TCP too."""
    username: str = ""
    password_file: str = ""
    """A file that only we may read. Together with `username`, or neither."""

    @property
    def takes_all(self) -> bool:
        """Whether connections over TCP go through it too."""
        return self.scope != SCOPES[0]

    def options(self, folder: Path) -> SocksOptions:
        """What whoever dials needs; a relative path is in `folder`."""
        path = os.path.abspath(folder / self.password_file) if self.password_file else ""
        return SocksOptions(str(service_of(self.address)), self.scope, self.username, path)


def socks_problems(prefix: str, socks: object) -> Iterable[tuple[str, str]]:
    """What is wrong with a proxy; `prefix` is the name of its table."""
    if not isinstance(socks, SocksConfig):
        yield prefix, f"must be a SocksConfig, not a {type(socks).__name__}"
        return
    wrong = [one.name for one in fields(socks) if not isinstance(getattr(socks, one.name), str)]
    yield from ((f"{prefix}.{name}", "must be text in quotes") for name in wrong)
    if wrong:
        return
    try:
        service_of(socks.address)
    except ValueError as error:
        yield f"{prefix}.address", str(error)
    if socks.scope not in SCOPES:
        yield f"{prefix}.scope", f"{socks.scope!r} is neither of {', '.join(SCOPES)}"
    if bool(socks.username) != bool(socks.password_file):
        missing = "password_file" if socks.username else "username"
        yield f"{prefix}.{missing}", "is missing: a user name and a password go together"


def read_socks(prefix: str, table: object, problems: list[tuple[str, str]]) -> SocksConfig | None:
    """The table of a file; what is wrong with its shape is added to `problems`."""
    if not isinstance(table, dict):
        problems.append((prefix, f"must be a table: [{prefix}]"))
        return None
    known = [one.name for one in fields(SocksConfig)]
    strange = [key for key in table if key not in known]
    found = [(f"{prefix}.{key}", f"is not a setting; known are {', '.join(known)}") for key in strange]
    if "address" not in table:
        found.append((f"{prefix}.address", "is missing"))
    problems += found
    return None if found else SocksConfig(**table)


def socks_lines(prefix: str, socks: SocksConfig) -> list[str]:
    """The lines of a file that `read_socks` reads back as an equal configuration."""
    given: dict[str, Any] = {one.name: getattr(socks, one.name) for one in fields(socks)}
    return [f"[{prefix}]", *(f"{key} = {json.dumps(text, ensure_ascii=False)}" for key, text in given.items() if text)]
