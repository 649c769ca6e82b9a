"""Objects of pandas, pyarrow, gmpy2 and bitarray; skipped where one is not installed."""

from __future__ import annotations

import struct
import subprocess
import sys
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from partywire.workers.objects import operations as op
from partywire.workers.objects.errors import ObjectDecodeError, ObjectEncodeError
from partywire.workers.objects.packing import HEADER, pack_object, unpack_object
from tests.objects.test_hostile import message

pd = pytest.importorskip("pandas")
pa = pytest.importorskip("pyarrow")
gmpy2 = pytest.importorskip("gmpy2")
bitarray = pytest.importorskip("bitarray")


def there_and_back(value: Any) -> Any:
    return unpack_object(bytearray(pack_object(value).join()))


def frame() -> Any:
    made = pd.DataFrame(
        {
            "integers": [1, 2, 3],
            "text": ["x", "y", None],
            "categories": pd.Categorical(["u", "v", "u"], ordered=True),
            "zoned": pd.date_range("2020", periods=3, tz="Europe/Amsterdam"),
            "nullable": pd.array([1, None, 3], dtype="Int64"),
            "floats": [1.5, 2, np.nan],
            "objects": pd.Series([1, "a", (2, 3)], dtype=object),
            "decimals": [Decimal("1.1")] * 3,
            "periods": pd.period_range("2020", periods=3, freq="M"),
            "times": pd.date_range("2020", periods=3),
            ("a", 1): [True, False, True],
        },
        index=pd.date_range("2021", periods=3, freq="D"),
    )
    made.attrs["made by"] = "a test"
    return made


FRAMES = [
    frame,
    pd.DataFrame,
    lambda: pd.DataFrame(index=range(5)),
    lambda: pd.DataFrame({"a": []}),
    lambda: pd.DataFrame([[1, 2]], columns=["same", "same"]),
    lambda: pd.DataFrame(np.arange(12.0).reshape(3, 4), columns=pd.MultiIndex.from_product([["a", "b"], [1, 2]])),
    lambda: pd.DataFrame({"a": [1, 2]}, index=pd.MultiIndex.from_tuples([(1, "x"), (2, "y")], names=["n", None])),
    lambda: pd.DataFrame({"a": [1, 2]}, index=pd.Index(["x", 2], dtype=object)),
    lambda: pd.DataFrame(
        {"a": [1, 2]}, index=pd.MultiIndex([pd.RangeIndex(0, 90, 3), ["x"]], [[9, 0], [0, 0]], names=["n", "m"])
    ),
]


@pytest.mark.parametrize("make", FRAMES)
def test_a_frame_comes_back_with_types_labels_and_attributes(make: Any) -> None:
    sent = make()
    received = there_and_back([sent])[0]
    pd.testing.assert_frame_equal(received, sent)
    assert received.attrs == sent.attrs


@pytest.mark.parametrize(
    "sent",
    [
        pd.Series([1, 2], name="n"), pd.Series(["a", 1], dtype=object), pd.Series(dtype="category"),
        pd.Series([1], index=["z"]), pd.Series(["a", None], dtype="string"), pd.Series(pd.interval_range(0, 3)),
    ],
)  # fmt: skip
def test_a_series_comes_back(sent: Any) -> None:
    pd.testing.assert_series_equal(there_and_back(sent), sent)


@pytest.mark.parametrize(
    "sent",
    [
        pd.Timestamp("2020-01-01 03:04:05.123456789"), pd.Timestamp("2020-06-01", tz="Europe/Amsterdam"),
        pd.Timestamp(0, unit="s", tz="UTC"), pd.Timedelta("1D 3ns"),
    ],
)  # fmt: skip
def test_times_of_pandas_come_back(sent: Any) -> None:
    received = there_and_back(sent)
    assert received == sent
    assert (type(received), received.unit) == (type(sent), sent.unit)


@pytest.mark.parametrize("sent", [pd.NaT, pd.NA])
def test_what_is_not_there_in_pandas_stays_the_same_object(sent: Any) -> None:
    assert there_and_back(sent) is sent


def test_numbers_of_a_frame_are_not_copied() -> None:
    numbers = np.arange(200_000.0).reshape(2, -1)
    sent = pd.DataFrame({"a": numbers[0], "b": numbers[1]}, copy=False)
    packed = pack_object(sent)
    assert sum(np.shares_memory(np.frombuffer(part, np.uint8), numbers) for part in packed.parts) == 2
    data = bytearray(packed.join())
    assert np.shares_memory(unpack_object(data)["a"].to_numpy(), np.frombuffer(data, np.uint8))


def table() -> Any:
    return pa.table(
        {"a": [1, 2], "text": ["x", None], "lists": [[1], [2, 3]], "words": pa.array(["q", "q"]).dictionary_encode(),
         "records": [{"x": 1}, {"x": None}]}
    )  # fmt: skip


def test_tables_and_batches_of_arrow_come_back() -> None:
    assert there_and_back(table()).equals(table())
    batch = table().to_batches()[0]
    for sent in (batch, batch.slice(0, 0)):
        received = there_and_back(sent)
        assert type(received) is pa.RecordBatch
        assert received.equals(sent)


@pytest.mark.parametrize(
    "sent",
    [
        pa.table({"n": pa.nulls(5)}), pa.table({"n": pa.array([[], []], pa.list_(pa.null()))}),
        pa.table({"n": pa.array([{}, {}], pa.struct([]))}), pd.DataFrame({"n": pd.array([1], dtype="Sparse[int]")}),
    ],
)  # fmt: skip
def test_types_whose_values_need_no_bytes_are_refused_at_the_sender(sent: Any) -> None:
    with pytest.raises(ObjectEncodeError):
        pack_object(sent)


def stream_of(sent: Any, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, sent.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write(sent)
    data: bytes = sink.getvalue().to_pybytes()
    return data


GOOD = stream_of(table())


def overlapping(sent: Any) -> bytes:
    """The stream of a table, of whose numbers each column has those of the first."""
    data = bytearray(stream_of(sent))
    places = [data.index(struct.pack("<qq", 8 * number, 8)) for number in range(sent.num_columns)]
    for place in places:
        struct.pack_into("<qq", data, place, 0, 8)
    return bytes(data)


HOSTILE_STREAMS = {
    "nothing": b"",
    "no stream": b"x" * 100,
    "cut": GOOD[: len(GOOD) // 2],
    "compressed": stream_of(pa.table({"zeros": np.zeros(1_000_000)}), compression="zstd"),
    "compressed words": stream_of(pa.table({"a": pa.array(["q" * 999] * 99).dictionary_encode()}), compression="lz4"),
    "a billion nulls": stream_of(pa.table({"n": pa.nulls(1_000_000_000)})),
    "a billion equal values": stream_of(
        pa.table({"n": pa.RunEndEncodedArray.from_arrays(pa.array([1_000_000_000], pa.int32()), pa.array([1]))})
    ),
    "a union": stream_of(pa.table({"n": pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])})),
    "buffers that overlap": overlapping(pa.table({name: np.array([7]) for name in "abc"})),
    "text that is no UTF-8": stream_of(pa.table({"n": pa.array([b"\xff"]).cast(pa.binary()).view(pa.string())})),
}


@pytest.mark.parametrize("name", HOSTILE_STREAMS)
def test_a_hostile_stream_of_arrow_is_refused(name: str) -> None:
    with pytest.raises(ObjectDecodeError):
        unpack_object(message(op.KNOWN, "pyarrow.Table", op.BYTES, None, buffers=(HOSTILE_STREAMS[name],)))


def test_changed_streams_of_arrow_are_tables_or_refused() -> None:
    rng = np.random.default_rng(1)
    for _ in range(300):
        data = bytearray(GOOD)
        for at in rng.integers(0, len(data), 3):
            data[at] = rng.integers(256)
        try:
            received = unpack_object(message(op.KNOWN, "pyarrow.Table", op.BYTES, None, buffers=(bytes(data),)))
        except ObjectDecodeError:
            continue
        received.to_pydict()


def of_kind(name: str, payload: Any) -> bytes:
    """A message of a kind whose small payload a peer has chosen."""
    return message(op.KNOWN, name, bytearray(pack_object(payload).join()[HEADER.size :]))


@pytest.mark.parametrize(
    "payload",
    [
        None, (1, 2), (("range", 0, 3, 0, None), ("range", 0, 3, 1, None), [], None, {}),
        (("range", 0, 1, 1, None), ("range", 0, 3, 1, None), [np.arange(2)], None, {}),
        (("range", 0, 1, 1, None), ("range", 0, 3, 1, None), [np.ones((3, 3))], None, {}),
        (("range", 0, 1, 1, None), ("range", 0, 3, 1, None), [None], None, {}),
        (("range", 0, 1, 1, None), ("range", 0, 3, 1, None), [None], b"no stream", {}),
        (("range", 0, 1, 1, None), ("range", 0, 2**70, 1, None), [], None, {}),
        (("range", 0, 1, 1, None), ("other", 0, 3, 1, None), [np.arange(3)], None, {}),
        (("range", 0, 1, 1, None), ("plain", [np.arange(3)], None, None, "D"), [np.arange(3)], None, {}),
        (("range", 0, 1, 1, None), ("range", 0, 3, 1, None), [(np.array([0, 9, 0]), ("range", 0, 1, 1, None), False)],
         None, {}),
        (("range", 0, 1, 1, None), ("range", 0, 3, 1, None), [np.arange(3)], None, [1]),
        (("range", 0, 1, 1, None), ("multi", [("range", 0, 10**9, 1, None)], [np.zeros(3, np.int8)], [None]),
         [np.arange(3)], None, {}),
    ],
    ids=repr,
)  # fmt: skip
def test_a_hostile_frame_is_refused(payload: Any) -> None:
    with pytest.raises(ObjectDecodeError):
        unpack_object(of_kind("pandas.DataFrame", payload))


@pytest.mark.parametrize(
    "sent",
    [
        gmpy2.mpz(0), gmpy2.mpz(-(2**2048)), gmpy2.xmpz(5), gmpy2.mpq(3, -7), gmpy2.mpfr("1.1", 200), gmpy2.mpfr("inf"),
        gmpy2.mpfr("-inf"), gmpy2.mpfr("1e-30000"), gmpy2.mpfr("1e300000", 100), gmpy2.mpfr(1, 2), gmpy2.mpc(1.5, -2),
        gmpy2.mpc("1+nanj", (60, 90)), gmpy2.mpfr("-0"), gmpy2.mpfr("nan"),
    ],
    ids=repr,
)  # fmt: skip
def test_numbers_of_gmpy2_come_back(sent: Any) -> None:
    received = there_and_back([sent])[0]
    assert type(received) is type(sent)
    assert repr(received) == repr(sent)
    assert getattr(received, "precision", None) == getattr(sent, "precision", None)


@pytest.mark.parametrize(
    "payload",
    [
        5, (5, 64, 1), (2**40, "nan"), (53, "snan"), (53, 2**60, 0), (53, 1, 2**50), (0, 1, 1), (53, 1.5, 0),
        (53, 0, 0),
    ],
)  # fmt: skip
def test_hostile_numbers_of_gmpy2_are_refused(payload: Any) -> None:
    with pytest.raises(ObjectDecodeError):
        unpack_object(of_kind("gmpy2.mpfr", payload))


@pytest.mark.parametrize(
    "sent",
    [
        bitarray.bitarray(), bitarray.bitarray("10110"), bitarray.bitarray("1" * 9999, endian="little"),
        bitarray.frozenbitarray("01"),
    ],
)  # fmt: skip
def test_arrays_of_bits_come_back(sent: Any) -> None:
    received = there_and_back(sent)
    assert received == sent
    assert (type(received), received.endian) == (type(sent), sent.endian)


def test_no_library_is_imported_before_its_objects_come() -> None:
    program = """
import sys
from partywire.workers.objects.packing import HEADER, pack_object, unpack_object
unpack_object(pack_object([1, "a", {2.5}]).join())
print([name for name in ("pandas", "pyarrow", "gmpy2", "bitarray") if name in sys.modules])
sys.modules["gmpy2"] = None
from partywire.workers.objects.errors import ObjectDecodeError
try:
    unpack_object(bytes.fromhex(sys.argv[1]))
except ObjectDecodeError as error:
    print(error)
"""
    packed = pack_object(gmpy2.mpz(5)).join().hex()
    printed = subprocess.run(
        [sys.executable, "-c", program, packed], capture_output=True, text=True, check=True, timeout=60
    ).stdout.splitlines()
    assert printed[0] == "[]"
    assert "install gmpy2 here" in printed[1]
