"""Numbers of gmpy2. Imported when such a number is sent or received."""

from __future__ import annotations

from typing import Any, Final

import gmpy2

from .errors import ObjectDecodeError, ObjectEncodeError
from .kinds import Kind

PRECISION_MAX: Final = 1 << 20
"""Bits of a mpfr: more than anybody computes with, and the memory that a few bytes of a peer can ask for."""

EXPONENT_MAX: Final = 1 << 40
"""Of a mpfr, as a power of two: within what the library allows everywhere."""


def _integers(payload: Any, count: int) -> tuple[int, ...]:
    if type(payload) is not tuple or len(payload) != count or any(type(part) is not int for part in payload):
        raise ObjectDecodeError("a number of gmpy2 that is none")
    return payload


def _encode_mpfr(value: Any) -> Any:
    if value.precision > PRECISION_MAX:
        raise ObjectEncodeError(f"a mpfr of more than {PRECISION_MAX} bits")
    if gmpy2.is_nan(value):
        return value.precision, "nan"
    if gmpy2.is_infinite(value) or gmpy2.is_zero(value):
        return value.precision, ("-" if gmpy2.is_signed(value) else "") + ("inf" if gmpy2.is_infinite(value) else "0")
    mantissa, exponent = value.as_mantissa_exp()
    return value.precision, int(mantissa), int(exponent)


def _decode_mpfr(payload: Any) -> Any:
    if type(payload) is not tuple or len(payload) not in (2, 3) or type(payload[0]) is not int:
        raise ObjectDecodeError("a mpfr that is none")
    precision = payload[0]
    if not 1 <= precision <= PRECISION_MAX:
        raise ObjectDecodeError(f"a mpfr of other than 1 to {PRECISION_MAX} bits")
    if len(payload) == 2:
        if payload[1] not in ("nan", "inf", "-inf", "0", "-0"):
            raise ObjectDecodeError("a mpfr that is none")
        return gmpy2.mpfr(payload[1], precision)
    _, mantissa, exponent = _integers(payload, 3)
    if not 1 <= mantissa.bit_length() <= precision or abs(exponent) > EXPONENT_MAX:
        raise ObjectDecodeError("a mpfr that is none")
    with gmpy2.context(precision=precision, emax=gmpy2.get_emax_max(), emin=gmpy2.get_emin_min()):
        made = gmpy2.mpfr(mantissa, precision)
        return gmpy2.mul_2exp(made, exponent) if exponent >= 0 else gmpy2.div_2exp(made, -exponent)


def _encode_mpq(value: Any) -> Any:
    return int(value.numerator), int(value.denominator)


def _decode_mpq(payload: Any) -> Any:
    numerator, denominator = _integers(payload, 2)
    return gmpy2.mpq(numerator, denominator)


def _encode_mpc(value: Any) -> Any:
    return _encode_mpfr(value.real), _encode_mpfr(value.imag)


def _decode_mpc(payload: Any) -> Any:
    if type(payload) is not tuple or len(payload) != 2:
        raise ObjectDecodeError("a mpc that is none")
    real, imaginary = map(_decode_mpfr, payload)
    return gmpy2.mpc(real, imaginary, precision=(real.precision, imaginary.precision))


KINDS: Final[dict[type, Kind]] = {
    gmpy2.mpz: Kind("gmpy2.mpz", lambda value: (int(value),), lambda payload: gmpy2.mpz(_integers(payload, 1)[0])),
    gmpy2.xmpz: Kind("gmpy2.xmpz", lambda value: (int(value),), lambda payload: gmpy2.xmpz(_integers(payload, 1)[0])),
    gmpy2.mpq: Kind("gmpy2.mpq", _encode_mpq, _decode_mpq),
    gmpy2.mpfr: Kind("gmpy2.mpfr", _encode_mpfr, _decode_mpfr),
    gmpy2.mpc: Kind("gmpy2.mpc", _encode_mpc, _decode_mpc),
}
