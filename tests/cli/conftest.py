"""The ports of a test are its own until it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .command import held_ports

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def ports_are_given_back() -> Iterator[None]:
    with held_ports:
        yield
