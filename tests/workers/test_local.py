"""How many parties there can be, wherever the number is said: both ends of the limit, and one beyond each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from partywire.engine import limits
from partywire.engine.errors import LinkProtocolError
from partywire.engine.handshake_messages import Hello
from partywire.engine.topology import shares_of_links
from partywire.workers.cli import run
from partywire.workers.config import PartyConfig, load_config, parse_config, write_config
from partywire.workers.errors import ConfigError
from partywire.workers.local import make_local_parties

if TYPE_CHECKING:
    from pathlib import Path


def addresses(count: int) -> dict[str, str]:
    return {f"party{index}": f"127.0.0.1:{7001 + index}" for index in range(count)}


@pytest.mark.parametrize("count", [2, 9])
def test_two_to_nine_parties_can_be_configured(count: int) -> None:
    assert len(PartyConfig(name="party0", parties=addresses(count)).spec.peers) == count - 1
    with make_local_parties(count) as parties:
        assert [config.spec.index for config in parties.configs] == list(range(count))
        assert len({config.listen_addresses for config in parties.configs}) == count


@pytest.mark.parametrize("count", [1, 10])
def test_fewer_or_more_parties_are_refused_in_a_sentence(count: int) -> None:
    with pytest.raises(ConfigError, match=f"parties: lists {count}, between 2 and 9 are needed"):
        PartyConfig(name="party0", parties=addresses(count))
    with pytest.raises(ConfigError, match=f"parties: {count} are asked for, between 2 and 9 are possible"):
        make_local_parties(count)


@pytest.mark.parametrize("count", [2, 9])
def test_init_writes_two_to_nine_files(count: int, tmp_path: Path) -> None:
    arguments = [f"{name}={address}" for name, address in addresses(count).items()]
    assert run(["init", *arguments, "--out", str(tmp_path)]) == 0
    assert len(load_config(tmp_path / "party1.toml").parties) == count


@pytest.mark.parametrize("count", [1, 10])
def test_init_refuses_fewer_or_more_parties(count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [f"{name}={address}" for name, address in addresses(count).items()]
    assert run(["init", *arguments, "--out", str(tmp_path)]) == 2
    assert f"lists {count}, between 2 and 9 are needed" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count", [1, 10])
def test_a_local_run_refuses_fewer_or_more_parties(count: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", "digits", "--local", str(count)]) == 2
    assert f"'--local': {count} is not in the range 2<=x<=9" in capsys.readouterr().err


@pytest.mark.parametrize("links", [1, 8])
def test_links_of_an_io_process_are_read_and_written(links: int) -> None:
    config = PartyConfig(name="party0", parties=addresses(9), links_per_io_process=links)
    assert parse_config(write_config(config)).links_per_io_process == links


@pytest.mark.parametrize("links", [0, 9])
def test_links_of_an_io_process_have_bounds(links: int) -> None:
    with pytest.raises(ConfigError, match=f"links_per_io_process: {links} is not between 1 and 8"):
        PartyConfig(name="party0", parties=addresses(9), links_per_io_process=links)
    with pytest.raises(ValueError, match=f"{links} links for each I/O process, between 1 and 8 are possible"):
        shares_of_links(range(1, 9), links)


def test_links_are_shared_out_as_evenly_as_can_be() -> None:
    assert shares_of_links([1, 2, 4], 1) == [[1], [2], [4]]
    assert shares_of_links([0, 1, 2, 3, 4, 5, 7, 8], 3) == [[0, 1], [2, 3, 4], [5, 7, 8]]
    assert shares_of_links(range(8), 8) == [list(range(8))]
    assert shares_of_links([1], 8) == [[1]]


def test_a_local_run_of_many_parties_shares_its_io_processes() -> None:
    for count, links in ((3, 1), (4, 3), (9, 8)):
        with make_local_parties(count) as parties:
            assert {config.links_per_io_process for config in parties.configs} == {links}


def test_a_peer_that_lists_ten_parties_is_refused_before_its_list_is_read() -> None:
    names = tuple(addresses(limits.PARTIES_MAX))
    wire = bytearray(Hello(names[0], names[1], bytes(32), party_set=names).encode())
    count_at = 2 + sum(1 + len(name) for name in names[:2])  # behind the version and two names
    assert wire[count_at] == limits.PARTIES_MAX
    wire[count_at] += 1
    with pytest.raises(LinkProtocolError, match="parties in a HELLO"):
        Hello.decode_untrusted(bytes(wire))
