"""Warnings of a party's further processes: lines on standard error that say whose they are.

Between the loggers of such a process and whoever reads what the party says; it has no other way to its opener's log.
"""

from __future__ import annotations

import logging
import sys


def log_as(party: str, process: str) -> None:
    """Begin every warning and error of this process with the party's name and its own."""
    whose = f"{party}: {process}".replace("%", "%%")
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format=f"partywire: {whose}: %(message)s")
