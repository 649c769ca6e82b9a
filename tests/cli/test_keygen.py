"""`partywire keygen`, `init --security` and `run --security`: what they make works, and nothing is given away."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from partywire.engine.channel.maker import ChannelMaker
from partywire.engine.errors import HandshakeRejected
from partywire.engine.handshake import Role
from partywire.workers.cli import run
from partywire.workers.config import PartyConfig, load_config
from partywire.workers.security import check_files, is_soon, links_of, own_certificate
from tests.cli.command import command
from tests.support.channels import carry, shake

if TYPE_CHECKING:
    from pathlib import Path

PARTIES = ("alice", "bob")
HEAD = 'name = "{}"\n[parties]\nalice = "10.0.0.1:7"\nbob = "10.0.0.2:7"\n'


def configs(folder: Path) -> dict[str, PartyConfig]:
    """A configuration for each party, with the table that keygen wrote pasted below it."""
    loaded = {}
    for name in PARTIES:
        path = folder / f"{name}.toml"
        path.write_text(HEAD.format(name) + (folder / f"{name}.security.toml").read_text())
        loaded[name] = load_config(path)
        check_files(loaded[name])
    return loaded


def connect(ours: PartyConfig, theirs: PartyConfig) -> None:
    """Bob dials alice, who is the first."""
    opening = bytes(32)
    alice = ChannelMaker("alice", "bob", links_of(ours)[1]).make(Role.RESPONDER, opening)
    bob = ChannelMaker("bob", "alice", links_of(theirs)[0]).make(Role.INITIATOR, opening)
    shake(bob, alice)
    assert carry(bob, alice, [b"hello"]) == b"hello"


@pytest.mark.parametrize("options", [[], ["--noise"], ["--noise", "--pattern", "KK", "--cipher", "aes-256-gcm"]])
def test_what_is_made_can_be_pasted_and_connects(tmp_path: Path, options: list[str]) -> None:
    assert run(["keygen", *PARTIES, "--out", str(tmp_path), *options]) == 0
    made = configs(tmp_path)
    assert all(config.insecure is None for config in made.values())
    connect(made["alice"], made["bob"])


def test_private_keys_are_their_owners_alone_and_are_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "keys"
    run(["keygen", *PARTIES, "--out", str(folder)])
    run(["keygen", *PARTIES, "--noise", "--out", str(folder / "noise")])
    said = capsys.readouterr().out
    private = [*folder.glob("*.key"), *(folder / "noise").glob("*.noise")]
    assert len(private) == 5
    for path in private:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.read_text().splitlines()[-2 if path.suffix == ".key" else 0] not in said
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_nothing_is_overwritten_and_nothing_half_made_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bob.key").write_text("precious")
    assert run(["keygen", *PARTIES, "--out", str(tmp_path)]) == 2
    assert "bob.key exists already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["bob.key"]


def test_a_new_certificate_of_the_same_authority_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    run(["keygen", *PARTIES, "--out", str(old), "--days", "1"])
    assert run(["keygen", "bob", "--ca", str(old), "--out", str(new), "--days", "90"]) == 0
    assert not (new / "ca.key").exists()
    before = configs(old)
    (new / "bob.toml").write_text(HEAD.format("bob") + (new / "bob.security.toml").read_text())
    after = load_config(new / "bob.toml")
    own = own_certificate(after)
    assert own is not None
    assert not is_soon(own.not_after)
    connect(before["alice"], after)


def test_an_authority_is_replaced_by_another_one_of_the_same_name_while_both_are_trusted(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        run(["keygen", *PARTIES, "--out", str(folder)])
    both = (old / "ca.crt").read_bytes() + (new / "ca.crt").read_bytes()
    for folder in (old, new):
        (folder / "ca.crt").write_bytes(both)
    before, after = configs(old), configs(new)
    connect(before["alice"], after["bob"])
    connect(after["alice"], before["bob"])


def test_certificates_of_another_authority_are_refused(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        run(["keygen", *PARTIES, "--out", str(tmp_path / folder)])
    with pytest.raises(HandshakeRejected):
        connect(configs(tmp_path / "one")["alice"], configs(tmp_path / "two")["bob"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a/b", "bob"], "name of a file"),
        (["bob", "bob"], "twice"),
        (["ca", "bob"], "called ca"),
        (["zoë", "bob"], "ASCII"),
        (["alice", "--noise"], "all parties at once"),
        (["alice", "bob", "--noise", "--ca", "."], "--ca is for certificates"),
        (["alice", "--ca", "."], "ca.crt"),
    ],
)
def test_a_mistake_is_one_sentence(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keygen", *arguments, "--out", "/proc/none"]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("mode", ["tls", "noise"])
def test_init_writes_configurations_that_are_secured_and_find_their_keys(
    tmp_path: Path, mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    addresses = ["alice=10.0.0.1:7", "bob=10.0.0.2:7"]
    assert run(["init", *addresses, "--security", mode, "--out", str(tmp_path)]) == 0
    assert "(private)" in capsys.readouterr().out
    made = [load_config(tmp_path / f"{name}.toml") for name in PARTIES]
    for config in made:
        check_files(config)
    connect(*made)
    assert run(["init", *addresses, "--security", mode, "--out", str(tmp_path)]) == 2


def test_a_file_of_security_that_is_missing_is_named_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["init", "alice=127.0.0.1:7", "bob=127.0.0.1:8", "--security", "tls", "--out", str(tmp_path)])
    (tmp_path / "alice.key").unlink()
    capsys.readouterr()
    outcome = command("run", "sum", "--config", str(tmp_path / "alice.toml"))
    assert outcome.code == 2
    assert "security.key" in outcome.err
    assert "alice.key cannot be read" in outcome.err


@pytest.mark.parametrize(("mode", "parties"), [("tls", "3"), ("noise", "4")])
def test_a_local_run_over_secured_links_gives_the_same_result(mode: str, parties: str) -> None:
    """Of four parties, one I/O process serves all links of each."""
    outcome = command("run", "sum", "--local", parties, "--workers", "2", "--security", mode, "--quiet")
    assert outcome.code == 0, outcome.err
    assert "equal to the plaintext answer" in outcome.out
    assert mode in outcome.out


def test_security_of_a_party_with_a_configuration_is_said_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", "sum", "--config", "alice.toml", "--security", "tls"]) == 2
    assert "[security]" in capsys.readouterr().err


def test_a_certificate_names_the_hosts_that_it_is_to_name_as_well(tmp_path: Path) -> None:
    assert run(["keygen", "alice", "--out", str(tmp_path), "--host", "alice.example", "--host", "10.0.0.1"]) == 0
    certificate = x509.load_pem_x509_certificate((tmp_path / "alice.crt").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["alice", "alice.example"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.1"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["alice", "bob", "--host", "a.example"],
        ["alice", "bob", "--noise", "--host", "a.example"],
        ["alice", "--host", ""],
        ["alice", "--host", "a:7001"],
        ["alice", "--host", "\u00e4.example"],
        ["alice", "--host", "unix:/tmp/a.sock"],
    ],
)
def test_a_host_that_no_certificate_can_hold_is_refused(tmp_path: Path, arguments: list[str]) -> None:
    assert run(["keygen", *arguments, "--out", str(tmp_path)]) == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [["--security", "tls"], ["--security", "noise"]])
def test_what_init_writes_is_good_whatever_the_umask_is(tmp_path: Path, options: list[str]) -> None:
    mask = os.umask(0)
    try:
        assert run(["init", *(f"{name}=10.0.0.1:{port}" for name, port in zip(PARTIES, (7, 8), strict=True)),
                    "--out", str(tmp_path), *options]) == 0  # fmt: skip
    finally:
        os.umask(mask)
    for name in PARTIES:
        check_files(load_config(tmp_path / f"{name}.toml"))


def test_a_certificate_that_was_revoked_is_refused_and_its_successor_is_not(tmp_path: Path) -> None:
    keys, lists = tmp_path / "keys", [tmp_path / "first", tmp_path / "second"]
    assert run(["keygen", *PARTIES, "--out", str(keys)]) == 0
    made = configs(keys)
    for folder, name in zip(lists, ("bob", "charlie"), strict=True):
        assert run(["keygen", "charlie", "--ca", str(keys), "--out", str(folder)]) == 0
        revoked = (keys if name == "bob" else folder) / f"{name}.crt"
        assert run(["keygen", "--ca", str(keys), "--revoke", str(revoked), "--out", str(folder)]) == 0
        (folder / "ca.crl").replace(keys / "ca.crl")
    found = x509.load_pem_x509_crl((keys / "ca.crl").read_bytes())
    assert len(list(found)) == 2  # the second list has what the first one had
    assert made["alice"].security is not None
    alice = replace(made["alice"], security=replace(made["alice"].security, crl="ca.crl"))
    check_files(alice)
    with pytest.raises(HandshakeRejected, match="the certificate of bob was revoked"):
        connect(alice, made["bob"])
    assert run(["keygen", "bob", "--ca", str(keys), "--out", str(tmp_path / "new")]) == 0
    for name in ("bob.crt", "bob.key"):
        (tmp_path / "new" / name).replace(keys / name)
    connect(alice, made["bob"])


def test_what_cannot_be_revoked_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys, others = tmp_path / "keys", tmp_path / "others"
    for folder in (keys, others):
        run(["keygen", "bob", "--out", str(folder)])
    bob = str(keys / "bob.crt")
    foreign = str(others / "bob.crt")
    (tmp_path / "empty.crt").touch()
    for arguments, words in (
        (["--revoke", bob], "goes with --ca"),
        (["alice", "--ca", str(keys), "--revoke", bob], "without PARTY"),
        (["--ca", str(keys), "--revoke", foreign], "no certificate of this authority"),
        (["--ca", str(keys), "--revoke", str(tmp_path / "empty.crt")], "holds no certificate"),
        (["--ca", str(keys)], "at least one PARTY"),
    ):
        assert run(["keygen", *arguments, "--out", str(tmp_path / "new")]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert run(["keygen", "--ca", str(others), "--revoke", foreign, "--out", str(others)]) == 0
    (others / "ca.crl").replace(keys / "ca.crl")
    assert run(["keygen", "--ca", str(keys), "--revoke", bob, "--out", str(tmp_path / "new")]) == 2
    assert "of another authority" in capsys.readouterr().err
