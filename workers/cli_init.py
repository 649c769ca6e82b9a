"""`partywire init`: a configuration file for each of a set of parties.

Between the person who knows the addresses and the files that `partywire run --config` reads. The one invariant: either
all files are written or none, and none that exists is touched.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .cli_json import json_text
from .config import PartyConfig, parse_address, write_config
from .exit_code import ExitCode, UsageMistake

if TYPE_CHECKING:
    from .keygen import NewFile
    from .node.config import NodeConfig
    from .security import SecurityConfig

HELP = """Write a configuration file for each party.

PARTY is name=host:port, name=[IPv6 address]:port, or name=unix:/path for parties of one host: the address that the
others dial. It may be a multiaddress, as in name=/dns4/host/tcp/port. The order gives each party its index (for
`digits`: the first has the gallery, the second the probes, the third helps). Give each party its own file; the
[parties] tables must stay equal. A peer that runs iris-mpc instead of PartyWire gets a table [compat.NAME] in the files
of the others: docs/iris-compat.md has examples.

\b
Examples:
  partywire init alice=127.0.0.1:7001 bob=127.0.0.1:7002 charlie=127.0.0.1:7003 --out parties
  partywire init alice=10.0.0.1:7001 bob=bob.example:7001 charlie=[fd00::3]:7001 --security tls --out parties
  partywire init alice=10.0.0.1:7001 bob=10.0.0.2:7001 charlie=10.0.0.3:7001 --insecure --out parties
  partywire init alice=unix:/run/mpc/a.sock bob=unix:/run/mpc/b.sock --out parties
"""


@click.command("init", help=HELP)
@click.argument("parties", nargs=-1, required=True, metavar="PARTY...")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path(), show_default="here",
              help="Folder for the files; made if it is missing.")  # fmt: skip
@click.option("--workers", type=click.IntRange(1, 16), default=1, show_default=True,
              help="Compute processes of each party; each party may change its own.")  # fmt: skip
@click.option("--insecure", is_flag=True,
              help="Allow plaintext links: needed when an address is not on this host.")  # fmt: skip
@click.option("--security", type=click.Choice(("tls", "noise")),
              help="Secure the links: make keys beside the files, as `partywire keygen` does.")  # fmt: skip
@click.option("--node", is_flag=True,
              help="Give each party a peer-to-peer node, whose key is made at its first start.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the paths as one JSON object.")
def init_command(
    parties: tuple[str, ...], out: Path, workers: int, insecure: bool, security: str | None, node: bool, as_json: bool
) -> int:
    addresses = addresses_of(parties)
    for name in addresses:
        if "/" in name or name.startswith("."):
            raise UsageMistake(f"the name {name!r} cannot be the name of a file: leave out '/' and leading dots")
    files, tables = make_keys(tuple(addresses), security)
    texts = {
        out / f"{name}.toml": write_config(
            PartyConfig(
                name=name,
                parties=addresses,
                workers=workers,
                insecure=True if insecure else None,
                security=tables.get(name),
                node=node_of(name) if node else None,
            )
        )
        for name in addresses
    }
    write_all(out, texts, files)
    paths = [str(path) for path in texts]
    if as_json:
        click.echo(json_text({"files": [*paths, *(str(out / name) for name in files)]}))
        return ExitCode.OK
    shown = [click.format_filename(path) for path in paths]
    for path in shown:
        click.echo(f"wrote {path}")
    for name, file in files.items():
        click.echo(f"wrote {click.format_filename(out / name)}{'  (private)' if file.is_private else ''}")
    click.echo(
        f"Take each file to its party{', with its keys' if files else ''}, then at every party, for example: "
        f"partywire run digits --config {shown[0]}\n"
        f"If they do not find each other: partywire check {shown[0]}"
    )
    return ExitCode.OK


def addresses_of(parties: tuple[str, ...]) -> dict[str, tuple[str, int]]:
    """name=address arguments as the table of parties.

    Raises:
        UsageMistake: one is not of this form, or a name occurs twice.
    """
    addresses: dict[str, tuple[str, int]] = {}
    for argument in parties:
        name, separator, address = argument.partition("=")
        if not separator or not name:
            raise UsageMistake(f"{argument!r} is not name=host:port, name=unix:/path or name=/multiaddress")
        if name in addresses:
            raise UsageMistake(f"the name {name} occurs twice")
        try:
            addresses[name] = parse_address(address)
        except ValueError as error:
            raise UsageMistake(f"{argument!r}: {error}") from error
    return addresses


def node_of(name: str) -> NodeConfig:
    """The least that the node of a party needs."""
    from .node.config import NodeConfig  # only here: most parties have no node

    return NodeConfig(identity=f"{name}.node.key")


def make_keys(names: tuple[str, ...], security: str | None) -> tuple[dict[str, NewFile], dict[str, SecurityConfig]]:
    """Key files by name, and the table [security] of each party; nothing without `security`."""
    if security is None:
        return {}, {}
    from .cli_keygen import DAYS_DEFAULT, check_names
    from .keygen import new_keys  # only here: it imports much

    check_names(names, noise=security == "noise")
    return new_keys(names, security, DAYS_DEFAULT)


def write_all(out: Path, texts: dict[Path, str], keys: dict[str, NewFile]) -> None:
    """Write new files, all or none.

    Raises:
        UsageMistake: one exists, or cannot be written.
    """
    for path in texts:
        if path.exists():
            raise UsageMistake(f"{path} exists already and was not changed; remove it or choose another --out")
    written: list[Path] = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            # Whatever the umask is: a party refuses a configuration that others may write.
            with open(path, "x", encoding="utf-8", opener=lambda path, flags: os.open(path, flags, 0o644)) as file:
                written.append(path)
                file.write(text)
        if keys:
            from .keygen import write_files

            write_files(out, keys)
    except UsageMistake:
        for path in written:
            path.unlink()
        raise
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        raise UsageMistake(f"{error.filename or out} cannot be written: {error.strerror}") from error
