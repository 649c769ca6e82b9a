"""Our own keys: their file, and that the secret stays there."""

from __future__ import annotations

import copy
import pickle
import stat
from typing import TYPE_CHECKING

import pytest

from partywire.engine.channel.errors import CredentialError
from partywire.engine.peers.identity import NodeIdentity

if TYPE_CHECKING:
    from pathlib import Path


def test_an_identity_is_the_same_behind_its_file_which_only_we_can_read(tmp_path: Path) -> None:
    path = tmp_path / "identity"
    made = NodeIdentity.create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    read = NodeIdentity.load(path)
    assert (read.peer_id, read.public_key) == (made.peer_id, made.public_key)
    assert read.noise_key.public == made.noise_key.public
    assert [entry.name for entry in tmp_path.iterdir()] == ["identity"]


def test_keys_follow_from_the_secret_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "identity"
    path.write_text("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60\n")  # RFC 8032, 7.1, test 1
    path.chmod(0o600)
    identity = NodeIdentity.load(path)
    assert identity.public_key.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert str(identity.peer_id) == "13ee54204fd5370a8e80131ce8"
    assert identity.noise_key.public.raw.hex() == ("04b31ecfb716da78fc19518f96b7defd232d8237c6008780f6ce9beced7e4514")


def test_a_file_that_is_there_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "identity"
    NodeIdentity.create(path)
    before = path.read_bytes()
    with pytest.raises(CredentialError, match="exists"):
        NodeIdentity.create(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["identity"]


@pytest.mark.parametrize("content", ["", "ab" * 31, "ab" * 33, "zz" * 32])
def test_a_file_with_something_else_is_refused_without_showing_it(tmp_path: Path, content: str) -> None:
    path = tmp_path / "identity"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(CredentialError, match="64 hexadecimal digits") as caught:
        NodeIdentity.load(path)
    assert not content or content not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "identity"
    NodeIdentity.create(path)
    path.chmod(0o640)
    with pytest.raises(CredentialError, match="chmod 600"):
        NodeIdentity.load(path)


def test_a_file_that_is_not_there_is_a_plain_error(tmp_path: Path) -> None:
    with pytest.raises(CredentialError, match="cannot be read"):
        NodeIdentity.load(tmp_path / "none")
    with pytest.raises(CredentialError, match="cannot be written"):
        NodeIdentity.create(tmp_path / "none" / "identity")


def test_the_secret_is_in_no_text_and_no_copy(tmp_path: Path) -> None:
    path = tmp_path / "identity"
    identity = NodeIdentity.create(path)
    secret = path.read_text().strip()
    shown = repr(identity) + str(identity) + repr(identity.noise_key) + str(identity.sign(updated_at=0))
    assert secret not in shown
    assert identity.noise_key.secret_bytes().hex() not in shown
    for copying in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not pickled or copied"):
            copying(identity)
