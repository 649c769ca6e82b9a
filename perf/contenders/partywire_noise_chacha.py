"""Ours as in `partywire_batch`, over links secured by Noise XX with ChaCha20-Poly1305."""

from __future__ import annotations

from functools import partial

from .partywire_security import open_secured

open_party = partial(open_secured, mode="chacha20-poly1305")
