"""What `tno.mpc.communication.serialization` has, as far as other packages import it."""

from __future__ import annotations

from ..objects.serialization import Serialization, SupportsSerialization

__all__ = ["Serialization", "SupportsSerialization"]
