"""Configuration files: what is accepted, and that each mistake is reported with its key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from partywire.workers.config import PartyConfig, load_config, parse_address, parse_config, write_config
from partywire.workers.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """
name = "alice"
[parties]
alice = "127.0.0.1:7001"
bob = "127.0.0.1:7002"
charlie = "[::1]:7003"
"""


def keys(text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "alice.toml")
    assert str(caught.value).startswith("alice.toml: ")
    assert "Traceback" not in str(caught.value)
    return caught.value.keys


def test_the_order_of_parties_gives_the_indices() -> None:
    config = parse_config(GOOD)
    assert config.spec.names == ("alice", "bob", "charlie")
    assert config.spec.index == 0
    assert config.spec.parties[2].host == "::1"
    assert config.listen_addresses == (("127.0.0.1", 7001),)


def test_loopback_needs_no_word_on_security_and_other_addresses_do() -> None:
    assert parse_config(GOOD).insecure is None
    elsewhere = GOOD.replace("127.0.0.1:7002", "10.0.0.2:7002")
    assert keys(elsewhere) == ("insecure",)
    assert parse_config("insecure = true\n" + elsewhere).insecure is True
    assert keys("insecure = false\n" + GOOD) == ("insecure",)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (('name = "alice"', 'name = "dora"'), "name"),
        (('name = "alice"', "name = 3"), "name"),
        (('name = "alice"', ""), "name"),
        (('name = "alice"', 'name = "alice"\nworkers = 0'), "workers"),
        (('name = "alice"', 'name = "alice"\nworkers = true'), "workers"),
        (('name = "alice"', 'name = "alice"\ninsecure = "yes"'), "insecure"),
        (('name = "alice"', 'name = "alice"\ncolour = 1'), "colour"),
        (("127.0.0.1:7002", "127.0.0.1:7001"), "parties.bob"),
        (("127.0.0.1:7002", "127.0.0.1"), "parties.bob"),
        (("127.0.0.1:7002", "127.0.0.1:port"), "parties.bob"),
        (("127.0.0.1:7002", "127.0.0.1:70020"), "parties.bob"),
        (("127.0.0.1:7002", "::1:7002"), "parties.bob"),
        (('"127.0.0.1:7002"', "7002"), "parties.bob"),
        (("bob =", '"b ob" ='), "parties"),
        (("[parties]", "parties = 3\n[timeouts]"), "parties"),
    ],
)
def test_each_mistake_names_its_key(change: tuple[str, str], key: str) -> None:
    assert key in keys(GOOD.replace(*change))


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ("[limits]\ninbox_mib = 0", "limits.inbox_mib"),
        ("[limits]\nring_mib = 3", "limits.ring_mib"),
        ("[limits]\nmessage_mib = 4097", "limits.message_mib"),
        ("[limits]\nmessage_mib = 1.5", "limits.message_mib"),
        ("[limits]\nunidentified = 15", "limits.unidentified"),
        ("[limits]\nunidentified = 4097", "limits.unidentified"),
        ("[limits]\nring_gib = 1", "limits.ring_gib"),
        ("[timeouts]\nconnect_s = -1", "timeouts.connect_s"),
        ('[timeouts]\nheartbeat_s = "5"', "timeouts.heartbeat_s"),
        ("[timeouts]\nclose = 3", "timeouts.close"),
        ("[listen]\naddress = 7001", "listen.address"),
        ('[listen]\naddress = ["127.0.0.1:1", 7001]', "listen.address"),
        ('[listen]\naddress = ["127.0.0.1:1", "nowhere"]', "listen.address"),
        ('[listen]\naddress = ["127.0.0.1:1", "127.0.0.1:1"]', "listen.address"),
        ("[listen]\naddress = []", "listen.address"),
        (f"[listen]\naddress = {[f'127.0.0.1:{port}' for port in range(1, 10)]}", "listen.address"),
        ('[dial]\nclient_host = "127.0.0.1:7"', "dial.client_host"),
        ('[dial]\nclient_host = "*"', "dial.client_host"),
        ('[dial]\nclient_host = "unix:/a"', "dial.client_host"),
        ("[dial]\nclient_host = 7", "dial.client_host"),
        ('[dial]\nhost = "127.0.0.1"', "dial.host"),
        ('[listen]\nhost = "0.0.0.0"', "listen.host"),
        ("[parameters]\nx = [1]", "parameters.x"),
    ],
)
def test_each_mistake_in_a_table_names_its_key(table: str, key: str) -> None:
    assert key in keys(GOOD + table)


@pytest.mark.parametrize("table", ["limits", "timeouts", "listen", "parameters"])
def test_a_table_must_be_one(table: str) -> None:
    assert table in keys(f"{table} = 1\n" + GOOD)


def test_all_mistakes_are_reported_at_once() -> None:
    text = GOOD.replace('name = "alice"', 'name = "dora"\nworkers = "two"\ncolour = 1') + "[limits]\ninbox_mib = 0\n"
    assert set(keys(text)) >= {"name", "workers", "colour", "limits.inbox_mib"}


@pytest.mark.parametrize(
    ("head", "key"), [("", "name"), ("name = 5\n", "name"), ('name = "alice"\nparties = 3\n', "parties")]
)
def test_what_does_not_depend_on_the_parties_is_checked_without_them(head: str, key: str) -> None:
    parties = "" if "parties" in head else GOOD.partition("\n[parties]")[2].join(("[parties]", ""))
    rest = '[limits]\nring_mib = 3\n[timeouts]\nconnect_s = nan\n[dial]\nclient_host = "10.0.0.1:7"\n'
    assert set(keys(head + parties + rest)) == {key, "limits.ring_mib", "timeouts.connect_s", "dial.client_host"}


def test_one_party_is_not_enough() -> None:
    assert keys('name = "alice"\n[parties]\nalice = "127.0.0.1:7001"\n') == ("parties",)


def test_no_parties_at_all() -> None:
    assert "parties" in keys('name = "alice"')


def test_text_that_is_not_toml() -> None:
    with pytest.raises(ConfigError, match="is not TOML"):
        parse_config("name = ", "x")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "none.toml")
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_config(binary)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"insecure": True, "workers": 3, "listen": ("0.0.0.0", 7009), "parameters": {"job": "x", "n": 3, "b": True}},
        {"parameters": {"a\x7f": '\x00\x1f"\\\x7f\U0001f600', "inf": float("inf"), "n": -1e300, "off": False}},
        {"parties": {"ælice \\".replace(" ", ""): ("::1", 1), "bob": ("localhost", 2)}, "name": "ælice\\"},
        {"parties": {"alice": f"unix:/{'x' * 106}", "bob": "[fe80::1%eth0]:7"}, "insecure": True},
        {"insecure": True, "listen": ["*:7009", "[::1]:7", "unix:/run/a b.sock"], "client_host": "fd00::2"},
        {"insecure": True, "listen": [f"127.0.0.1:{port}" for port in range(1, 9)], "client_host": "a.example"},
        {"connect_s": 1.5, "close_s": 2, "heartbeat_s": 9, "inbox_mib": 5, "ring_mib": 1, "message_mib": 7},
        {"unidentified": 16},
        {"unidentified": 4096},
    ],
)
def test_a_written_file_reads_back_equal(tmp_path: Path, changes: dict[str, Any]) -> None:
    values: dict[str, Any] = {"name": "alice", "parties": {"alice": ("127.0.0.1", 1), "bob": ("127.0.0.1", 2)}}
    config = PartyConfig(**(values | changes))
    path = tmp_path / "alice.toml"
    path.write_text(write_config(config), "utf-8")
    assert load_config(path) == config


def test_parameters_have_a_digest_that_does_not_depend_on_their_order() -> None:
    parties = {"alice": ("127.0.0.1", 1), "bob": ("127.0.0.1", 2)}
    one = PartyConfig(name="alice", parties=parties, parameters={"a": 1, "b": "x"})
    other = PartyConfig(name="alice", parties=parties, parameters={"b": "x", "a": 1})
    third = PartyConfig(name="alice", parties=parties, parameters={"b": "x", "a": 2})
    assert one.parameter_digest == other.parameter_digest != third.parameter_digest
    assert PartyConfig(name="alice", parties=parties).parameter_digest == bytes(32)


@pytest.mark.parametrize(
    ("text", "address"),
    [("host:1", ("host", 1)), ("[fe80::1]:65535", ("fe80::1", 65535)), ("127.0.0.1:80", ("127.0.0.1", 80))],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", ":1", "host", "host:", "host:0", "host:x", "a b:1", "host:²"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="is not"):
        parse_address(text)


def test_addresses_of_a_config_made_by_hand_may_be_text() -> None:
    parties = {"alice": "127.0.0.1:7001", "bob": ("127.0.0.1", 7002), "charlie": ["::1", 7003]}
    config = PartyConfig(name="alice", parties=parties, listen="127.0.0.1:7009")
    assert config.parties == {"alice": ("127.0.0.1", 7001), "bob": ("127.0.0.1", 7002), "charlie": ("::1", 7003)}
    assert config.listen_addresses == (("127.0.0.1", 7009),)
    assert config.spec.peers[0].host == "127.0.0.1"


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"parties": {"alice": "127.0.0.1:1", "bob": "nowhere"}}, "parties.bob"),
        ({"parties": {"alice": "127.0.0.1:1", "bob": ("127.0.0.1", "7002")}}, "parties.bob"),
        ({"parties": {"alice": "127.0.0.1:1", "bob": ("127.0.0.1", 70_000)}}, "parties.bob"),
        ({"parties": {"alice": "127.0.0.1:1", "bob": 7}}, "parties.bob"),
        ({"parties": ["alice", "bob"]}, "parties"),
        ({"listen": 7001}, "listen.address"),
        ({"listen": ["127.0.0.1:1"] * 2}, "listen.address"),
        ({"listen": []}, "listen.address"),
        ({"client_host": 7}, "dial.client_host"),
        ({"parties": {"alice": "unix:/a", "bob": "unix:/a"}}, "parties.bob"),
        ({"parties": {"alice": "unix:/a", "bob": "unix:b"}}, "parties.bob"),
        ({"parties": {"alice": ("unix:a", 0), "bob": "127.0.0.1:7002"}}, "parties.alice"),
        ({"parties": {"alice": "127.0.0.1:7001", "bob": ("*", 7002)}}, "parties.bob"),
        ({"parties": {"alice": "127.0.0.1:7001", "bob": f"unix:/{'x' * 107}"}}, "parties.bob"),
        ({"workers": "2"}, "workers"),
        ({"workers": True}, "workers"),
        ({"ring_mib": 4.0}, "limits.ring_mib"),
        ({"connect_s": "soon"}, "timeouts.connect_s"),
        ({"close_s": float("nan")}, "timeouts.close_s"),
    ],
)
def test_each_mistake_of_a_config_made_by_hand_names_its_key(changes: dict[str, Any], key: str) -> None:
    good: dict[str, Any] = {"name": "alice", "parties": {"alice": "127.0.0.1:7001", "bob": "127.0.0.1:7002"}}
    with pytest.raises(ConfigError) as caught:
        PartyConfig(**(good | changes))
    assert key in caught.value.keys


def test_what_is_dialled_and_what_is_listened_on_are_apart() -> None:
    tables = '[listen]\naddress = ["127.0.0.1:7", "[::1]:7", "unix:/a"]\n[dial]\nclient_host = "::1"'
    config = parse_config(GOOD + tables)
    assert config.listen_addresses == (("127.0.0.1", 7), ("::1", 7), ("unix:/a", 0))
    assert config.parties["alice"] == ("127.0.0.1", 7001)
    assert config.link_options.client_host == "::1"
    assert config.is_loopback


@pytest.mark.parametrize("address", ["*:7001", "[::]:7001", "[fe80::1%eth0]:7001"])
def test_only_certain_hosts_are_this_one(address: str) -> None:
    assert not parse_config(f"insecure = true\n{GOOD}[listen]\naddress = ['127.0.0.1:7', '{address}']").is_loopback


def test_listening_beyond_this_host_needs_a_word_on_security() -> None:
    beyond = GOOD + '[listen]\naddress = "0.0.0.0:7001"\n'
    assert keys(beyond) == ("insecure",)
    assert not parse_config("insecure = true\n" + beyond).is_loopback


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "alice.toml"
    path.write_text("\ufeff" + GOOD, "utf-8")
    assert load_config(path).name == "alice"
