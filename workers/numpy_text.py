"""Text in numpy arrays, whose characters numpy does not check: a number that is none crashes whoever looks at it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from partywire.engine.errors import LinkProtocolError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def is_text_whole(array: NDArray[Any]) -> bool:
    """Whether every character of an array's text exists. One look for other arrays; copies text that is in fields."""
    dtype = array.dtype
    if dtype.kind not in "UV":
        return True
    if dtype.names is not None:
        return all(is_text_whole(array[name]) for name in dtype.names)
    if dtype.kind == "V":
        return True
    codes = np.ascontiguousarray(array).view(f"{dtype.byteorder}u4")
    return not codes.size or bool(codes.max() <= sys.maxunicode)


def check_text_untrusted(array: NDArray[Any], peer: str) -> None:
    """Refuse an array of a peer whose text is none.

    Raises:
        LinkProtocolError: it has a character that does not exist.
    """
    if not is_text_whole(array):
        raise LinkProtocolError(peer, "text of an array", "what is no character")
