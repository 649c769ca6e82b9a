"""Objects of libraries that we know: of Python's own, gmpy2, bitarray, pandas and pyarrow.

Between the encoder, which asks how objects of a class travel, and the decoder, which asks what a name stands for. Each
kind becomes a tuple of values that can be sent, and is made of one again. A library is imported when its objects are
sent or received, never before, and nothing but these names can be asked for.
"""

from __future__ import annotations

import datetime
import math
import re
import struct
import uuid
from array import array
from decimal import Decimal
from fractions import Fraction
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np

from ..numpy_text import is_text_whole
from .errors import ObjectDecodeError, ObjectEncodeError

if TYPE_CHECKING:
    from collections.abc import Callable

FRACTION_BITS_MAX: Final = 16_384
"""Of numerator and denominator of a Fraction each: bringing them to lowest terms takes time that grows with the square.
"""

DECIMAL_TEXT_MAX: Final = 65_536
"""Digits of a Decimal, about."""

_ARRAY_CODES: Final = "bBhHiIlLqQfd"
_COMPLEX: Final = struct.Struct("<dd")
_ZONE_KEY: Final = re.compile(r"[A-Za-z0-9_+-]{1,32}(?:/[A-Za-z0-9_+-]{1,32}){0,3}")


class Kind(NamedTuple):
    """One kind of objects: the name that travels, and both directions."""

    name: str
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]
    """Raises ObjectDecodeError, or whatever its library raises for values that are none."""


# Numbers.


def _encode_fraction(value: Fraction) -> Any:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > FRACTION_BITS_MAX:
        raise ObjectEncodeError(
            f"a Fraction whose parts have more than {FRACTION_BITS_MAX} bits; send its numerator and its denominator"
        )
    return value.numerator, value.denominator


def _decode_fraction(payload: Any) -> Fraction:
    numerator, denominator = _checked(payload, int, int)
    if max(numerator.bit_length(), denominator.bit_length()) > FRACTION_BITS_MAX or denominator < 1:
        raise ObjectDecodeError(f"a Fraction whose parts are none, or have more than {FRACTION_BITS_MAX} bits")
    return Fraction(numerator, denominator)


def _encode_decimal(value: Decimal) -> Any:
    text = str(value)
    if len(text) > DECIMAL_TEXT_MAX:
        raise ObjectEncodeError(f"a Decimal of more than {DECIMAL_TEXT_MAX} digits; send it as text")
    return text


def _decode_decimal(payload: Any) -> Decimal:
    if type(payload) is not str or len(payload) > DECIMAL_TEXT_MAX or not payload.isascii():
        raise ObjectDecodeError(f"a Decimal that is none, or has more than {DECIMAL_TEXT_MAX} digits")
    return Decimal(payload)


def _decode_complex(payload: Any) -> complex:
    (packed,) = _checked((payload,), bytes)
    return complex(*_COMPLEX.unpack(packed))


# numpy.


def check_numpy_text_untrusted(array: np.ndarray[Any, Any]) -> None:
    """Refuse numpy's text with what is no character, which any use of it would raise SystemError for."""
    if not is_text_whole(array):
        raise ObjectDecodeError("an array with text that is none")


def _encode_numpy_objects(value: np.ndarray[Any, Any]) -> Any:
    is_fortran = value.flags.f_contiguous and not value.flags.c_contiguous
    return value.shape, is_fortran, value.ravel("F" if is_fortran else "C").tolist()


def _decode_numpy_objects(payload: Any) -> np.ndarray[Any, Any]:
    shape, is_fortran, items = _checked(payload, tuple, bool, list)
    sizes = _checked(shape, *[int] * len(shape))
    made: np.ndarray[Any, Any] = np.empty(len(items), object)
    for index, item in enumerate(items):  # a whole list would be taken apart
        made[index] = item
    if any(size < 0 for size in sizes) or math.prod(sizes) != len(items):
        raise ObjectDecodeError("an array of objects whose shape is none")
    return made.reshape(sizes, order="F" if is_fortran else "C")


# Dates and times.


def encode_zone(zone: datetime.tzinfo | None) -> Any:
    """A time zone as what travels: None, its key, or its offset and name."""
    if zone is None:
        return None
    if type(zone) is datetime.timezone:
        offset, name = zone.utcoffset(None), zone.tzname(None)
        seconds = offset.days * 86_400 + offset.seconds
        return seconds, offset.microseconds, None if datetime.timezone(offset).tzname(None) == name else name
    if type(zone) is ZoneInfo and zone.key is not None:
        return zone.key
    kind = type(zone).__qualname__
    raise ObjectEncodeError(f"a time zone of class {kind}; use datetime.timezone or zoneinfo.ZoneInfo")


def decode_zone(payload: Any) -> datetime.tzinfo | None:
    """The time zone of what `encode_zone` gave; ZoneInfo looks for keys below its own folders only."""
    if payload is None:
        return None
    if type(payload) is str:
        if not _ZONE_KEY.fullmatch(payload):
            raise ObjectDecodeError("a time zone that is none")
        return ZoneInfo(payload)
    if type(payload) is not tuple or len(payload) != 3:
        raise ObjectDecodeError("a time zone that is none")
    seconds, microseconds = _checked(payload[:2], int, int)
    offset = datetime.timedelta(seconds=seconds, microseconds=microseconds)
    if payload[2] is None:
        return datetime.timezone(offset) if offset else datetime.UTC
    (name,) = _checked(payload[2:], str)
    return datetime.timezone(offset, name)


def _encode_datetime(value: datetime.datetime) -> Any:
    date = (value.year, value.month, value.day)
    return (*date, value.hour, value.minute, value.second, value.microsecond, value.fold, encode_zone(value.tzinfo))


def _decode_datetime(payload: Any) -> datetime.datetime:
    year, month, day, hour, minute, second, microsecond, fold, zone = _checked(payload, *[int] * 8, object)
    return datetime.datetime(year, month, day, hour, minute, second, microsecond, decode_zone(zone), fold=fold)


def _encode_time(value: datetime.time) -> Any:
    return value.hour, value.minute, value.second, value.microsecond, value.fold, encode_zone(value.tzinfo)


def _decode_time(payload: Any) -> datetime.time:
    hour, minute, second, microsecond, fold, zone = _checked(payload, *[int] * 5, object)
    return datetime.time(hour, minute, second, microsecond, decode_zone(zone), fold=fold)


def _decode_date(payload: Any) -> datetime.date:
    return datetime.date(*_checked(payload, int, int, int))


def _decode_timedelta(payload: Any) -> datetime.timedelta:
    days, seconds, microseconds = _checked(payload, int, int, int)
    return datetime.timedelta(days, seconds, microseconds)


# Others of the standard library, and of numpy.


def _decode_uuid(payload: Any) -> uuid.UUID:
    (packed,) = _checked((payload,), bytes)
    return uuid.UUID(bytes=packed)


def _decode_range(payload: Any) -> range:
    return range(*_checked(payload, int, int, int))


def _encode_array(value: array[Any]) -> Any:
    if value.typecode not in _ARRAY_CODES:
        raise ObjectEncodeError(f"an array.array of type {value.typecode}; send its text")
    return value.typecode, memoryview(value).cast("B") if len(value) else b""


def _decode_array(payload: Any) -> array[Any]:
    if type(payload) is not tuple or len(payload) != 2 or type(payload[1]) not in (bytes, memoryview):
        raise ObjectDecodeError("an array.array that is none")
    code, buffer = payload
    if type(code) is not str or len(code) != 1 or code not in _ARRAY_CODES:
        raise ObjectDecodeError("an array.array that is none")
    made = array(code)
    made.frombytes(buffer)
    return made


def _decode_numpy_text(payload: Any) -> np.str_:
    (text,) = _checked((payload,), str)
    return np.str_(text)


def _decode_numpy_bytes(payload: Any) -> np.bytes_:
    (packed,) = _checked((payload,), bytes)
    return np.bytes_(packed)


def _checked(payload: Any, *kinds: type) -> Any:
    """The payload, if it is a tuple of exactly these types; `object` is any."""
    if type(payload) is not tuple or len(payload) != len(kinds):
        raise ObjectDecodeError("an object of other parts than it has")
    for part, kind in zip(payload, kinds, strict=True):
        if kind is not object and type(part) is not kind:
            raise ObjectDecodeError("an object of other parts than it has")
    return payload


NUMPY_OBJECTS: Final = Kind("numpy objects", _encode_numpy_objects, _decode_numpy_objects)
"""Arrays of Python objects, which travel one by one; the class alone does not tell them from others."""

_BUILT_IN: Final[dict[type, Kind]] = {
    complex: Kind("complex", lambda value: _COMPLEX.pack(value.real, value.imag), _decode_complex),
    Fraction: Kind("fraction", _encode_fraction, _decode_fraction),
    Decimal: Kind("decimal", _encode_decimal, _decode_decimal),
    datetime.datetime: Kind("datetime", _encode_datetime, _decode_datetime),
    datetime.date: Kind("date", lambda value: (value.year, value.month, value.day), _decode_date),
    datetime.time: Kind("time", _encode_time, _decode_time),
    datetime.timedelta: Kind(
        "timedelta", lambda value: (value.days, value.seconds, value.microseconds), _decode_timedelta
    ),
    datetime.timezone: Kind("timezone", encode_zone, decode_zone),
    ZoneInfo: Kind("timezone", encode_zone, decode_zone),
    uuid.UUID: Kind("uuid", lambda value: value.bytes, _decode_uuid),
    range: Kind("range", lambda value: (value.start, value.stop, value.step), _decode_range),
    array: Kind("array", _encode_array, _decode_array),
    # Joined, because str() and bytes() of these leave out zeros at the end.
    np.str_: Kind("numpy str", lambda value: "".join((value,)), _decode_numpy_text),
    np.bytes_: Kind("numpy bytes", lambda value: b"".join((value,)), _decode_numpy_bytes),
}
_BUILT_IN_NAMES: Final = {kind.name: kind for kind in (*_BUILT_IN.values(), NUMPY_OBJECTS)}

_MODULES: Final = {
    "gmpy2": "gmpy2_kinds",
    "bitarray": "bitarray_kinds",
    "pandas": "pandas_kinds",
    "pyarrow": "arrow_kinds",
}
"""By the first part of the module of a class, and of the name of a kind: where its kinds are."""


@cache
def _kinds_of(module: str) -> tuple[dict[type, Kind], dict[str, Kind]]:
    """What one of our modules offers. Raises ImportError when its library is not installed."""
    by_type: dict[type, Kind] = import_module(f"{__package__}.{module}").KINDS
    return by_type, {kind.name: kind for kind in by_type.values()}


def encoder_of(kind: type) -> tuple[str, Callable[[Any], Any]] | None:
    """The name of a class's kind and its encoder; None for a class that we do not know."""
    found = _BUILT_IN.get(kind)
    if found is None:
        module = _MODULES.get(kind.__module__.partition(".")[0])
        if module is None:
            return None
        try:
            found = _kinds_of(module)[0].get(kind)
        except ImportError as error:
            raise ObjectEncodeError(f"sending a {kind.__qualname__} needs {error.name}; install it") from error
    return None if found is None else (found.name, found.encode)


def decoder_of(name: str) -> Callable[[Any], Any] | None:
    """What makes objects of the kind of this name; None for a name that there is not.

    What it returns raises ObjectDecodeError only.
    """
    found = _BUILT_IN_NAMES.get(name)
    if found is None:
        library = name.partition(".")[0]
        module = _MODULES.get(library)
        if module is None:
            return None
        try:
            found = _kinds_of(module)[1].get(name)
        except ImportError as error:
            raise ObjectDecodeError(f"an object of {library}; install {error.name} here") from error
    if found is None:
        return None
    decode = found.decode

    def decode_untrusted(payload: Any) -> Any:
        try:
            return decode(payload)
        except ObjectDecodeError:
            raise
        except ImportError as error:
            raise ObjectDecodeError(f"a {name}; install {error.name} here") from error
        except Exception as error:
            raise ObjectDecodeError(f"a {name} that is none") from error

    return decode_untrusted
