"""What `tno.mpc.communication.functions` has."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .exceptions import OptionalImportError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["redirect_importerror_oserror_to_optionalimporterror"]


@contextmanager
def redirect_importerror_oserror_to_optionalimporterror() -> Iterator[None]:
    """Inside, an import that fails raises OptionalImportError."""
    try:
        yield
    except ImportError as error:
        raise OptionalImportError from error
    except OSError as error:
        warnings.warn(f"an optional library cannot be loaded: {error}", stacklevel=3)
        raise OptionalImportError from error
