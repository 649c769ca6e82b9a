"""MPyC's own options as the configuration of a party.

Between MPyC's command line (`-M`, `-I`, `-B`, `-P`, `-C`, `-T`, `--ssl` ...), which its runtime has read by then, and
`PartyConfig`. The one invariant: nothing is protected less than MPyC was asked for, and links to other hosts are
plaintext only if somebody said so by name.

Party i of MPyC is our party `party<i>`, at the address that MPyC would use, and with the same index.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from partywire.engine import limits
from partywire.engine.addresses import EVERY_ADDRESS, is_loopback

# What takes long to import is imported when parties are configured: by then MPyC has started the others.

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..config import PartyConfig
    from ..security import SecurityConfig

LOOPBACK: Final = "127.0.0.1"

KEYS_FOLDER: Final = ".config"
"""Where MPyC looks for certificates, relative to the working directory."""

CONNECT_S: Final = 600.0
"""How long a party waits for the others unless told otherwise. MPyC itself waits for ever; people who start parties by
hand on several hosts need minutes."""

CONNECT_LOCAL_S: Final = 60.0
"""The same where MPyC starts all parties itself, at once: what does not come within this has failed to start."""

SILENCE_S: Final = 3600.0
"""How long a peer may answer nothing where its links are served by its own process, which may compute for as long as it
likes: the most that a configuration allows. The end of a process is seen at once anyway."""

INBOX_MIB: Final = 1024
"""What a party keeps of payloads that its program has not asked for yet. MPyC sends ahead as far as a program's data
flow allows, and has no bound."""

INBOX_MIB_MAX: Final = 1 << 20
CONNECT_S_MIN: Final = 0.1
CONNECT_S_MAX: Final = 86_400.0
"""What a command line may ask for."""


@dataclass(frozen=True, slots=True)
class MpycSettings:
    """What MPyC's own options do not say. Set at every party alike, except `insecure`, which is a party's own."""

    insecure: bool = False
    """Allow plaintext links to other hosts, which MPyC has unless it is told `--ssl`."""
    connect_s: float | None = None
    """Seconds to wait for the other parties. None: CONNECT_LOCAL_S where MPyC starts all of them, else CONNECT_S."""
    inbox_mib: int = INBOX_MIB
    """MiB of payloads that arrived before the program asked for them."""
    io: str | None = None
    """Who serves the links: IO_IN_PROCESS or IO_PROCESSES of `config`. None: the former if all parties are on this
    host."""


def name_of(pid: int) -> str:
    """The name of MPyC's party `pid`."""
    return f"party{pid}"


def config_of(
    pid: int, addresses: Sequence[tuple[str, int]], threshold: int, options: Any, settings: MpycSettings
) -> PartyConfig:
    """The configuration of party `pid`.

    Args:
        pid: MPyC's number of this party.
        addresses: MPyC's host and port of each party.
        threshold: MPyC's; a program may have changed what its options say.
        options: MPyC's.
        settings: ours.

    Raises:
        ConfigError: names every setting at fault.
    """
    from ..config import IO_IN_PROCESS, IO_PROCESSES, PartyConfig

    places = [(LOOPBACK if host == "localhost" else host, port) for host, port in addresses]
    starts_all = options.index is None and not (options.parties or options.config)
    is_local = all(is_loopback(host) for host, _ in places)
    io = settings.io or (IO_IN_PROCESS if is_local else IO_PROCESSES)
    parameters: dict[str, object] = {
        "mpyc threshold": threshold,
        "mpyc prss": not options.no_prss,
        "mpyc portable labels": bool(options.mix32_64bit or os.getenv("MPYC_MIX32_64BIT") == "1"),
    }
    return PartyConfig(
        name=name_of(pid),
        parties={name_of(index): place for index, place in enumerate(places)},
        listen=None if is_local else (EVERY_ADDRESS, places[pid][1]),
        insecure=True if settings.insecure else None,
        links_per_io_process=max(1, len(places) - 1) if is_local else 1,
        io=io,
        heartbeat_s=SILENCE_S if io == IO_IN_PROCESS else limits.HEARTBEAT_TIMEOUT_S,
        connect_s=settings.connect_s or (CONNECT_LOCAL_S if starts_all else CONNECT_S),
        inbox_mib=settings.inbox_mib,
        parameters=parameters,
        security=_security(pid, len(places)) if options.ssl else None,
    )


def _security(pid: int, count: int) -> SecurityConfig:
    """TLS with the files that MPyC would use.

    Its certificates have the party in the common name only, which proves nothing here: the peers' own certificates are
    pinned where they lie beside ours, and otherwise have to name the party.
    """
    from ..security import PeerSecurity, SecurityConfig

    folder = os.path.abspath(KEYS_FOLDER)
    peers = {
        name_of(peer): PeerSecurity(certificate=path)
        for peer in range(count)
        if peer != pid and os.path.exists(path := os.path.join(folder, f"party_{peer}.crt"))
    }
    return SecurityConfig(
        mode="tls",
        certificate=os.path.join(folder, f"party_{pid}.crt"),
        key=os.path.join(folder, f"party_{pid}.key"),
        ca=os.path.join(folder, "mpyc_ca.crt"),
        peers=peers,
    )
