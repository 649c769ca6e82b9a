"""What tno.mpc.communication 4.x makes of objects of libraries: bytes in their own formats, by class name.

The binary formats of gmpy2 are read by ourselves as far as they announce sizes. DataFrames (parquet) and tensors
(safetensors) are not here: their formats are compressed, or need a library that we have no other use for.
"""

from __future__ import annotations

import math
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from .errors import ObjectDecodeError, ObjectEncodeError

if TYPE_CHECKING:
    from collections.abc import Callable

PRECISION_MAX: Final = 1 << 20
"""Bits of a mpfr."""

_LIMB_SIZE: Final = 8
_REGULAR: Final = 0x40
_LONG_SIZES: Final = 0x04


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ObjectDecodeError(f"an object of {name}, which is not installed here") from error


def _bytes(data: Any) -> bytes:
    if type(data) is not bytes:
        raise ObjectDecodeError("an object whose data are no bytes")
    return data


# Integers and tuples.


def _encode_int(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)


def _decode_int(data: Any) -> int:
    return int.from_bytes(_bytes(data), "little", signed=True)


def _decode_tuple(data: Any) -> tuple[Any, ...]:
    if type(data) is not list:
        raise ObjectDecodeError("a tuple that is no list")
    return tuple(data)


# numpy: arrays that msgpack has nothing for.


def _encode_ndarray(value: np.ndarray[Any, Any]) -> dict[str, Any]:
    return {"values": value.tolist(), "shape": value.shape}


def _decode_ndarray(data: Any) -> np.ndarray[Any, Any]:
    if type(data) is not dict or data.keys() != {"values", "shape"}:
        raise ObjectDecodeError("an array that is none")
    nested, shape = data["values"], data["shape"]
    if type(shape) is not tuple or any(type(extent) is not int or extent < 0 for extent in shape):
        raise ObjectDecodeError("an array that is none")
    if not shape:
        if isinstance(nested, (list, dict)):
            raise ObjectDecodeError("an array that is none")
        return np.array(nested)
    if not _fills(nested, shape):
        raise ObjectDecodeError("an array of another shape than its values")
    made: np.ndarray[Any, Any] = np.empty(shape, object)
    if nested:
        made[:] = nested
    return made


def _fills(nested: Any, shape: tuple[int, ...]) -> bool:
    """Whether there is a value for each place, so that the array takes no more memory than they do."""
    if len(shape) > 32:
        return False
    rows = [nested]
    for extent in shape:
        if any(type(row) is not list or len(row) != extent for row in rows):
            return False
        rows = [item for row in rows for item in row]
    return math.prod(shape) == len(rows)


# gmpy2.


def _encode_gmpy2(value: Any) -> bytes:
    packed: bytes = import_module("gmpy2").to_binary(value)
    return packed


def _decode_gmpy2(data: Any) -> Any:
    gmpy2, packed = _library("gmpy2"), _bytes(data)
    if len(packed) < 2:
        raise ObjectDecodeError("a number of gmpy2 that is none")
    kind, sign = packed[0], packed[1]
    if kind in (1, 2):
        magnitude = _signed(packed[2:], sign)
        return gmpy2.mpz(magnitude) if kind == 1 else gmpy2.xmpz(magnitude)
    if kind == 3:
        return _decode_mpq(gmpy2, packed, sign)
    if (kind == 4 and _float_size(packed) == len(packed)) or (
        kind == 5 and (first := _float_size(packed)) + _float_size(packed[first:]) == len(packed)
    ):
        return gmpy2.from_binary(packed)
    raise ObjectDecodeError("a number of gmpy2 that is none")


def _signed(packed: bytes, sign: int) -> int:
    if sign > 2:
        raise ObjectDecodeError("a number of gmpy2 that is none")
    magnitude = int.from_bytes(packed, "little")
    return -magnitude if sign == 2 else magnitude


def _decode_mpq(gmpy2: Any, packed: bytes, sign: int) -> Any:
    if sign == 0 and len(packed) == 2:
        return gmpy2.mpq(0)
    size = int.from_bytes(packed[2:6], "little")
    numerator, denominator = packed[6 : 6 + size], packed[6 + size :]
    if len(numerator) != size or not any(denominator):
        raise ObjectDecodeError("a mpq that is none")
    return gmpy2.mpq(_signed(numerator, sign), int.from_bytes(denominator, "little"))


def _float_size(packed: bytes) -> int:
    """How many bytes the mpfr at the beginning has, if its precision is within bounds."""
    precision = int.from_bytes(packed[4:8], "little")
    if len(packed) < 8 or packed[1] & _LONG_SIZES or packed[1] & 0x80 or not 1 <= precision <= PRECISION_MAX:
        raise ObjectDecodeError(f"a mpfr that is none, or has more than {PRECISION_MAX} bits")
    if not packed[1] & _REGULAR:
        return 8
    size = 12 + _LIMB_SIZE * -(-precision // (8 * _LIMB_SIZE))
    if len(packed) < size or not packed[size - 1] & 0x80:
        raise ObjectDecodeError("a mpfr that is none")
    return size


# bitarray, pandas.


def _encode_bitarray(value: Any) -> bytes:
    packed: bytes = import_module("bitarray.util").serialize(value)
    return packed


def _decode_bitarray(data: Any) -> Any:
    return _library("bitarray.util").deserialize(_bytes(data))


def _decode_timestamp(data: Any) -> Any:
    if type(data) is not str or len(data) > 64:
        raise ObjectDecodeError("a time that is none")
    return _library("pandas").Timestamp(data)


def _refuse_frame(value: Any) -> Any:
    raise ObjectEncodeError(
        "the 4.x format keeps a DataFrame as parquet, which is not written here; use its to_parquet, or send it"
    )


def _refuse_frame_untrusted(data: Any) -> Any:
    raise ObjectDecodeError(
        "a DataFrame of the 4.x format is parquet, which is not read here; register functions of your own for it"
    )


ENCODERS: Final[dict[str, Callable[[Any], Any]]] = {
    "int": _encode_int,
    "tuple": list,
    "ndarray": _encode_ndarray,
    **dict.fromkeys(("mpz", "xmpz", "mpq", "mpfr", "mpc"), _encode_gmpy2),
    "bitarray": _encode_bitarray,
    "Timestamp": lambda value: value.to_pydatetime().isoformat(),
    "DataFrame": _refuse_frame,
    "Series": _refuse_frame,
}
"""By name of a class: its data."""

DECODERS: Final[dict[str, Callable[[Any], Any]]] = {
    "int": _decode_int,
    "tuple": _decode_tuple,
    "ndarray": _decode_ndarray,
    **dict.fromkeys(("mpz", "xmpz", "mpq", "mpfr", "mpc"), _decode_gmpy2),
    "bitarray": _decode_bitarray,
    "Timestamp": _decode_timestamp,
    "DataFrame": _refuse_frame_untrusted,
    "Series": _refuse_frame_untrusted,
}
"""By name of a type: what makes an object of its data."""
