"""What it takes to make bytes of an object and an object of bytes, by one library: a program that needs only that one.

`python object_cases.py partywire|tno [--repeats N] [--small]` prints a JSON object {case: {"pack": [s, ...], "unpack":
[s, ...], "bytes": n, "same": bool}}. `tno` is tno.mpc.communication, 4.x or 5.x, whichever is installed. Nothing is
sent. `pack` of ours ends with parts that are ready to be written, `unpack` begins with the received memory; what would
make it lie: that the other library's `pack` has joined everything by then, which costs ours one copy more on its way
into a ring. `same` says whether the object came back equal in type.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable


def cases(*, is_small: bool) -> dict[str, Any]:
    """The objects, by name."""
    rng = random.Random(1)
    n = 1 if is_small else 100
    return {
        "16 MB bytes": bytes(n * 160_000),
        "100,000 small ints": [rng.randrange(1000) for _ in range(n * 1000)],
        "10,000 ints of 2,048 bits": [rng.getrandbits(2048) for _ in range(n * 100)],
        "array of 1,000,000 int64": np.arange(n * 10_000),
        "10,000 (int, str) tuples": [(k, f"text {k}") for k in range(n * 100)],
        "10,000 floats": [rng.random() for _ in range(n * 100)],
        "1,000 dictionaries": [{"id": k, "name": f"n{k}", "share": [k, k + 1]} for k in range(n * 10)],
        "a small dictionary": {"id": 1, "name": "alice", "share": [1, 2, 3]},
    }


def of_partywire() -> tuple[Callable[[Any], Any], Callable[[Any], Any], Callable[[Any], Any]]:
    """pack, whatever puts it where it is received, unpack."""
    from partywire.workers.objects.packing import pack_object, unpack_object

    return pack_object, lambda packed: bytearray(packed.join()), unpack_object


def of_tno() -> tuple[Callable[[Any], Any], Callable[[Any], Any], Callable[[Any], Any]]:
    """The same of tno.mpc.communication."""
    import tno.mpc.communication as tno

    if hasattr(tno, "DefaultPacker"):
        packer = tno.DefaultPacker()
        return lambda value: packer.pack(value, "1"), bytes, lambda data: packer.unpack(data)[1]
    return (
        lambda value: tno.Serialization.pack(value, "1", use_pickle=False),
        bytes,
        lambda data: tno.Serialization.unpack(data)[1],
    )


LIBRARIES = {"partywire": of_partywire, "tno": of_tno}


def is_same(one: Any, other: Any) -> bool:
    """Whether it came back in type and content, as far as a first look tells."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return bool(one.dtype == other.dtype and np.array_equal(one, other))
    return bool(one == other)


def seconds_of(call: Callable[[Any], Any], argument: Any, repeats: int) -> tuple[list[float], Any]:
    """The time of each call, and the last result. A call of microseconds is repeated within a sample."""
    result = call(argument)
    inner = 1
    while inner < 10_000:
        start = time.perf_counter()
        for _ in range(inner):
            result = call(argument)
        if time.perf_counter() - start > 0.002:
            break
        inner *= 4
    samples = []
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(inner):
            result = call(argument)
        samples.append((time.perf_counter() - start) / inner)
    return samples, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", choices=LIBRARIES)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--small", action="store_true", help="a hundredth of everything")
    options = parser.parse_args()
    pack, carry, unpack = LIBRARIES[options.library]()
    answers = {}
    for name, value in cases(is_small=options.small).items():
        packing, packed = seconds_of(pack, value, options.repeats)
        data = carry(packed)
        unpacking, received = seconds_of(unpack, data, options.repeats)
        answers[name] = {"pack": packing, "unpack": unpacking, "bytes": len(data), "same": is_same(value, received)}
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
