"""Ours as in `partywire_batch`, over links secured by TLS 1.3."""

from __future__ import annotations

from functools import partial

from .partywire_security import open_secured

open_party = partial(open_secured, mode="tls")
