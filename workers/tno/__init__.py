"""Programs written for tno.mpc.communication 4.x, run unchanged on PartyWire's Pool: docs/migration.md.

Nothing happens by importing this. `install()` lets `tno.mpc.communication` and what is in it be found here instead of
in the package of that name, for this process; `python -m partywire.workers.tno program.py` does so and runs a program,
and `pytest -p partywire.workers.tno.plugin` a test suite.
"""

from __future__ import annotations

from .finder import install, uninstall

__all__ = ["install", "uninstall"]
