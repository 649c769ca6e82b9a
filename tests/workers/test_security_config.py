"""The table [security]: what it may say, what each mode needs, what it becomes for each link, and its files."""

from __future__ import annotations

import grp
import logging
import os
import pwd
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from partywire.engine.channel.credentials import noise_private_key, read_file
from partywire.engine.channel.errors import CredentialError
from partywire.engine.preamble import SecurityMode
from partywire.workers.config import PartyConfig, load_config, parse_config, write_config
from partywire.workers.errors import ConfigError
from partywire.workers.security import (
    PeerSecurity,
    SecurityConfig,
    announcement,
    check_files,
    is_soon,
    links_of,
    own_certificate,
    plaintext_peers,
)
from tests.support.certificates import issue, revocations

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FAR = {"alice": "10.0.0.1:7", "bob": "10.0.0.2:7", "charlie": "10.0.0.3:7"}
NEAR = {"alice": "127.0.0.1:7", "bob": "127.0.0.1:8", "charlie": "127.0.0.1:9"}
TLS = SecurityConfig(mode="tls", certificate="alice.crt", key="alice.key", ca="ca.crt")
KEYS = {name: PeerSecurity(public_key=digit * 64) for name, digit in (("alice", "a"), ("charlie", "c"))}
NOISE = SecurityConfig(mode="noise", noise_key="bob.noise", peers=KEYS)


def config(
    security: SecurityConfig | None = TLS, name: str = "alice", parties: Mapping[str, str] = FAR, **more: object
) -> PartyConfig:
    return PartyConfig(name=name, parties=parties, security=security, **more)  # type: ignore[arg-type]


def problems(security: SecurityConfig | None, **more: object) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        config(security, **more)  # type: ignore[arg-type]
    return dict(caught.value.problems)


def test_with_security_no_address_needs_a_word_about_plaintext() -> None:
    assert config().insecure is None
    assert config(insecure=False).insecure is False
    assert plaintext_peers(config()) == []


def test_without_it_the_sentence_says_what_to_do() -> None:
    for security in (None, SecurityConfig(mode="none")):
        assert "partywire keygen" in problems(security)["insecure"]
    assert plaintext_peers(config(None, insecure=True)) == ["bob", "charlie"]
    assert plaintext_peers(config(None, parties=NEAR)) == ["bob", "charlie"]


def test_one_plaintext_link_among_secured_ones_is_named_and_must_be_allowed() -> None:
    mixed = replace(TLS, peers={"charlie": PeerSecurity(mode="none")})
    assert "link to charlie" in problems(mixed)["insecure"]
    assert plaintext_peers(config(mixed, insecure=True)) == ["charlie"]
    assert [link.mode for link in links_of(config(mixed, insecure=True))] == [0, 1, 0]


def test_paths_are_relative_to_the_folder_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "alice.toml"
    file.write_text(write_config(config()))
    loaded = load_config(file)
    assert loaded == config()
    link = links_of(loaded)[1]
    assert (link.certificate, link.ca) == (str(tmp_path / "alice.crt"), str(tmp_path / "ca.crt"))
    assert loaded.link_options.security[0].mode == SecurityMode.PLAINTEXT  # a link to ourselves there is none


def test_a_mode_may_depend_on_who_dials_when_both_are_named() -> None:
    both = replace(NOISE, mode=None, inbound="noise", outbound="tls", certificate="c", key="k", ca="ca")
    modes = [link.security_mode for link in links_of(config(both, name="bob"))]
    assert modes == [SecurityMode.TLS, SecurityMode.PLAINTEXT, SecurityMode.NOISE_XX_CHACHA]  # bob dials alice
    assert "together" in problems(replace(both, inbound=None), name="bob")["security.inbound"]
    assert "left out" in problems(replace(both, mode="tls"), name="bob")["security.mode"]


@pytest.mark.parametrize(
    ("pattern", "cipher", "mode"),
    [
        ("XX", "chacha20-poly1305", SecurityMode.NOISE_XX_CHACHA),
        ("IX", "aes-256-gcm", SecurityMode.NOISE_IX_AES),
        ("KK", "aes-256-gcm", SecurityMode.NOISE_KK_AES),
    ],
)
def test_pattern_and_cipher_are_part_of_the_mode(pattern: str, cipher: str, mode: SecurityMode) -> None:
    link = links_of(config(replace(NOISE, pattern=pattern, cipher=cipher), name="bob"))[0]
    assert (link.security_mode, link.peer_key) == (mode, "a" * 64)


@pytest.mark.parametrize(
    ("security", "key", "words"),
    [
        (SecurityConfig(), "security.mode", "missing"),
        (replace(TLS, mode="ssl"), "security.mode", "tls, noise, none"),
        (replace(NOISE, pattern="NN"), "security.pattern", "XX, IX, KK"),
        (replace(NOISE, cipher="rot13"), "security.cipher", "aes-256-gcm"),
        (replace(TLS, certificate=""), "security.certificate", "missing"),
        (replace(TLS, key=""), "security.key", "missing"),
        (replace(TLS, ca=""), "security.ca", "nothing proves bob"),
        (replace(TLS, peers={"bob": PeerSecurity(fingerprint="ab")}), "security.peers.bob.fingerprint", "SHA-256"),
        (replace(TLS, peers={"zoe": PeerSecurity()}), "security.peers.zoe", "not one of our peers"),
        (replace(TLS, peers={"alice": PeerSecurity()}), "security.peers.alice", "not one of our peers"),
        (replace(NOISE, peers={}), "security.peers.bob.public_key", "nothing proves"),
        (replace(NOISE, noise_key=""), "security.noise_key", "missing"),
        (
            replace(NOISE, peers={"bob": PeerSecurity(public_key="g" * 64)}),
            "security.peers.bob.public_key",
            "hexadecimal",
        ),
    ],
)
def test_what_a_mode_needs_or_does_not_know_is_named(security: SecurityConfig, key: str, words: str) -> None:
    assert words in problems(security)[key]


def test_a_pinned_certificate_needs_no_issuer_and_a_fingerprint_may_have_colons() -> None:
    own = {
        name: PeerSecurity(certificate=f"{name}.crt", fingerprint=":".join(["AB"] * 32)) for name in ("bob", "charlie")
    }
    link = links_of(config(replace(TLS, ca="", peers=own)))[1]
    assert link.peer_certificate.endswith("/bob.crt")
    assert link.fingerprint == "ab" * 32


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ("[security]\nmode = 1", "security.mode"),
        ("[security]\nmoode = 'tls'", "security.moode"),
        ("security = 1", "security"),
        ("[security]\nmode = 'none'\npeers = 3", "security.peers"),
        ("[security]\nmode = 'none'\n[security.peers]\nbob = 1", "security.peers.bob"),
        ("[security]\nmode = 'none'\n[security.peers.bob]\nkey = 'x'", "security.peers.bob.key"),
    ],
)
def test_a_file_is_refused_with_the_key_at_fault(table: str, key: str) -> None:
    parties = 'name = "alice"\n{}\n[parties]\nalice = "localhost:1"\nbob = "localhost:2"\n{}'
    text = parties.format(table, "") if table.startswith("security") else parties.format("", table)
    with pytest.raises(ConfigError) as caught:
        parse_config(text)
    assert [problem[0] for problem in caught.value.problems] == [key]


@pytest.mark.parametrize("security", [TLS, replace(TLS, peers={"bob": PeerSecurity(ca='b"b.crt')})])
def test_what_is_written_is_read_back(security: SecurityConfig) -> None:
    assert parse_config(write_config(config(security))).security == security


def test_files_are_checked_before_anything_starts(tmp_path: Path) -> None:
    ca = issue("ca", is_ca=True).write(tmp_path, "ca")
    issue("alice", ca).write(tmp_path, "alice")
    good = replace(config(), path=str(tmp_path / "alice.toml"))
    check_files(good)
    own = own_certificate(good)
    assert own is not None
    assert own.names == ("alice",)
    assert is_soon(own.not_after)  # in two days
    (tmp_path / "alice.key").chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600") as caught:
        check_files(good)
    assert [key for key, _ in caught.value.problems] == ["security.key"]


def test_a_list_of_revoked_certificates_must_be_of_today(tmp_path: Path) -> None:
    ca = issue("ca", is_ca=True).write(tmp_path, "ca")
    issue("alice", ca).write(tmp_path, "alice")
    good = replace(config(replace(TLS, crl="ca.crl")), path=str(tmp_path / "alice.toml"))
    path = tmp_path / "ca.crl"
    expired = revocations(ca, days=(-9, -1))
    for content, words in ((None, "cannot be read"), (b"", "holds no list"), (expired, "expired on")):
        if content is not None:
            path.write_bytes(content)
            path.chmod(0o644)
        with pytest.raises(ConfigError, match=f"ca.crl.*{words}") as caught:
            check_files(good)
        assert caught.value.keys == ("security.crl",)
    path.write_bytes(revocations(ca))
    check_files(good)
    assert all(link.crl == str(path) for link in links_of(good)[1:])


@pytest.mark.parametrize(
    ("name", "key"), [("ca.crt", "security.ca"), ("alice.crt", "security.certificate"), ("alice.toml", "")]
)
def test_a_file_that_says_whom_to_believe_and_that_others_may_write_is_refused(
    tmp_path: Path, name: str, key: str
) -> None:
    ca = issue("ca", is_ca=True).write(tmp_path, "ca")
    issue("alice", ca).write(tmp_path, "alice")
    path = tmp_path / "alice.toml"
    path.write_text("")
    path.chmod(0o644)
    good = replace(config(), path=str(path))
    check_files(good)
    (tmp_path / name).chmod(0o646)
    with pytest.raises(ConfigError, match=f"{name}.*chmod go-w") as caught:
        check_files(good)
    assert caught.value.keys == (key,)
    path.chmod(0o646)
    check_files(replace(good, security=SecurityConfig(mode="none"), insecure=True))  # nothing depends on it


@pytest.mark.parametrize("members", [[], ["somebody else"]])
def test_a_group_of_ours_alone_is_nobody_else(
    tmp_path: Path, members: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ca.crt"
    path.touch()
    path.chmod(0o664)
    us = pwd.getpwuid(os.geteuid())
    os.chown(path, -1, us.pw_gid)
    group = SimpleNamespace(gr_name=us.pw_name, gr_mem=members)
    monkeypatch.setattr(grp, "getgrgid", lambda gid: group)
    if members:
        with pytest.raises(CredentialError, match="mode 0664"):
            read_file(str(path))
    else:
        assert read_file(str(path)) == b""
    group.gr_name = "staff"
    with pytest.raises(CredentialError, match="mode 0664"):
        read_file(str(path))


@pytest.mark.parametrize(("days", "words"), [((-9, -1), "expired on"), ((1, 9), "not valid before")])
def test_our_own_certificate_must_be_valid_now(tmp_path: Path, days: tuple[int, int], words: str) -> None:
    ca = issue("ca", is_ca=True).write(tmp_path, "ca")
    issue("alice", ca, days=days).write(tmp_path, "alice")
    with pytest.raises(ConfigError, match=words):
        check_files(replace(config(), path=str(tmp_path / "alice.toml")))


def test_a_key_of_noise_is_checked_and_never_shown(tmp_path: Path) -> None:
    bob = replace(config(NOISE, name="bob"), path=str(tmp_path / "bob.toml"))
    key = tmp_path / "bob.noise"
    key.touch(0o600)
    key.write_text("5ec2e7" * 3)
    with pytest.raises(ConfigError, match="64 hexadecimal digits") as caught:
        check_files(bob)
    assert "5ec2e7" not in str(caught.value)
    key.write_text("5ec2e7ff" * 8 + "\n")
    check_files(bob)
    assert "5ec2e7" not in repr(bob.link_options)


def test_a_public_key_must_be_of_one_party_alone_and_of_some_use(tmp_path: Path) -> None:
    key = tmp_path / "bob.noise"
    key.touch(0o600)
    key.write_text("5ec2e7ff" * 8)
    ours = noise_private_key(str(key)).public

    def complaint(alice: str, charlie: str) -> tuple[str, str]:
        peers = {"alice": PeerSecurity(public_key=alice), "charlie": PeerSecurity(public_key=charlie)}
        bob = replace(config(replace(NOISE, peers=peers), name="bob"), path=str(tmp_path / "bob.toml"))
        with pytest.raises(ConfigError) as caught:
            check_files(bob)
        ((setting, what),) = caught.value.problems
        return setting, what

    charlies = "security.peers.charlie.public_key"
    assert complaint("A" * 64, "a" * 64) == (
        charlies,
        "is what proves alice: charlie and alice could each speak as the other",
    )
    assert complaint("a" * 64, str(ours))[1].startswith("is what proves bob")
    setting, what = complaint("a" * 64, "0" * 64)
    assert (setting, "no public key that can be used" in what) == (charlies, True)


def test_a_pinned_certificate_must_be_of_one_party_alone(tmp_path: Path) -> None:
    ca = issue("ca", is_ca=True).write(tmp_path, "ca")
    for name in ("alice", "bob", "charlie"):
        issue(name, ca).write(tmp_path, name)

    def alice(bobs: str, charlies: str) -> PartyConfig:
        peers = {"bob": PeerSecurity(certificate=bobs), "charlie": PeerSecurity(certificate=charlies)}
        return replace(config(replace(TLS, peers=peers)), path=str(tmp_path / "alice.toml"))

    check_files(alice("bob.crt", "charlie.crt"))
    for bobs, charlies, owner in (("bob.crt", "bob.crt", "bob"), ("bob.crt", "alice.crt", "alice")):
        with pytest.raises(ConfigError, match=f"charlie: is what proves {owner}"):
            check_files(alice(bobs, charlies))


def test_a_start_says_what_is_plaintext() -> None:
    assert announcement(config()) == (logging.INFO, "alice: every link is secured")
    level, text = announcement(config(None, insecure=True))
    assert (level, "links are plaintext (insecure = true)" in text) == (logging.WARNING, True)
    mixed = replace(TLS, peers={"charlie": PeerSecurity(mode="none")})
    assert "plaintext: charlie" in announcement(config(mixed, parties=NEAR))[1]
