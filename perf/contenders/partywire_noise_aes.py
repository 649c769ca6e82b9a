"""Ours as in `partywire_batch`, over links secured by Noise XX with AES-256-GCM."""

from __future__ import annotations

from functools import partial

from .partywire_security import open_secured

open_party = partial(open_secured, mode="aes-256-gcm")
