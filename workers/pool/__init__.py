"""A pool: messages with ids between parties that know each other pairwise, as in tno.mpc.communication."""

from __future__ import annotations
