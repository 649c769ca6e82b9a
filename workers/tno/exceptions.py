"""What `tno.mpc.communication.exceptions` has."""

from __future__ import annotations

from ..objects.errors import AnnotationError, RepetitionError

__all__ = ["AnnotationError", "OptionalImportError", "RepetitionError"]


class OptionalImportError(ImportError):
    """Raised when something that is imported only if it is there cannot be imported."""
