"""Reads a party's own .npy files: whatever is wrong with one ends in a sentence that names it.

Between the data of the jobs and numpy's reader. The one invariant: nothing of a file is executed or unpickled, and no
error shows a value of it.
"""

from __future__ import annotations

import os
import warnings
from stat import S_ISREG
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import JobInputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["read_npy"]

_ZIP_MAGIC = b"PK"  # the beginning of .npz


def read_npy(path: str) -> NDArray[Any]:
    """The array of a .npy file. Nothing is unpickled.

    Raises:
        JobInputError: the file cannot be read, or is something else.
    """
    try:
        if not S_ISREG(os.stat(path).st_mode):
            raise JobInputError(path, "cannot be read: it is no regular file")  # opening a pipe waits for its writer
        with open(path, "rb") as file, warnings.catch_warnings():
            if file.read(2) == _ZIP_MAGIC:
                raise JobInputError(path, "is an archive of arrays; one .npy array is needed")
            file.seek(0)
            warnings.simplefilter("ignore")  # that the file was written by an old numpy is nobody's concern
            found: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
            return found
    except JobInputError:
        raise
    except FileNotFoundError as exc:
        raise JobInputError(path, "there is no such file") from exc
    except OSError as exc:
        raise JobInputError(path, f"cannot be read: {exc.strerror or 'the system refuses it'}") from exc
    except Exception as exc:
        # numpy's parser of headers lets out ValueError, TypeError, TokenError, SyntaxError, MemoryError and others.
        raise JobInputError(path, "cannot be read as a .npy file of numbers") from exc
