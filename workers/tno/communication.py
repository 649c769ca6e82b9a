"""What `from tno.mpc.communication import ...` finds."""

from __future__ import annotations

from ..objects.serialization import Serialization, SupportsSerialization
from .exceptions import AnnotationError, OptionalImportError, RepetitionError
from .pool import Pool

__version__ = "4.12.0"
"""The version whose calls these are."""

__all__ = [
    "Pool", "Serialization", "SupportsSerialization", "AnnotationError", "OptionalImportError", "RepetitionError",
    "__version__",
]  # fmt: skip
