"""Names of protocols, keys, and errors."""

from __future__ import annotations

import copy
import itertools
import pickle

import pytest

from partywire.engine.errors import PartyWireError
from partywire.engine.noise import (
    CIPHERS,
    HASHES,
    PATTERNS,
    NoiseProtocol,
    PrivateKey,
    PublicKey,
    UnsupportedProtocol,
    errors,
)
from partywire.engine.noise.errors import (
    NoiseError,
    NoiseHandshakeFailed,
    NonceExhausted,
    RecordRefused,
    UntrustedStaticKey,
)
from partywire.engine.noise.keys import LowOrderKey
from tests.noise.noise_pair import ALICE, BOB, XX, Ends
from tests.test_structure import FORBIDDEN_WITHOUT_IO, ROOT, imported_names

P = 2**255 - 19

# Every public key whose shared secrets are all zeros: the points of order 1, 2, 4 and 8, each in all of its encodings.
LOW_ORDER = [
    value.to_bytes(32, "little")
    for value in (
        0,
        1,
        P - 1,
        P,
        P + 1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    )
]


@pytest.mark.parametrize(("pattern", "cipher", "hash_"), list(itertools.product(PATTERNS, CIPHERS, HASHES)))
def test_a_protocol_is_parsed_from_its_own_name(pattern: str, cipher: str, hash_: str) -> None:
    protocol = NoiseProtocol(pattern, cipher, hash_)
    assert NoiseProtocol.parse(protocol.name) == protocol


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("", "name"),
        ("Noise", "name"),
        ("noise_XX_25519_AESGCM_SHA256", "name"),
        ("Noise_XX_25519_AESGCM_SHA256_", "name"),
        ("Noise_XX_25519_AESGCM", "name"),
        ("Noise_XXpsk3_25519_AESGCM_SHA256", "pattern"),
        ("Noise_NN_25519_AESGCM_SHA256", "pattern"),
        ("Noise__25519_AESGCM_SHA256", "pattern"),
        ("Noise_XX_448_AESGCM_SHA256", "group"),
        ("Noise_XX_25519_AESGCM256_SHA256", "cipher"),
        ("Noise_XX_25519_aesgcm_SHA256", "cipher"),
        ("Noise_XX_25519_AESGCM_SHA3", "hash"),
    ],
)
def test_another_name_is_refused_with_the_part_that_is_wrong(name: str, part: str) -> None:
    with pytest.raises(UnsupportedProtocol) as caught:
        NoiseProtocol.parse(name)
    assert caught.value.part == part


# Keys.


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_key_of_another_size_is_refused_without_being_shown(size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes") as caught:
        PrivateKey.from_bytes(b"\x5a" * size)
    assert "5a5a" not in str(caught.value)
    assert "ZZ" not in str(caught.value)
    with pytest.raises(ValueError, match="32 bytes"):
        PublicKey(bytes(size))


def test_a_public_key_is_equal_to_the_same_bytes_only() -> None:
    assert PublicKey(ALICE.public.raw) == ALICE.public
    assert ALICE.public != BOB.public
    assert str(ALICE.public) == ALICE.public.raw.hex()
    assert repr(ALICE.public) == f"PublicKey({ALICE.public})"
    assert PublicKey(ALICE.public.raw) in {ALICE.public}


def test_a_private_key_comes_back_from_its_bytes_and_two_new_ones_differ() -> None:
    made = PrivateKey.generate()
    assert PrivateKey.from_bytes(made.secret_bytes()).public == made.public
    assert PrivateKey.generate().public != made.public


def test_a_private_key_never_shows_or_lends_its_secret() -> None:
    secret = ALICE.secret_bytes()
    ends = Ends(XX).run()
    for shown in (repr(ALICE), str(ALICE), f"{ALICE}", repr(ends.alice), repr(ends.alice.split()), repr([ALICE])):
        assert secret.hex() not in shown
        assert repr(secret)[2:-1] not in shown
    for copying in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="secret_bytes"):
            copying(ALICE)


def test_both_ends_of_an_exchange_have_the_same_secret() -> None:
    assert ALICE.exchange(BOB.public) == BOB.exchange(ALICE.public)


@pytest.mark.parametrize("sign", [0, 0x80])
@pytest.mark.parametrize("raw", LOW_ORDER)
def test_a_public_key_of_low_order_is_refused(raw: bytes, sign: int) -> None:
    with pytest.raises(LowOrderKey):
        ALICE.exchange(PublicKey(raw[:31] + bytes([raw[31] | sign])))


# Errors.

EXAMPLES: list[NoiseError] = [
    UnsupportedProtocol("Noise_NN_25519_AESGCM_SHA256", "pattern", "XX or IX or KK"),
    NoiseHandshakeFailed("bob", XX.name, 2, "the message ends 3 bytes early"),
    UntrustedStaticKey("", BOB.public.raw.hex()),
    RecordRefused("bob", 7, "its tag does not fit"),
    NonceExhausted("bob"),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_keeps_type_fields_and_sentence_when_pickled(error: NoiseError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert vars(again) == vars(error)
    assert str(again) == str(error)
    assert str(error).isprintable()
    assert ("bob" in str(error)) == (getattr(error, "peer", "") == "bob")


def test_the_examples_are_every_error_and_all_are_listed() -> None:
    defined = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, NoiseError) and value is not NoiseError
    }
    assert defined == {type(error).__name__ for error in EXAMPLES}
    assert defined | {"NoiseError"} == set(errors.__all__)
    assert issubclass(NoiseError, PartyWireError)


# The half of the engine that this is part of.


def test_noise_does_no_io_and_reads_no_clock() -> None:
    sources = list((ROOT / "engine" / "noise").glob("*.py"))
    assert len(sources) > 5
    for path in sources:
        names = imported_names(path)
        assert not {name.split(".")[0] for name in names} & FORBIDDEN_WITHOUT_IO
        ours = {name for name in names if name.startswith("partywire.")}
        others = {name for name in ours if not name.startswith("partywire.engine.noise")}
        assert others <= {"partywire.engine.errors", "partywire.shm.blank_pages"}
