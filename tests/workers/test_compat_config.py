"""The [compat] tables of a configuration: what is accepted, and that each mistake is reported with its key."""

from __future__ import annotations

import pytest

from partywire.engine.channel.link_security import LinkSecurity
from partywire.engine.iris_options import VERSION_READY, IrisOptions
from partywire.engine.preamble import SecurityMode
from partywire.workers.config import parse_config, write_config
from partywire.workers.errors import ConfigError

GOOD = """
name = "alice"
[parties]
alice = "127.0.0.1:7001"
bob = "127.0.0.1:7002"
charlie = "127.0.0.1:7003"
[compat.bob]
protocol = "iris"
"""

SECURED = (
    GOOD
    + """tls = true
listen = "127.0.0.1:7012"
[security]
mode = "none"
certificate = "alice.crt"
key = "alice.key"
ca = "/keys/ca.crt"
"""
)


def keys(text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text)
    return caught.value.keys


def test_a_table_makes_its_peer_speak_the_protocol_and_nobody_else() -> None:
    assert [peer.iris for peer in parse_config(GOOD).spec.parties] == [None, IrisOptions(1), None]
    more = parse_config(GOOD + 'connections = 96\nversion = "2025-11"\n')
    assert more.spec.parties[1].iris == IrisOptions(96, VERSION_READY)
    assert parse_config(GOOD[: GOOD.index("[compat")]).compat == {}


def test_what_is_written_is_read_back() -> None:
    tls = 'listen = "127.0.0.1:7012"\ncertificate_name'
    for text in (
        GOOD + 'connections = 2\nversion = "2025-11"\n',
        SECURED.replace('listen = "127.0.0.1:7012"', f'{tls} = "bob.example"'),
    ):
        config = parse_config(text)
        assert parse_config(write_config(config)) == config


def test_a_peer_may_speak_tls_whatever_the_mode_of_other_links_is() -> None:
    config = parse_config(SECURED, "/configs/alice.toml")
    assert config.spec.parties[1].iris == IrisOptions(tls=True, listen="127.0.0.1:7012")
    secured = LinkSecurity(SecurityMode.TLS, "/configs/alice.crt", "/configs/alice.key", "/keys/ca.crt")
    assert config.link_options.security == (LinkSecurity(), secured, LinkSecurity())
    pinned = parse_config(SECURED + '[security.peers.bob]\nca = "bob-ca.crt"\n', "/configs/alice.toml")
    assert pinned.link_options.security[1].ca == "/configs/bob-ca.crt"
    plain = parse_config(SECURED.replace("tls = true\nlisten", "#"))
    assert plain.link_options.security == (LinkSecurity(),) * 3


def test_a_link_of_tls_needs_no_consent_to_plaintext_and_those_beside_it_do() -> None:
    elsewhere = SECURED.replace("127.0.0.1", "10.0.0.1").replace('"none"', '"tls"')
    assert parse_config(elsewhere).spec.parties[1].iris is not None
    assert keys(elsewhere.replace('"tls"', '"none"')) == ("insecure",)


def test_who_dials_has_no_port_for_the_peer() -> None:
    bob = SECURED.replace("compat.bob", "compat.alice").replace('name = "alice"', 'name = "bob"')
    assert keys(bob) == ("compat.alice.listen",)
    assert parse_config(bob.replace('listen = "127.0.0.1:7012"', "")).spec.parties[0].iris == IrisOptions(tls=True)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (("tls = true", 'tls = "yes"'), "compat.bob.tls"),
        (('listen = "127.0.0.1:7012"', ""), "compat.bob.listen"),
        (('"127.0.0.1:7012"', "7012"), "compat.bob.listen"),
        (('"127.0.0.1:7012"', '"127.0.0.1"'), "compat.bob.listen"),
        (('"127.0.0.1:7012"', '"unix:/tmp/alice.sock"'), "compat.bob.listen"),
        (('"127.0.0.1:7012"', '"127.0.0.1:7001"'), "compat.bob.listen"),  # of all other links
        (("tls = true", "tls = false"), "compat.bob.listen"),
        (("[security]", 'certificate_name = ""\n[security]'), "compat.bob.certificate_name"),
        (("[security]", 'certificate_name = "b\u00f6b"\n[security]'), "compat.bob.certificate_name"),
        (('key = "alice.key"', ""), "security.key"),
        (('ca = "/keys/ca.crt"', ""), "security.ca"),
        ((SECURED[SECURED.index("[security]") :], ""), "security"),
        (("[security]", "[security.peers.bob]\nmode = 'tls'\n[security]"), "security.peers.bob.mode"),
        (("[security]", "[security.peers.bob]\npublic_key = 'a'\n[security]"), "security.peers.bob.public_key"),
        (
            ("[security]", "certificate_name = 'b'\n[security.peers.bob]\ncertificate = 'b.crt'\n[security]"),
            "compat.bob.certificate_name",
        ),
    ],
)
def test_each_mistake_about_tls_names_its_key(change: tuple[str, str], key: str) -> None:
    assert key in keys(SECURED.replace(*change, 1))


def test_two_peers_that_speak_tls_have_a_port_each() -> None:
    charlie = '[compat.charlie]\nprotocol = "iris"\ntls = true\nlisten = "127.0.0.1:70'
    assert keys(SECURED + charlie + '12"\n') == ("compat.charlie.listen",)
    assert parse_config(SECURED + charlie + '13"\n').spec.parties[2].iris is not None


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (('protocol = "iris"', ""), "compat.bob.protocol"),
        (('"iris"', '"other"'), "compat.bob.protocol"),
        (('"iris"', '"iris"\nconnections = 0'), "compat.bob.connections"),
        (('"iris"', '"iris"\nconnections = 97'), "compat.bob.connections"),
        (('"iris"', '"iris"\nconnections = true'), "compat.bob.connections"),
        (('"iris"', '"iris"\nversion = 2025'), "compat.bob.version"),
        (('"iris"', '"iris"\ncolour = 1'), "compat.bob.colour"),
        (("[compat.bob]", "[compat.dora]"), "compat.dora"),
        (("[compat.bob]", "[compat.alice]"), "compat.alice"),
        (("[compat.bob]\nprotocol", "[compat]\nprotocol"), "compat.protocol"),
        (('"alice"\n', '"alice"\nworkers = 2\n'), "workers"),
        (('"127.0.0.1:7002"', '"unix:/tmp/bob.sock"'), "compat.bob"),
    ],
)
def test_each_mistake_names_its_key(change: tuple[str, str], key: str) -> None:
    assert keys(GOOD.replace(*change, 1)) == (key,)


def test_what_is_wrong_elsewhere_is_not_blamed_on_the_table() -> None:
    assert keys(GOOD.replace('"127.0.0.1:7001"', '"nowhere"')) == ("parties.alice",)
    assert keys("compat = 3\n" + GOOD[: GOOD.index("[compat")]) == ("compat",)


def test_outside_of_this_host_plaintext_must_be_asked_for() -> None:
    elsewhere = GOOD.replace("127.0.0.1:7002", "10.0.0.2:7002")
    assert "compat.bob" in keys(elsewhere)
    assert parse_config("insecure = true\n" + elsewhere).spec.parties[1].iris is not None
