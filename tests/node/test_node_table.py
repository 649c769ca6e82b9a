"""The table [node] in the configuration of a party: what it may say, what it makes of links, what it says again."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from partywire import ConfigError, NodeConfig, PartyConfig, PeerId, load_config
from partywire.engine.commands import Start, decode, encode
from partywire.engine.peers.options import PeerOptions
from partywire.engine.yamux.limits import YamuxLimits
from partywire.workers.config import parse_config, write_config
from partywire.workers.node import OnionConfig, SocksConfig
from partywire.workers.node.config import TOR_DIAL_TIMEOUT_S
from partywire.workers.node.config_file import read_node_table
from partywire.workers.node.in_party import TABLE_SIZE_MAX, advertised, known_identity, make_identity, node_options
from partywire.workers.node.table import table_of

if TYPE_CHECKING:
    from pathlib import Path

BOB = "ab" * 13

PARTY = """
name = "alice"
[parties]
alice = "127.0.0.1:7101"
bob = "127.0.0.1:7102"
"""

IRIS_PEER = """
[compat.bob]
protocol = "iris"
"""


def problems_of(text: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text)
    return dict(caught.value.problems)


def test_a_party_without_the_table_has_links_without_substreams() -> None:
    config = parse_config(PARTY)
    assert config.node is None
    assert config.link_options.substreams is False
    assert config.link_options.identity_path == ""


def test_the_table_is_that_of_a_node_and_turns_substreams_on(tmp_path: Path) -> None:
    path = tmp_path / "alice.toml"
    path.write_text(f'{PARTY}[node]\nidentity = "alice.key"\nfeatures = 5\n[node.peers]\n{BOB} = ["/dns/bob/tcp/1"]\n')
    config = load_config(path)
    assert config.node is not None
    assert [str(one) for one in config.node.peers[PeerId.parse(BOB)]] == ["/dns/bob/tcp/1"]
    options = config.link_options
    assert (options.substreams, options.features) == (True, 5)
    assert options.identity_path == str(tmp_path / "alice.key")
    assert options.advertised == ("/ip4/127.0.0.1/tcp/7101",)
    assert decode(encode(Start(config.spec, (), options=options))) == Start(config.spec, (), options=options)


def test_all_keys_at_fault_are_named_with_those_of_the_party() -> None:
    found = problems_of(f'{PARTY}[limits]\nring_mib = 3\n[node]\nstor = "peers"\nlisten = "nowhere"\n')
    assert sorted(found) == ["limits.ring_mib", "node.listen", "node.stor"]
    assert sorted(problems_of(f"{PARTY}[node]\n")) == ["node.identity"]
    assert "must be a table" in problems_of(f"node = 3\n{PARTY}")["node"]
    with pytest.raises(ConfigError, match="node: must be a NodeConfig, not a dict"):
        replace(parse_config(PARTY), node={"identity": "x"})  # type: ignore[arg-type]
    [problem] = problems_of(f'io = "in-process"\n{PARTY}[node]\nidentity = "alice.key"\n').items()
    assert problem == ("io", "'in-process' is for a party of one process, without `node`: leave one of them out")


@pytest.mark.parametrize(
    ("byte", "iris", "whose"),
    [(0x93, "", "links"), (0x16, "", "TLS"), (0, IRIS_PEER, "bob dials us"), (0, "", None), (1, IRIS_PEER, None)],
)
def test_a_network_byte_is_no_other_beginning_at_the_port(byte: int, iris: str, whose: str | None) -> None:
    # bob is the greater name, so bob dials.
    text = f'{PARTY}{iris}[node]\nidentity = "k"\n[node.connections]\nnetwork_byte = {byte}\n'
    if whose is None:
        assert parse_config(text).node is not None
    else:
        assert whose in problems_of(text)["node.connections.network_byte"]


WHOLE = NodeConfig(
    identity="alice.key",
    listen=["/ip4/0.0.0.0/tcp/7300", "/unix/run/alice.sock"],
    advertise="/dns4/alice.example/tcp/7300",
    peers={BOB: ["/dns4/bob.example/tcp/7300"]},
    store="peers",
    user_agent='example "1"',
    features=5,
    connections=PeerOptions(
        network_byte=3, allowed=frozenset({PeerId.parse(BOB)}), substreams=YamuxLimits(substreams_max=20)
    ),
    protocols={"/app/echo/1": "module.of_mine:echo"},
    socks=SocksConfig(address="/ip4/127.0.0.1/tcp/9050", username="alice", password_file="socks.password"),
    onion=OnionConfig(control="/unix/run/tor/control", key_file="alice.onion", port=7300, detach=True),
)


@pytest.mark.parametrize("strangers", [None, True, False])
def test_the_node_of_a_party_takes_in_who_is_listed_unless_its_table_says_otherwise(strangers: bool | None) -> None:
    node = NodeConfig(identity="k", peers={BOB: ["/dns4/bob.example/tcp/7300"]}, strangers=strangers)
    told = read_node_table(json.loads(node_options(node).settings))
    assert told.options.allowed == (None if strangers else frozenset({PeerId.parse(BOB)}))
    listed = replace(node, strangers=None, connections=PeerOptions(allowed=frozenset()))
    assert read_node_table(json.loads(node_options(listed).settings)).options.allowed == frozenset()


@pytest.mark.parametrize(
    "node",
    [
        NodeConfig(identity="k"),
        NodeConfig(identity="k", connections=PeerOptions()),
        NodeConfig(identity="k", strangers=False),
        WHOLE,
    ],
)
def test_a_table_reads_back_as_an_equal_configuration(node: NodeConfig) -> None:
    assert read_node_table(table_of(node)) == node
    config = replace(parse_config(PARTY), node=node)
    assert parse_config(write_config(config)) == config


def test_with_tor_a_default_that_was_not_said_stays_the_default() -> None:
    node = replace(WHOLE, connections=None)
    assert read_node_table(table_of(node)).options.dial_timeout_s == TOR_DIAL_TIMEOUT_S


@pytest.mark.parametrize(
    ("listen", "is_own"),
    [("/ip4/127.0.0.1/tcp/7101", True), ("/ip4/127.0.0.1/tcp/7103", False), ("/ip4/127.0.0.1/tcp/7101/ws", False)],
)
def test_the_address_of_the_party_need_not_be_listened_on_again(listen: str, is_own: bool) -> None:
    text = f'{PARTY}[node]\nidentity = "k"\nlisten = "{listen}"\n'
    if is_own:
        assert "leave it out" in problems_of(text)["node.listen"]
    else:
        assert parse_config(text).node is not None


def test_the_largest_table_fits_the_messages_that_carry_it() -> None:
    named = {f"/app/{number:03}/{'x' * 200}": f"module.of_mine:{'f' * 85}" for number in range(64)}
    config = replace(parse_config(PARTY), node=NodeConfig(identity="k", protocols=named))
    assert config.node is not None
    assert len(json.dumps(table_of(config.node))) > TABLE_SIZE_MAX - 1000
    start = Start(config.spec, (), options=config.link_options, node=node_options(config.node))
    assert decode(encode(start)) == start


def test_a_handler_in_the_table_is_a_module_and_a_function() -> None:
    text = f'{PARTY}[node]\nidentity = "k"\n[node.protocols]\n"/app/echo/1" = "%s"\n'
    assert parse_config(text % "module.of_mine:echo").node is not None
    assert list(problems_of(text % "echo")) == ["node.protocols./app/echo/1"]


def test_the_table_of_a_party_has_an_end() -> None:
    line = '%026x = ["/dns4/a-rather-long-name-of-a-peer.example/tcp/7300"]\n'
    text = f'{PARTY}[node]\nidentity = "k"\n[node.peers]\n'
    size = len(line % 0)
    assert parse_config(text + "".join(line % number for number in range(TABLE_SIZE_MAX // size - 10))).node is not None
    found = problems_of(text + "".join(line % number for number in range(TABLE_SIZE_MAX // size + 10)))
    assert "use a store" in found["node.peers"]


def test_peers_are_told_the_address_of_the_party_and_those_of_the_node() -> None:
    def told(node: NodeConfig, host: str = "::1", port: int = 7101) -> list[str]:
        return [str(address) for address in advertised(node, (host, port))]

    assert told(NodeConfig()) == ["/ip6/::1/tcp/7101"]
    assert told(NodeConfig(), "alice.example") == ["/dns/alice.example/tcp/7101"]
    assert told(NodeConfig(), port=0) == []
    assert told(NodeConfig(), "fe80::1%eth0") == []
    assert told(NodeConfig(), "unix:/run/a.sock") == []
    listening = NodeConfig(listen=["/ip4/0.0.0.0/tcp/7300", "/ip4/10.0.0.1/tcp/7300", "/ip4/10.0.0.1/tcp/0"])
    assert told(listening) == ["/ip4/10.0.0.1/tcp/7300", "/ip6/::1/tcp/7101"]
    assert told(replace(listening, advertise="/dns4/a.example/tcp/1")) == ["/dns4/a.example/tcp/1"]


def test_an_identity_that_cannot_be_made_is_known_before_the_start(tmp_path: Path) -> None:
    config = replace(parse_config(PARTY), node=NodeConfig(identity=tmp_path / "nowhere" / "alice.key"))
    with pytest.raises(ConfigError, match=r"no folder .*nowhere"):
        known_identity(config)


def test_the_identity_is_made_once_for_nobody_else_to_read(tmp_path: Path) -> None:
    config: PartyConfig = replace(parse_config(PARTY), node=NodeConfig(identity=tmp_path / "alice.key"))
    assert known_identity(config) is None
    made = make_identity(config)
    assert made is not None
    assert stat.S_IMODE((tmp_path / "alice.key").stat().st_mode) == 0o600
    for again in (make_identity(config), known_identity(config)):
        assert again is not None
        assert again.peer_id == made.peer_id
    (tmp_path / "alice.key").chmod(0o644)
    with pytest.raises(ConfigError) as caught:
        make_identity(config)
    assert caught.value.keys == ("node.identity",)


@pytest.mark.parametrize(
    ("options", "has_echo"),
    [({}, False), ({"liveness_permits": 1}, True), ({"self_check_interval_s": 60.0}, True)],
)
def test_the_gateway_is_told_of_echoes_where_any_may_be_given(options: dict[str, float], has_echo: bool) -> None:
    node = NodeConfig(identity="alice.key", connections=PeerOptions(**options))  # type: ignore[arg-type]
    assert node_options(node).has_echo is has_echo
    assert read_node_table(json.loads(node_options(node).settings)) == replace(node, strangers=False)
