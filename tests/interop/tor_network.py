"""A private Tor network on loopback: three directory authorities, two relays, and the tors of two users.

Everything that Tor needs to serve onion services, within seconds and without a byte that leaves the host. The ports are
the kernel's choice. Intervals of voting are the shortest that Tor allows to testing networks.
"""

from __future__ import annotations

import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.interop.tor_programs import running
from tests.support.reserved_ports import reserved_ports

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BOOTSTRAP_TIMEOUT_S = 180.0

COMMON = """\
TestingTorNetwork 1
AddressDisableIPv6 1
AssumeReachable 1
ShutdownWaitLength 0
Log notice file {folder}/log
DataDirectory {folder}
"""

RELAY = """\
Address 127.0.0.1
SocksPort 0
ExitRelay 1
ExitPolicy accept 127.0.0.0/8:*
ExitPolicyRejectPrivate 0
"""

AUTHORITY = """\
AuthoritativeDirectory 1
V3AuthoritativeDirectory 1
ContactInfo nobody@example.org
TestingV3AuthInitialVotingInterval 5
TestingV3AuthInitialVoteDelay 2
TestingV3AuthInitialDistDelay 2
V3AuthVotingInterval 10
V3AuthVoteDelay 2
V3AuthDistDelay 2
TestingDirAuthVoteExit *
TestingDirAuthVoteGuard *
TestingDirAuthVoteHSDir *
TestingMinExitFlagThreshold 0
MinUptimeHidServDirectoryV2 0
"""


@dataclass(frozen=True, slots=True)
class TorNetwork:
    """Ports of the two users' tors."""

    service_control: int
    client_socks: int


@contextmanager
def tor_network(folder: Path, service_settings: str = "") -> Iterator[TorNetwork]:
    """The network, bootstrapped, until the end of the block. `service_settings`: lines for the tor of who serves."""
    with reserved_ports(10) as ports:
        authorities = [
            _authority(folder / f"a{number}", ports[2 * number], ports[2 * number + 1]) for number in range(3)
        ]
        directory = "".join(authorities)
        for number in range(3):
            or_port, dir_port = ports[2 * number : 2 * number + 2]
            _write(
                folder / f"a{number}",
                directory,
                f"Nickname auth{number}\nORPort {or_port}\nDirPort {dir_port}\n{RELAY}{AUTHORITY}",
            )
        for number in range(2):
            _write(folder / f"r{number}", directory, f"Nickname relay{number}\nORPort {ports[6 + number]}\n{RELAY}")
        network = TorNetwork(service_control=ports[8], client_socks=ports[9])
        control = f"SocksPort 0\nControlPort 127.0.0.1:{network.service_control}\nCookieAuthentication 1\n"
        _write(folder / "service", directory, control + service_settings)
        _write(
            folder / "client",
            directory,
            f"SocksPort 127.0.0.1:{network.client_socks}\nClientRejectInternalAddresses 0\n",
        )
        names = ["a0", "a1", "a2", "r0", "r1", "service", "client"]
        with running(*(["tor", "-f", str(folder / name / "torrc")] for name in names)) as processes:
            give_up_at = time.monotonic() + BOOTSTRAP_TIMEOUT_S
            while not all(_is_bootstrapped(folder / name) for name in ("service", "client")):
                for name, process in zip(names, processes, strict=True):
                    assert process.poll() is None, f"tor {name} ended: {_log(folder / name)[-2000:]}"
                assert time.monotonic() < give_up_at, f"no Tor network came to be: {_log(folder / 'client')[-2000:]}"
                time.sleep(0.2)
            yield network


def _authority(folder: Path, or_port: int, dir_port: int) -> str:
    """Make its keys; the line by which everybody knows it."""
    keys = folder / "keys"
    keys.mkdir(parents=True)
    folder.chmod(0o700)
    keys.chmod(0o700)
    arguments = ["--create-identity-key", "--passphrase-fd", "0", "-m", "12", "-a", f"127.0.0.1:{dir_port}"]
    files = ["-i", "authority_identity_key", "-s", "authority_signing_key", "-c", "authority_certificate"]
    subprocess.run(
        ["tor-gencert", *arguments, *files], cwd=keys, input="password\n", text=True, check=True, capture_output=True
    )
    certificate = (keys / "authority_certificate").read_text()
    identity = next(line for line in certificate.splitlines() if line.startswith("fingerprint ")).split()[1]
    nobody = "x 127.0.0.1:1 ffffffffffffffffffffffffffffffffffffffff"
    (folder / "torrc").touch()
    listed = subprocess.run(
        ["tor", "-f", str(folder / "torrc"), "--list-fingerprint", "--ORPort", "1", "--DirServer", nobody]
        + ["--DataDirectory", str(folder), "--quiet"],
        check=False, text=True, capture_output=True,
    )  # fmt: skip
    fingerprint = "".join(listed.stdout.splitlines()[-1].split()[1:])
    name = folder.name
    return f"DirAuthority {name} orport={or_port} no-v2 v3ident={identity} 127.0.0.1:{dir_port} {fingerprint}\n"


def _write(folder: Path, directory: str, text: str) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / "torrc").write_text(COMMON.format(folder=folder) + directory + text)


def _log(folder: Path) -> str:
    path = folder / "log"
    return path.read_text() if path.exists() else "nothing logged"


def _is_bootstrapped(folder: Path) -> bool:
    return "Bootstrapped 100%" in _log(folder)
