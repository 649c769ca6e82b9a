"""Values that both tno.mpc.communication 4.12 and we can write in the 4.x format. Runs with either library installed.

`python values4.py` with that library prints {name: bytes in hex} as JSON; tests/objects/test_format4.py has the result.
"""

from __future__ import annotations

import datetime
import enum
import json
import uuid
from typing import Any

import bitarray
import gmpy2
import numpy as np
import pandas as pd


class Colour(enum.Enum):
    """Sent by its value."""

    RED = 1


class Point:
    """A class with logic of its own; its parts nest."""

    def __init__(self, x: Any, y: Any) -> None:
        self.x, self.y = x, y

    def serialize(self, **_kwargs: Any) -> dict[str, Any]:
        return {"x": self.x, "y": self.y}

    @staticmethod
    def deserialize(obj: dict[str, Any], **_kwargs: Any) -> Point:
        return Point(obj["x"], obj["y"])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and (self.x, self.y) == (other.x, other.y)

    __hash__ = None  # type: ignore[assignment]


Point.deserialize.__annotations__["return"] = "Point"

VALUES: dict[str, Any] = {
    "none": None,
    "bools": [True, False],
    "small ints": [0, 1, 127, 128, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**63, 2**64 - 1],
    "negative ints": [-1, -32, -33, -128, -129, -32768, -32769, -(2**31), -(2**31) - 1, -(2**63)],
    "large ints": [2**64, -(2**63) - 1, 2**127, -(2**127), 2**200],
    "floats": [0.0, -0.0, 1.5, float("inf"), float("-inf"), 1e300],
    "texts": ["", "a", "x" * 31, "x" * 32, "x" * 255, "x" * 256, "héllo \U0001f600"],
    "bytes": [b"", b"a", b"x" * 255, b"x" * 256],
    "bytearray": bytearray(b"abc"),
    "nested": {"a": [1, [2, {"b": []}]], "c": {}},
    "long list": list(range(20)),
    "tuple": (1, "a", (2.5, [3, (4,)])),
    "empty tuple": (),
    "enum": Colour.RED,
    "numpy ints": np.arange(6, dtype=np.int32).reshape(2, 3),
    "numpy floats": np.array([1.5, -2.0], np.float32),
    "numpy bools": np.array([True, False]),
    "numpy scalar": np.float64(2.5),
    "numpy zero dimensions": np.array(5),
    "numpy fortran": np.arange(6).reshape(2, 3).T,
    "numpy objects": np.array([1, "a", None], object),
    "numpy text": np.array(["ab", "c"]),
    "date": datetime.date(2020, 1, 2),
    "datetime": datetime.datetime(2020, 1, 2, 3, 4, 5, 678),
    "datetime utc": datetime.datetime(2020, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc),  # noqa: UP017
    "time": datetime.time(3, 4, 5),
    "uuid": uuid.UUID(int=5),
    "mpz": [gmpy2.mpz(0), gmpy2.mpz(258), gmpy2.mpz(-(2**70))],
    "xmpz": gmpy2.xmpz(5),
    "mpq": [gmpy2.mpq(3, -7), gmpy2.mpq(0)],
    "mpfr": [gmpy2.mpfr("1.5"), gmpy2.mpfr("-1.1", 200), gmpy2.mpfr("1e-300000", 100)],
    "mpfr infinite": gmpy2.mpfr("-inf"),
    "mpc": gmpy2.mpc("1.5+2j"),
    "mpc zero": gmpy2.mpc("0+2j"),
    "bitarray": bitarray.bitarray("1011001110"),
    "bitarray little": bitarray.bitarray("101", endian="little"),
    "timestamp": pd.Timestamp("2020-01-02 03:04:05"),
    "class": [Point(1, (2, 3)), Point(Point(2**70, None), "y")],
}

UNSTABLE = {"mpfr infinite", "mpc zero"}
"""gmpy2 leaves a byte of these as it was in memory."""

WIDER = {"numpy floats"}
"""Single precision, which we write in double: the same values, more bytes."""

READABLE: dict[str, Any] = {
    name: VALUES[name]
    for name in VALUES
    if name
    not in (
        "bytearray", "enum", "numpy ints", "numpy floats", "numpy bools", "numpy scalar", "date", "datetime",
        "datetime utc", "time", "uuid",
    )
}  # fmt: skip
"""Those that come back as what they were."""


def write_all(serialization: Any) -> dict[str, str]:
    """Each value as bytes of a message with the id "id", by this library's `Serialization`."""
    serialization.register_class(Point, check_annotations=False, overwrite=True)
    return {name: serialization.pack(value, "id", use_pickle=False).hex() for name, value in VALUES.items()}


if __name__ == "__main__":
    from tno.mpc.communication import Serialization as Theirs

    print(json.dumps(write_all(Theirs), indent=0))
