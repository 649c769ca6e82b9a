"""Ours with secured links: the modes, each a contender of its own, played as `partywire_batch` plays.

Every party process makes its files by itself. So that they fit together, the authority and the keys of Noise are made
of fixed numbers: they secure nothing, and are worth nothing outside a measurement.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec

from partywire import BlockingParty, SecurityConfig
from partywire.engine.noise import PrivateKey
from partywire.workers.keygen import NewFile, make_authority, noise_security, tls_files, tls_security, write_files

from .partywire_batch import BatchParty
from .partywire_config import party_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from partywire import PartyConfig
    from partywire.perf.contender import Place
    from partywire.perf.workloads import Workload

AUTHORITY_NUMBER = 0xC0FFEE


def tls_of(config: PartyConfig, folder: Path) -> SecurityConfig:
    """TLS 1.3, with a certificate for this party from the authority that everybody can make."""
    authority = make_authority(key=ec.derive_private_key(AUTHORITY_NUMBER, ec.SECP256R1()))
    write_files(folder, tls_files([config.name], 1, authority))
    return tls_security(config.name, f"{folder}/")


def noise_of(config: PartyConfig, folder: Path, cipher: str) -> SecurityConfig:
    """Noise XX, with the key of this party and the public keys of all."""
    keys = {name: PrivateKey.from_bytes(hashlib.sha256(name.encode()).digest()) for name in config.parties}
    content = keys[config.name].secret_bytes().hex().encode()
    write_files(folder, {f"{config.name}.noise": NewFile(content, is_private=True)})
    public = {name: str(key.public) for name, key in keys.items()}
    return noise_security(config.name, public, "XX", cipher, f"{folder}/")


@contextmanager
def open_secured(place: Place, work: Workload, mode: str) -> Iterator[BatchParty]:
    """An open party whose links are secured by TLS, or by Noise with the cipher `mode`."""
    config = party_config(place)
    with TemporaryDirectory() as folder:
        keys = Path(folder)
        security = tls_of(config, keys) if mode == "tls" else noise_of(config, keys, mode)
        with BlockingParty(replace(config, security=security), listener=place.listener) as party:
            yield BatchParty(party, work)
