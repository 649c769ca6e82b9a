"""The [compat] tables of a configuration: what is accepted, and that each mistake is reported with its key."""

from __future__ import annotations

import pytest

from partywire.engine.iris_options import VERSION_READY, IrisOptions
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
    config = parse_config(GOOD + 'connections = 2\nversion = "2025-11"\n')
    assert parse_config(write_config(config)) == config


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
