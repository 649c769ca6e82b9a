"""`partywire check` on secured links: what it says of files, modes, certificates and keys that do not fit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from partywire.engine.commands import Serve
from partywire.engine.gateway import make_answers
from partywire.workers.cli import run
from partywire.workers.config import PartyConfig, load_config
from partywire.workers.keygen import new_keys, tls_files, write_files
from tests.cli.test_check import address_of, check, config_file, gateway
from tests.support.certificates import issue
from tests.support.family import make_listener

if TYPE_CHECKING:
    from pathlib import Path

    from partywire.workers.security import SecurityConfig

PARTIES = ("alice", "bob")


class Setting:
    """Alice, who checks, and the gateway of bob as its configuration makes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with make_listener() as ours:
            self.alice_address = address_of(ours)

    def secure(self, mode: str, folder: str = "keys") -> dict[str, SecurityConfig]:
        files, tables = new_keys(PARTIES, mode, 90, prefix=f"{self.folder / folder}/")
        write_files(self.folder / folder, files)
        return tables

    def check(
        self, capsys: pytest.CaptureFixture[str], alice: SecurityConfig | None, bob: SecurityConfig | None
    ) -> dict[str, Any]:
        """The row of bob."""
        beyond = {"alice": self.alice_address, "bob": ("127.0.0.1", 1)}
        config = PartyConfig(name="bob", parties=beyond, security=bob)
        answers = make_answers(Serve(config.spec, [], options=config.link_options))
        with gateway(answers) as address:
            path = config_file(self.folder, {"alice": self.alice_address, "bob": address}, security=alice)
            self.code, self.document = check(capsys, path, "--timeout", "5")
        row: dict[str, Any] = self.document["peers"]["bob"]
        return row


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path)


@pytest.mark.parametrize("mode", ["tls", "noise"])
def test_a_peer_that_fits_is_asked_inside_the_channel(
    setting: Setting, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    tables = setting.secure(mode)
    row = setting.check(capsys, tables["alice"], tables["bob"])
    assert (row["ok"], row["found"], setting.code) == (True, "ok", 0)
    assert row["round_trip_ms"] > 0
    assert [own["found"] for own in setting.document["security"]] == (["ok"] if mode == "tls" else [])


def test_links_of_different_modes_are_told_apart_whoever_asks(
    setting: Setting, capsys: pytest.CaptureFixture[str]
) -> None:
    tls, noise = setting.secure("tls", "one"), setting.secure("noise", "two")
    for alice, bob, words in (
        (tls["alice"], None, "'none' at bob but by 'tls' at alice"),
        (None, tls["bob"], "'tls' at bob but by 'none' at alice"),
        (noise["alice"], tls["bob"], "'tls' at bob but by 'noise XX chacha20-poly1305' at alice"),
        (tls["alice"], noise["bob"], "'noise XX chacha20-poly1305' at bob but by 'tls' at alice"),
    ):
        row = setting.check(capsys, alice, bob)
        assert (row["ok"], row["found"], setting.code) == (False, "other security", 3)
        assert words in row["detail"]
        assert "[security]" in row["advice"]


@pytest.mark.parametrize("mode", ["tls", "noise"])
def test_keys_that_do_not_belong_together_prove_nothing(
    setting: Setting, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    one, two = setting.secure(mode, "one"), setting.secure(mode, "two")
    row = setting.check(capsys, one["alice"], two["bob"])
    assert (row["ok"], row["found"]) == (False, "not proven")
    assert "we refuse it: " in row["detail"] or "it refuses us: " in row["detail"]


def test_an_expired_certificate_of_the_peer_is_named(setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    ca = issue("ca", is_ca=True).write(setting.folder / "keys", "ca")
    issue("alice", ca).write(setting.folder / "keys", "alice")
    issue("bob", ca, days=(-9, -1)).write(setting.folder / "keys", "bob")
    _, tables = new_keys(PARTIES, "tls", 1, prefix=f"{setting.folder / 'keys'}/")
    row = setting.check(capsys, tables["alice"], tables["bob"])
    assert (row["found"], row["detail"]) == ("not proven", "we refuse it: the certificate of bob has expired")
    assert setting.document["security"][0]["found"] == "ends soon"  # ours, in two days
    assert "--ca FOLDER" in setting.document["security"][0]["advice"]


def test_a_list_of_revoked_certificates_that_ends_soon_is_worth_a_word(
    setting: Setting, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = setting.secure("tls")
    folder = setting.folder / "keys"
    assert run(["keygen", "--ca", str(folder), "--revoke", str(folder / "bob.crt"), "--days", "9",
                "--out", str(setting.folder / "list")]) == 0  # fmt: skip
    capsys.readouterr()
    ours = replace(tables["alice"], crl=str(setting.folder / "list" / "ca.crl"))
    row = setting.check(capsys, ours, tables["bob"])
    assert row["detail"] == "we refuse it: the certificate of bob was revoked by its issuer"
    own, listed = setting.document["security"]
    assert own["found"] == "ok"
    assert listed["found"] == "ends soon"
    assert "keygen --revoke" in listed["advice"]


def test_our_own_certificate_on_our_list_of_revoked_ones_is_a_failure(
    setting: Setting, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = setting.secure("tls")
    folder = setting.folder / "keys"
    assert run(["keygen", "--ca", str(folder), "--revoke", str(folder / "alice.crt"),
                "--out", str(setting.folder / "list")]) == 0  # fmt: skip
    capsys.readouterr()
    ours = replace(tables["alice"], crl=str(setting.folder / "list" / "ca.crl"))
    row = setting.check(capsys, ours, tables["bob"])
    assert row["ok"]  # who has no list yet takes us
    own = setting.document["security"][0]
    assert (own["ok"], own["found"]) == (False, "revoked")
    assert "ca.crl names it" in own["detail"]
    assert "keygen alice --ca FOLDER" in own["advice"]
    assert setting.document["exit_code"] == 3


def test_a_certificate_with_another_name_is_worth_a_word(setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    tables = setting.secure("tls")
    write_files(setting.folder / "other", tls_files(["zoe"], 90))
    for suffix in (".crt", ".key"):
        (setting.folder / "other" / f"zoe{suffix}").rename(setting.folder / "keys" / f"alice{suffix}")
    row = setting.check(capsys, tables["alice"], tables["bob"])
    assert row["found"] == "not proven"
    assert "it refuses us" in row["detail"]
    own = setting.document["security"][0]
    assert own["found"] == "made for zoe, not alice"


def test_a_key_that_others_may_read_is_a_configuration_that_cannot_be_used(
    setting: Setting, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = setting.secure("tls")
    path = config_file(
        setting.folder, {"alice": setting.alice_address, "bob": ("127.0.0.1", 1)}, security=tables["alice"]
    )
    (setting.folder / "keys" / "alice.key").chmod(0o644)
    load_config(path)  # the file itself is good
    assert run(["check", path]) == 2
    said = capsys.readouterr().err
    assert "security.key" in said
    assert "chmod 600" in said
