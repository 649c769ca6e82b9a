"""What a node may be told, and that every key at fault is named."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest

from partywire import ConfigError, NodeConfig, PeerId, PeerNode, load_node_config
from partywire.engine.multiaddr import Multiaddr
from partywire.workers.node import OnionConfig, SocksConfig
from partywire.workers.node.config import TOR_DIAL_TIMEOUT_S
from partywire.workers.node.config_file import FILE_SIZE_MAX, NUMBER_MAX, TABLES, read_node_table

if TYPE_CHECKING:
    from pathlib import Path

BOB = "ab" * 13

WHOLE_FILE = f"""
[node]
identity = "alice.key"
listen = ["/ip4/0.0.0.0/tcp/7300", "/ip6/::/tcp/7300"]
advertise = "/dns4/alice.example/tcp/7300"
store = "peers"
user_agent = "example 1.0"
features = 5

[node.peers]
{BOB} = ["/dns4/bob.example/tcp/7300", "/ip4/192.0.2.1/tcp/7300"]

[node.connections]
network_byte = 3
noise_pattern = "IX"
connections_max = 10
dial_timeout_s = 5
liveness_permits = 2
liveness_networks = ["10.0.0.0/8"]
allowed = ["{BOB}"]

[node.substreams]
substreams_max = 20

[node.messages]
inbox_max = 2

[node.rpc]
timeout_max_s = 1.5

[node.socks]
address = "/ip4/127.0.0.1/tcp/9050"
scope = "all"
username = "alice"
password_file = "socks.password"

[node.onion]
control = "/unix/run/tor/control"
key_file = "alice.onion"
port = 7300
detach = true

[somebody.else]
is = "not looked at"
"""


def faults(error: ConfigError) -> tuple[str, ...]:
    return tuple(sorted(error.keys))


def test_a_file_may_say_everything(tmp_path: Path) -> None:
    path = tmp_path / "alice.toml"
    path.write_text(WHOLE_FILE)
    config = load_node_config(path)
    assert config.listen == (Multiaddr.parse("/ip4/0.0.0.0/tcp/7300"), Multiaddr.parse("/ip6/::/tcp/7300"))
    assert config.advertise == (Multiaddr.parse("/dns4/alice.example/tcp/7300"),)
    assert [str(address) for address in config.peers[PeerId.parse(BOB)]] == [
        "/dns4/bob.example/tcp/7300",
        "/ip4/192.0.2.1/tcp/7300",
    ]
    options = config.options
    assert (options.network_byte, options.noise_pattern, options.connections_max) == (3, "IX", 10)
    assert (options.dial_timeout_s, options.liveness_networks) == (5, ("10.0.0.0/8",))
    assert options.allowed == frozenset({PeerId.parse(BOB)})
    assert options.substreams.substreams_max == 20
    assert not options.is_local
    assert (config.messages.inbox_max, config.rpc.timeout_max_s) == (2, 1.5)
    assert config.socks == SocksConfig(
        address="/ip4/127.0.0.1/tcp/9050", scope="all", username="alice", password_file="socks.password"
    )
    assert config.onion == OnionConfig(
        control="/unix/run/tor/control", key_file="alice.onion", port=7300, detach=True
    )  # fmt: skip
    assert (config.user_agent, config.features) == ("example 1.0", 5)
    assert config.file(config.identity) == tmp_path / "alice.key"
    assert PeerNode(path, features=6).config.features == 6


def test_everything_that_is_wrong_is_named_at_once() -> None:
    table: dict[str, Any] = {
        "listen": ["/ip4/127.0.0.1/udp/1", "nonsense", 7],
        "advertise": "/ip4/0.0.0.0/tcp/1",
        "peers": {"bob": "/ip4/127.0.0.1/tcp/1", BOB: "/memory/0"},
        "user_agent": "x" * 65,
        "features": 2**32,
        "strangers": "no",
        "colour": "blue",
        "connections": {
            "connections_max": 0, "noise_pattern": "KK", "is_local": 1, "speed": 1, "dial_timeout_s": 0,
            "allowed": ["bob"],
        },
        "substreams": {"window_size_max": "large"},
        "messages": [],
        "rpc": {"substreams_max": NUMBER_MAX + 1, "idle_timeout_s": float("nan")},
        "socks": {"address": "/memory/1", "scope": "none", "username": "alice"},
        "onion": {"control": "/ip4/127.0.0.1/tcp/9051", "port": 0},
    }  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        read_node_table(table, "alice.toml")
    assert faults(caught.value) == tuple(
        sorted(
            f"node.{key}"
            for key in (
                "listen", "listen", "listen", "advertise", "peers.bob", f"peers.{BOB}", "user_agent", "features",
                "strangers", "colour",
                "connections.connections_max", "connections.noise_pattern", "connections.is_local",
                "connections.speed", "connections.dial_timeout_s", "connections.allowed",
                "substreams.window_size_max", "messages",
                "rpc.substreams_max", "rpc.idle_timeout_s", "socks.address", "socks.scope", "socks.password_file",
                "onion.key_file", "onion.port",
            )
        )
    )  # fmt: skip
    assert str(caught.value).startswith("alice.toml: ")


@pytest.mark.parametrize("strangers", [None, True, False])
def test_without_strangers_only_those_who_are_listed_may_connect(strangers: bool | None) -> None:
    table = {"peers": {BOB: "/ip4/127.0.0.1/tcp/1"}}
    config = read_node_table(table if strangers is None else {**table, "strangers": strangers})
    assert config.options.allowed == (frozenset({PeerId.parse(BOB)}) if strangers is False else None)


@pytest.mark.parametrize("strangers", [True, False])
def test_who_may_connect_is_said_once(strangers: bool) -> None:
    with pytest.raises(ConfigError, match="leave one of them out") as caught:
        read_node_table({"strangers": strangers, "connections": {"allowed": [BOB]}})
    assert faults(caught.value) == ("node.strangers",)


def test_both_ends_of_a_number_are_taken() -> None:
    config = read_node_table(
        {
            "rpc": {"substreams_max": NUMBER_MAX, "substreams_per_peer_max": 1},
            "connections": {"liveness_permits": 0, "network_byte": 255},
            "user_agent": "x" * 64,
            "features": 2**32 - 1,
        }
    )
    assert (config.rpc.substreams_max, config.rpc.substreams_per_peer_max) == (NUMBER_MAX, 1)
    assert (config.options.liveness_permits, config.options.network_byte) == (0, 255)
    assert config.features == 2**32 - 1


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"listen": 7}, "listen"),
        ({"listen": ["/memory/0"] * 9}, "listen"),
        ({"listen": "/onion3/vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd:1"}, "listen"),
        ({"peers": ["bob"]}, "peers"),
        ({"identity": 7}, "identity"),
        ({"features": -1}, "features"),
        ({"user_agent": "two\nlines"}, "user_agent"),
        ({"socks": SocksConfig(address="/ip4/127.0.0.1/udp/9050")}, "socks.address"),
        ({"socks": SocksConfig(address=7)}, "socks.address"),  # type: ignore[arg-type]
        ({"onion": OnionConfig(control="tor", key_file="k", port=1)}, "onion.control"),
        (
            {
                "onion": OnionConfig(control="/ip4/127.0.0.1/tcp/9", key_file="k", port=1),
                "listen": "/ip4/127.0.0.1/tcp/9",
            },
            "onion.control",
        ),
        (
            {
                "onion": OnionConfig(
                    control="/unix/run/tor", key_file="k", port=1, password_file="p", cookie_file="c"
                )
            },
            "onion.cookie_file",
        ),
        ({"colour": "blue"}, "colour"),
    ],
)  # fmt: skip
def test_a_program_hears_of_the_key_at_fault(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PeerNode(**settings)
    assert caught.value.keys == (key,)


def test_every_limit_is_of_a_kind_that_a_file_can_say() -> None:
    kinds = {one.type for table in TABLES.values() for one in fields(table) if one.name != "substreams"}
    assert kinds == {"int", "float", "bool", "str", "tuple[str, ...]", "frozenset[PeerId] | None"}


def test_eight_addresses_are_listened_on() -> None:
    assert len(NodeConfig(listen=["/memory/0"] * 8).listen) == 8


def test_addresses_of_this_host_are_told_only_if_nobody_else_could_come() -> None:
    assert NodeConfig(listen=["/memory/0", "/unix/tmp/node"]).options.is_local
    assert not NodeConfig(listen=["/memory/0", "/ip4/127.0.0.1/tcp/0"]).options.is_local
    assert not NodeConfig().options.is_local


def test_dials_have_more_time_with_tor() -> None:
    socks = {"address": "/ip4/127.0.0.1/tcp/9050"}
    assert NodeConfig(socks=SocksConfig(**socks)).options.dial_timeout_s == TOR_DIAL_TIMEOUT_S
    table = {"socks": socks, "connections": {"dials_max": 1}}
    assert read_node_table(table).options.dial_timeout_s == TOR_DIAL_TIMEOUT_S
    table["connections"] = {"dial_timeout_s": 7.0}
    assert read_node_table(table).options.dial_timeout_s == 7.0
    assert NodeConfig().options.dial_timeout_s < TOR_DIAL_TIMEOUT_S


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (None, "cannot be read"),
        (b"[node\n", "is not TOML"),
        (b"\xff", "is not TOML"),
        (b"x = 1\n", "node: is missing"),
        (b"node = 1\n", "must be a table"),
        (b"#" * (FILE_SIZE_MAX + 1), "more than"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, content: bytes | None, what: str) -> None:
    path = tmp_path / "node.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=what):
        PeerNode(path)


def test_a_file_of_the_greatest_size_is_read(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    head = b'[node]\nuser_agent = "example"\n#'
    path.write_bytes(head + b"#" * (FILE_SIZE_MAX - len(head)))
    assert load_node_config(path).user_agent == "example"
