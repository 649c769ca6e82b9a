"""Arrays of bits of bitarray. Imported when one is sent or received."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import bitarray

from .errors import ObjectDecodeError
from .kinds import Kind


def _encode(value: Any) -> Any:
    return value.endian if isinstance(value.endian, str) else value.endian(), len(value), value.tobytes()


def _decode(payload: Any, kind: Any) -> Any:
    if type(payload) is not tuple or [type(part) for part in payload] != [str, int, bytes]:
        raise ObjectDecodeError("an array of bits that is none")
    endian, count, packed = payload
    if endian not in ("little", "big") or count < 0 or (count + 7) >> 3 != len(packed):
        raise ObjectDecodeError("an array of bits that is none")
    made = bitarray.bitarray(endian=endian)
    made.frombytes(packed)
    del made[count:]
    return made if kind is bitarray.bitarray else kind(made)


KINDS: Final[dict[type, Kind]] = {
    bitarray.bitarray: Kind("bitarray.bitarray", _encode, partial(_decode, kind=bitarray.bitarray)),
    bitarray.frozenbitarray: Kind("bitarray.frozenbitarray", _encode, partial(_decode, kind=bitarray.frozenbitarray)),
}
