"""Every place of a configuration and of the command that takes an address: host:port and multiaddress alike, and what
each refuses, with its key. The files that are written read back as what they were written from."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from partywire import PartyConfig
from partywire.engine.addresses import parse_address
from partywire.engine.commands import Start, decode, encode
from partywire.engine.socks_options import SocksOptions
from partywire.workers.cli_init import init_command
from partywire.workers.cli_keygen import check_hosts
from partywire.workers.config import load_config, parse_config, write_config
from partywire.workers.errors import ConfigError
from partywire.workers.exit_code import UsageMistake
from partywire.workers.socks_config import SocksConfig
from tests.support.scripted_tor import onion_id

if TYPE_CHECKING:
    from pathlib import Path

ONION = f"/onion3/{onion_id(2)}:7101"
PEER = "QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC"

SECURED = """[security]
mode = "tls"
certificate = "bob.crt"
key = "bob.key"
ca = "ca.crt"
"""
TABLES = {
    "parties.alice": "",
    "listen.address": "[listen]\naddress = {}\n",
    "compat.zoe.listen": f'{SECURED}[compat.zoe]\nprotocol = "iris"\ntls = true\nlisten = {{}}\n',
    "http.listen": "[http]\ninsecure = true\nlisten = {}\n",
    "dial.client_host": "[dial]\nclient_host = {}\n",
    "dial.socks.address": "[dial.socks]\naddress = {}\n",
}
"""Each key that takes an address, with the table that says it to bob, whom zoe dials and who dials alice."""

HOST_AND_PORT = ("/ip4/10.0.0.1/tcp/7101", "10.0.0.1:7101")
FORMS: list[tuple[str, str, str]] = [
    *((place, *HOST_AND_PORT) for place in TABLES if place not in ("dial.client_host", "dial.socks.address")),
    *((place, "/ip6/fd00::2/tcp/7101", "[fd00::2]:7101") for place in ("parties.alice", "listen.address")),
    *((place, "/dns/a.example/tcp/7101", "a.example:7101") for place in ("parties.alice", "listen.address")),
    *((place, "/unix/run/a.sock", "unix:/run/a.sock") for place in ("parties.alice", "listen.address")),
    ("listen.address", "/ip6zone/eth0/ip6/fe80::1/tcp/7101", "[fe80::1%eth0]:7101"),
    ("dial.client_host", "/ip4/10.0.0.1", "10.0.0.1"),
    ("dial.client_host", "/ip6/fd00::1", "fd00::1"),
    ("dial.client_host", "/dns/bob.example", "bob.example"),
]


def text_of(place: str, address: str) -> str:
    """Bob's file with an address at a place."""
    alice = address if place == "parties.alice" else "127.0.0.1:1"
    zoe = 'zoe = "127.0.0.1:9"\n' if "zoe" in place else ""
    parties = f'name = "bob"\ninsecure = true\n[parties]\nalice = "{alice}"\nbob = "127.0.0.1:2"\n{zoe}'
    return parties + TABLES[place].format(f'"{address}"')


def problems_of(text: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text)
    return dict(caught.value.problems)


def said(config: PartyConfig, place: str) -> Any:
    """What a configuration makes of the address at a place."""
    match place:
        case "parties.alice":
            return config.spec.parties[0].host, config.spec.parties[0].port
        case "listen.address":
            return config.listen_addresses
        case "compat.zoe.listen":
            iris = config.spec.parties[2].iris
            assert iris is not None
            return parse_address(iris.listen, listening=True)
        case "http.listen":
            assert config.http is not None
            return config.http.address, config.http.unix_path
        case "dial.client_host":
            return config.link_options.client_host
    return config.link_options.socks


@pytest.mark.parametrize(("place", "multiaddress", "plain"), FORMS)
def test_both_forms_say_the_same_and_are_written_again(place: str, multiaddress: str, plain: str) -> None:
    one, other = parse_config(text_of(place, multiaddress)), parse_config(text_of(place, plain))
    assert said(one, place) == said(other, place)
    assert parse_config(write_config(one)) == one


@pytest.mark.parametrize("place", ["parties.alice", "listen.address"])
@pytest.mark.parametrize("family", ["dns4", "dns6"])
def test_a_name_of_one_family_is_kept_as_such(place: str, family: str) -> None:
    config = parse_config(text_of(place, f"/{family}/a.example/tcp/7101"))
    assert said(config, place) in ((f"/{family}/a.example", 7101), ((f"/{family}/a.example", 7101),))
    assert parse_config(write_config(config)) == config
    assert decode(encode(Start(config.spec, ()))) == Start(config.spec, ())


REFUSED = {
    "/memory/7": "within one process",
    f"/ip4/10.0.0.1/tcp/7101/p2p/{PEER}": "leave /p2p out",
    "/ip4/10.0.0.1/tcp/7101/ws": "leave /ws out",
    "/ip4/10.0.0.1/udp/7101/utp": "/utp has a place",
    "/ip4/10.0.0.1/tcp/70000": "2**16",
    "/nonsense": "not a protocol",
}


@pytest.mark.parametrize("place", TABLES)
@pytest.mark.parametrize("address", REFUSED)
def test_what_cannot_be_used_is_named_by_its_key_with_a_sentence(place: str, address: str) -> None:
    assert REFUSED[address] in problems_of(text_of(place, address))[place]


@pytest.mark.parametrize(
    ("place", "address", "what"),
    [
        ("parties.alice", "/ip4/10.0.0.1", "lacks its port"),
        ("parties.alice", "/ip4/10.0.0.1/tcp/0", "between 1 and 65535"),
        ("listen.address", ONION, "listen where Tor delivers"),
        ("http.listen", ONION, "listen where Tor delivers"),
        ("compat.zoe.listen", "/unix/run/a.sock", "must be an address of TCP"),
        ("dial.client_host", "/ip4/10.0.0.1/tcp/1", "has no port"),
        ("dial.client_host", "/unix/run/a.sock", "has no port"),
        ("dial.socks.address", ONION, "neither an address of TCP nor of a unix socket"),
        ("dial.socks.address", "nowhere", "not host:port"),
    ],
)
def test_some_addresses_are_for_other_places_only(place: str, address: str, what: str) -> None:
    assert what in problems_of(text_of(place, address))[place]


def test_http_beyond_this_host_is_refused_in_both_forms() -> None:
    text = text_of("http.listen", "/ip4/0.0.0.0/tcp/8080")
    assert "other hosts can reach it" in problems_of(text.replace("[http]\ninsecure = true", "[http]"))["http.insecure"]
    for here in ("/ip4/127.0.0.1/tcp/0", "/ip6/::1/tcp/8080", "/dns4/localhost/tcp/8080", "/unix/run/http.sock"):
        config = parse_config(text_of("http.listen", here).replace("[http]\ninsecure = true", "[http]"))
        assert config.http is not None
        assert config.http.is_private


def test_addresses_that_certainly_are_one_are_not_those_of_two_parties() -> None:
    for one in ("localhost:2", "/ip4/127.0.0.1/tcp/2", "[::ffff:127.0.0.1]:2", "/dns4/localhost/tcp/2"):
        assert problems_of(text_of("parties.alice", one)) == {"parties.bob": "has the same address as alice"}
    assert parse_config(text_of("parties.alice", "127.0.0.2:2"))


# Tor and other proxies.


def test_an_onion_service_is_dialled_by_a_proxy_and_listened_for_by_tor() -> None:
    text = text_of("parties.alice", ONION)
    assert "we dial alice: set [dial.socks] address" in problems_of(text)["parties.alice"]
    config = parse_config(text + '[dial.socks]\naddress = "127.0.0.1:9050"\n')
    assert config.link_options.socks == SocksOptions("/ip4/127.0.0.1/tcp/9050")
    assert parse_config(write_config(config)) == config
    assert decode(encode(Start(config.spec, (), options=config.link_options))) is not None
    assert not config.is_loopback
    # alice does not dial bob, but has to listen somewhere else than at the onion service.
    own = text.replace('name = "bob"', 'name = "alice"')
    assert "set [listen] address to where Tor delivers" in problems_of(own)["parties.alice"]
    assert parse_config(own + '[listen]\naddress = "127.0.0.1:7101"\n').listen_addresses == (("127.0.0.1", 7101),)


def test_plaintext_to_an_onion_service_must_be_allowed_by_name() -> None:
    proxy = '[dial.socks]\naddress = "127.0.0.1:9050"\n'
    assert list(problems_of(text_of("parties.alice", ONION).replace("insecure = true\n", "") + proxy)) == ["insecure"]


def test_loopback_behind_a_proxy_for_all_is_that_of_another_host() -> None:
    text = text_of("parties.alice", "127.0.0.1:1").replace("insecure = true\n", "")
    proxy = '[dial.socks]\naddress = "10.0.0.9:1080"\n'
    assert parse_config(text + proxy).is_loopback
    assert list(problems_of(f'{text}{proxy}scope = "all"\n')) == ["insecure"]
    unix = text_of("parties.alice", "/unix/run/a.sock").replace("insecure = true\n", "")
    assert parse_config(f'{unix}{proxy}scope = "all"\n').is_loopback


def test_files_of_a_proxy_are_beside_the_configuration(tmp_path: Path) -> None:
    table = '[dial.socks]\naddress = "/unix/run/tor/socks"\nscope = "all"\nusername = "us"\npassword_file = "pw"\n'
    path = tmp_path / "bob.toml"
    path.write_text(text_of("parties.alice", "10.0.0.1:1") + table)
    config = load_config(path)
    assert config.link_options.socks == SocksOptions("/unix/run/tor/socks", "all", "us", str(tmp_path / "pw"))
    assert parse_config(write_config(config)) == config
    assert parse_config(text_of("parties.alice", "10.0.0.1:1")).link_options.socks is None


@pytest.mark.parametrize(
    ("table", "key", "what"),
    [
        ("socks = 3", "dial.socks", "must be a table"),
        ('[dial.socks]\nscope = "all"', "dial.socks.address", "is missing"),
        ('[dial.socks]\naddress = "a:1"\nport = 3', "dial.socks.port", "is not a setting; known are address, scope"),
        ("[dial.socks]\naddress = 9050", "dial.socks.address", "must be text"),
        ('[dial.socks]\naddress = "a:1"\nscope = "none"', "dial.socks.scope", "neither of onion, all"),
        ('[dial.socks]\naddress = "a:1"\nusername = "u"', "dial.socks.password_file", "go together"),
        ('[dial.socks]\naddress = "a:1"\npassword_file = "u"', "dial.socks.username", "go together"),
    ],
)
def test_what_is_wrong_with_a_proxy_is_named_by_its_key(table: str, key: str, what: str) -> None:
    text = text_of("parties.alice", "10.0.0.1:1")
    assert what in problems_of(text + ("[dial]\n" if table.startswith("socks") else "") + table)[key]


def test_links_go_by_the_proxy_of_the_node_unless_they_have_their_own() -> None:
    node = '[node]\nidentity = "k"\n[node.socks]\naddress = "127.0.0.1:9050"\n'
    config = parse_config(text_of("parties.alice", ONION) + node)
    assert config.link_options.socks == SocksOptions("/ip4/127.0.0.1/tcp/9050")
    own = replace(config, socks=SocksConfig(address="127.0.0.1:1080", scope="all"))
    assert own.link_options.socks == SocksOptions("/ip4/127.0.0.1/tcp/1080", "all")
    for insecure in (True, None):
        with pytest.raises(ConfigError, match="must be a SocksConfig, not a str"):
            replace(config, insecure=insecure, socks="127.0.0.1:1080")  # type: ignore[arg-type]


# By hand, and on the command line.


def test_a_configuration_made_by_hand_takes_both_forms_and_pairs() -> None:
    parties = {"alice": "/ip4/127.0.0.1/tcp/1", "bob": ("127.0.0.1", 2), "carol": "unix:/run/c"}
    config = PartyConfig(name="alice", parties=parties, listen=["/dns4/localhost/tcp/3", ("::1", 3)])
    assert dict(config.parties) == {"alice": ("127.0.0.1", 1), "bob": ("127.0.0.1", 2), "carol": ("unix:/run/c", 0)}
    assert replace(config, name="bob", listen=None).parties == config.parties
    with pytest.raises(ConfigError, match=r"parties\.bob: .* is a multiaddress where a host belongs"):
        PartyConfig(name="alice", parties={**parties, "bob": ("/ip4/127.0.0.1", 1)})
    for wrong in (("/ip4/127.0.0.1/tcp/1", 1), ("/onion3/short", 1), 7, ("127.0.0.1", "1")):
        with pytest.raises(ConfigError, match=r"parties\.bob: "):
            PartyConfig(name="alice", parties={**parties, "bob": wrong})


def test_init_takes_multiaddresses_beside_the_rest(tmp_path: Path) -> None:
    names = ["alice=/ip4/127.0.0.1/tcp/7001", "bob=127.0.0.1:7002", "carol=/unix/run/c=d.sock"]
    made = CliRunner().invoke(init_command, [*names, "--out", str(tmp_path)], standalone_mode=False)
    assert made.exception is None
    addresses = [party.address for party in load_config(tmp_path / "bob.toml").spec.parties]
    assert addresses == ["127.0.0.1:7001", "127.0.0.1:7002", "unix:/run/c=d.sock"]
    refused = CliRunner().invoke(init_command, ["alice=/memory/1", "bob=127.0.0.1:1"], standalone_mode=False)
    assert isinstance(refused.exception, UsageMistake)
    assert "within one process" in str(refused.exception)


def test_keygen_takes_hosts_as_multiaddresses_without_a_port() -> None:
    hosts = ("/ip4/10.0.0.1", "bob.example", "/dns6/six.example")
    assert check_hosts(hosts, ("bob",), noise=False) == ("10.0.0.1", "bob.example", "six.example")
    with pytest.raises(UsageMistake, match="more than the address of a host"):
        check_hosts(("/ip4/10.0.0.1/tcp/1",), ("bob",), noise=False)
