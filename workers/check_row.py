"""One line of what `partywire check` found, for a person and for machines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from partywire.engine.prober import Probed


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the answer."""

    name: str
    """The peer's, or "listen", "certificate", "crl", "node", or "handler"."""
    address: str
    ok: bool
    found: str
    detail: str = ""
    advice: str = ""
    probed: Probed | None = None

    def document(self) -> dict[str, Any]:
        """For machines."""
        fields: dict[str, Any] = {
            "address": self.address,
            "ok": self.ok,
            "found": self.found,
            "detail": self.detail,
            "advice": self.advice,
        }
        if self.probed is None:
            return fields
        probed = self.probed
        return {
            "name": self.name,
            **fields,
            "connected_to": probed.address or None,
            "answers_as": probed.who or None,
            "round_trip_ms": None if probed.round_trip_s is None else probed.round_trip_s * 1000,
            "clock_ahead_s": probed.clock_ahead_s,
        }
