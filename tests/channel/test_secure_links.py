"""Links between process families that are secured: bytes in bulk both ways, clean ends, cuts, and who is not let in."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from partywire.engine.channel.link_security import LinkSecurity
from partywire.engine.commands import LinkFailed, LinkProgress, Stopped
from partywire.engine.link_options import LinkOptions
from partywire.engine.preamble import SecurityMode
from tests.support.certificates import issue, noise_links, tls_link
from tests.support.family import Opener, make_listener, make_parties

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


NAMES = ("alice", "bob")
BULK = 8 << 20


class Pair:
    """Alice and bob, each a family of processes, with the security that each is to have."""

    def __init__(self, stack: ExitStack, links: tuple[LinkSecurity, LinkSecurity], workers: int = 1) -> None:
        listeners = [stack.enter_context(make_listener()) for _ in NAMES]
        self.openers = []
        for party, listener, link in zip(make_parties(listeners, NAMES), listeners, links, strict=True):
            options = LinkOptions(1 << 20, 1 << 16, connect_timeout_s=5.0, security=(link, link))
            opener = Opener(party, listener, options=options, workers=workers)
            stack.callback(opener.close)
            self.openers.append(opener)
        self.alice, self.bob = self.openers

    def up(self) -> Pair:
        self.alice.wait(lambda: self.alice.is_up and self.bob.is_up and self.alice.pids and self.bob.pids, [self.bob])
        return self


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[LinkSecurity, LinkSecurity]:
    folder = tmp_path_factory.mktemp("tls")
    ca = issue("ca", is_ca=True).write(folder, "ca")
    alice, bob = (tls_link(issue(name, ca).write(folder, name), ca=ca) for name in NAMES)
    return alice, bob


@pytest.mark.parametrize("kind", ["tls", "noise"])
def test_bulk_travels_both_ways_at_once_and_the_end_is_clean(
    stack: ExitStack, tls: tuple[LinkSecurity, LinkSecurity], kind: str, tmp_path: Path
) -> None:
    pair = Pair(stack, tls if kind == "tls" else noise_links(tmp_path, SecurityMode.NOISE_KK_CHACHA)).up()
    alice, bob = pair.openers
    data = bytes(range(256)) * (BULK // 256)
    mirrored = data[::-1]
    step = 100_000
    for start in range(0, BULK, step):
        alice.send(1, data[start : start + step], others=[bob])
        bob.send(0, mirrored[start : start + step], others=[alice])
    received = alice.lanes[1, 0].received, bob.lanes[0, 0].received
    alice.wait(lambda: len(received[0]) == len(received[1]) == BULK, [bob])
    assert bytes(received[0]) == mirrored
    assert bytes(received[1]) == data
    bob.finish([alice])
    alice.finish([bob])
    for opener in pair.openers:
        opener.request_close()
    alice.wait(lambda: alice.message(Stopped) and bob.message(Stopped), [bob])
    for opener in pair.openers:
        stopped = opener.message(Stopped)
        assert stopped is not None
        assert stopped.complaints == []
        assert all(lane.end is not None and lane.end.clean for lane in opener.lanes.values())


def rejected(pair: Pair) -> tuple[LinkFailed, str]:
    """What bob, who dials, ends with, and why alice goes on waiting."""

    def is_over() -> bool:
        return pair.bob.message(LinkFailed) is not None and last_cause(pair.alice) != ""

    pair.alice.wait(is_over, [pair.bob])
    failed = pair.bob.message(LinkFailed)
    assert failed is not None
    return failed, last_cause(pair.alice)


def last_cause(opener: Opener) -> str:
    causes = [said.cause for said in opener.messages if isinstance(said, LinkProgress)]
    return "" if not causes or "has not dialled" in causes[-1] else causes[-1]


@pytest.mark.parametrize("secured", NAMES)
def test_ends_of_different_modes_refuse_each_other_and_name_both(
    stack: ExitStack, tls: tuple[LinkSecurity, LinkSecurity], secured: str
) -> None:
    plain = LinkSecurity()
    pair = Pair(stack, (tls[0], plain) if secured == "alice" else (plain, tls[1]))
    failed, cause = rejected(pair)
    assert failed.code == "SECURITY"
    modes = ("'tls' at alice", "'none' at bob") if secured == "alice" else ("'none' at alice", "'tls' at bob")
    for words in modes:
        assert words in failed.message
        assert words in cause
    assert not pair.alice.is_up
    assert pair.alice.message(LinkFailed) is None  # somebody else may come, who is bob


def test_who_cannot_prove_to_be_the_peer_is_refused_and_hears_why(
    stack: ExitStack, tls: tuple[LinkSecurity, LinkSecurity], tmp_path: Path
) -> None:
    mallory = issue("bob").write(tmp_path, "mallory")
    alice, bob = tls
    failed, cause = rejected(
        Pair(stack, (alice, replace(bob, certificate=mallory.certificate_path, key=mallory.key_path)))
    )
    assert failed.code == "CREDENTIALS"
    assert "does not know the issuer of our certificate" in failed.message
    assert "signed by itself" in cause


def test_a_key_that_cannot_be_read_ends_the_link_with_a_sentence(
    stack: ExitStack, tls: tuple[LinkSecurity, LinkSecurity], tmp_path: Path
) -> None:
    pair = Pair(stack, (tls[0], replace(tls[1], key=str(tmp_path / "missing.key"))))
    pair.bob.wait(lambda: pair.bob.message(LinkFailed), [pair.alice])
    failed = pair.bob.message(LinkFailed)
    assert failed is not None
    assert failed.code == "LOCAL"
    assert "missing.key cannot be read: no such file" in failed.message
