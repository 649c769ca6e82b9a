"""`partywire keygen`: keys and certificates for parties, with the table [security] that names them.

Between the person who sets up a computation and the folder that the files are made in. The one invariant: nothing that
exists is overwritten, and no private key is printed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from partywire.engine.addresses import is_unix, split_family
from partywire.engine.link_addresses import host_of
from partywire.engine.topology import check_name

from .cli_json import json_text
from .exit_code import ExitCode, UsageMistake
from .security import CIPHERS, PATTERNS, security_lines

DAYS_DEFAULT: Final = 365
DAYS_MAX: Final = 36_500

HELP = """Make the keys that secure the links between parties.

For TLS (the default): a certificate authority, ca.crt and ca.key, and for each PARTY its certificate PARTY.crt and its
private key PARTY.key. For Noise: for each PARTY its private key PARTY.noise; the public keys stand in the tables.
PARTY.security.toml is a table [security], ready to be pasted into the party's configuration; its paths are relative to
that configuration.

Give each party its own files and ca.crt, over a way that you trust. Keep ca.key to yourself, best on no host of a
party: whoever has it can be any party. Private keys are readable by their owner alone (0600); a party refuses others.

\b
Examples:
  partywire keygen alice bob charlie --out keys              TLS
  partywire keygen alice bob charlie --noise --out keys      Noise XX with ChaCha20-Poly1305
  partywire keygen alice --ca keys --out keys-2027           a new certificate under the same authority
  partywire keygen --ca keys --revoke keys/bob.crt --out new a list of those that are good no more: new/ca.crl
  partywire keygen alice --ca keys --host 10.0.0.1           for peers of iris-mpc, which look at the host's name
  partywire run digits --local 3 --security tls              try it, with keys that live as long as the run

docs/security.md says what is protected, and how keys are changed.
"""


@click.command("keygen", help=HELP)
@click.argument("parties", nargs=-1, metavar="PARTY...")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path(), show_default="here",
              help="Folder for the files; made if it is missing.")  # fmt: skip
@click.option("--days", type=click.IntRange(1, DAYS_MAX), default=DAYS_DEFAULT, show_default=True,
              help="How long the certificates are valid.")  # fmt: skip
@click.option("--ca", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="FOLDER",
              help="Sign with the authority in this folder (ca.crt, ca.key) instead of a new one.")  # fmt: skip
@click.option("--host", "hosts", multiple=True, metavar="NAME",
              help="A name or address of the host of the one PARTY, for its certificate to hold as well: programs of "
              "others check that whom they dial is called so. May be given several times.")  # fmt: skip
@click.option("--revoke", "revoked", type=click.Path(exists=True, dir_okay=False, path_type=Path), multiple=True,
              metavar="CERTIFICATE", help="Instead of keys for a PARTY, make the list ca.crl of the authority in --ca: "
              "this certificate, and those of the ca.crl in that folder. May be given several times.")  # fmt: skip
@click.option("--noise", is_flag=True, help="Keys for Noise instead of TLS.")
@click.option("--pattern", type=click.Choice(PATTERNS), default=PATTERNS[0], show_default=True,
              help="Handshake of Noise; the same at all parties.")  # fmt: skip
@click.option("--cipher", type=click.Choice(CIPHERS), default=CIPHERS[0], show_default=True,
              help="Cipher of Noise; the same at all parties.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the paths as one JSON object.")
def keygen_command(
    parties: tuple[str, ...],
    out: Path,
    days: int,
    ca: Path | None,
    hosts: tuple[str, ...],
    revoked: tuple[Path, ...],
    noise: bool,
    pattern: str,
    cipher: str,
    as_json: bool,
) -> int:
    from .keygen import NewFile, load_authority, noise_files, noise_security, tls_files, tls_security, write_files

    if revoked:
        return make_list(parties, revoked, ca, out, days, noise=noise, as_json=as_json)
    if not parties:
        raise UsageMistake("name at least one PARTY: partywire keygen alice bob charlie")
    check_names(parties, noise=noise)
    hosts = check_hosts(hosts, parties, noise=noise)
    if noise:
        if ca is not None:
            raise UsageMistake("--ca is for certificates; keys of Noise are signed by nobody")
        files, public = noise_files(parties)
        tables = {name: noise_security(name, public, pattern, cipher) for name in parties}
    else:
        authority = None if ca is None else load_authority(ca)
        files = tls_files(parties, days, authority, hosts)
        tables = {name: tls_security(name) for name in parties}
        if ca is not None and (out / "ca.crt").exists():
            del files["ca.crt"]  # that of the authority, most likely: it is not ours to judge or to replace
    for name, table in tables.items():
        files[f"{name}.security.toml"] = NewFile(("\n".join(security_lines(table)) + "\n").encode())
    write_files(out, files)
    paths = [str(out / name) for name in files]
    if as_json:
        click.echo(json_text({"files": paths}))
        return ExitCode.OK
    for name, file in zip(paths, files.values(), strict=True):
        click.echo(f"wrote {click.format_filename(name)}{'  (private)' if file.is_private else ''}")
    which = ".noise" if noise else ".crt, .key, ca.crt"
    click.echo(
        f"Take to each party its own files ({which}), put them beside its configuration, and paste its .security.toml\n"
        "there. Then: partywire check CONFIG"
    )
    if not noise and ca is None:
        authority_key = click.format_filename(out / "ca.key")
        click.echo(f"Keep {authority_key} away from the parties: whoever has it can be any of them.")
    return ExitCode.OK


def make_list(
    parties: tuple[str, ...],
    revoked: tuple[Path, ...],
    ca: Path | None,
    out: Path,
    days: int,
    *,
    noise: bool,
    as_json: bool,
) -> int:
    """Write the authority's list of revoked certificates."""
    from .keygen import NewFile, load_authority, revoke, write_files

    if ca is None or parties or noise:
        raise UsageMistake("--revoke goes with --ca, the folder of the authority, and without PARTY and --noise")
    write_files(out, {"ca.crl": NewFile(revoke(load_authority(ca), revoked, days, ca / "ca.crl"))})
    path = out / "ca.crl"
    if as_json:
        click.echo(json_text({"files": [str(path)]}))
        return ExitCode.OK
    click.echo(
        f"wrote {click.format_filename(path)}\n"
        f"Put it into the place of {click.format_filename(ca / 'ca.crl')}, and take it to every party, which names it\n"
        f'in [security]: crl = "ca.crl". It is good for {days} days: make the next one before, or no link comes up.'
    )
    return ExitCode.OK


def check_names(parties: tuple[str, ...], *, noise: bool) -> None:
    """Refuse names that no party, file or certificate can have."""
    for name in parties:
        try:
            check_name(name)
        except ValueError as error:
            raise UsageMistake(str(error)) from error
        if "/" in name or name.startswith("."):
            raise UsageMistake(f"the name {name!r} cannot be the name of a file: leave out '/' and leading dots")
        if name == "ca" and not noise:
            raise UsageMistake("a party called ca would have the files of the authority; use --noise or another name")
        if not noise and not name.isascii():
            raise UsageMistake(f"the name {name!r} cannot stand in a certificate, which holds ASCII only; use --noise")
        if parties.count(name) > 1:
            raise UsageMistake(f"the name {name} occurs twice")
    if noise and len(parties) == 1:
        raise UsageMistake("keys of Noise are made for all parties at once, since each needs the public keys of others")


def check_hosts(hosts: tuple[str, ...], parties: tuple[str, ...], *, noise: bool) -> tuple[str, ...]:
    """The names and literal addresses for the certificate, of hosts or multiaddresses such as /ip4/10.0.0.1. Refuses
    hosts that no certificate can hold, and those that would speak for several parties."""
    if not hosts:
        return ()
    if noise or len(parties) != 1:
        raise UsageMistake("--host is for the certificate of one party: give each party its own, under one --ca")
    names = []
    for host in hosts:
        try:
            names.append(split_family(host_of(host))[0])
        except ValueError as error:
            raise UsageMistake(f"--host: {error}") from error
        if not names[-1].isascii() or is_unix(host):
            raise UsageMistake(f"--host: {host!r} cannot stand in a certificate")
    return tuple(names)
