"""Frames, series and times of pandas. Imported when one is sent or received.

Columns of numpy types travel as arrays, lent and taken over without a copy; categories as codes and labels; columns of
Python objects as lists of what is in them; all others (text, nullable numbers, zoned times ...) together as one stream
of Arrow, which needs pyarrow.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd

from .errors import ObjectDecodeError, ObjectEncodeError
from .kinds import Kind, decode_zone, encode_zone

_COLUMN_KINDS: Final = frozenset("biufcmM")
_WITH_FREQUENCY: Final = (pd.DatetimeIndex, pd.TimedeltaIndex)
FREQUENCY_SIZE_MAX: Final = 32


def _refuse(what: str = "an object of pandas that is none") -> ObjectDecodeError:
    return ObjectDecodeError(what)


def _parts(payload: Any, count: int) -> tuple[Any, ...]:
    if type(payload) is not tuple or len(payload) != count:
        raise _refuse()
    return payload


# Columns.


def _encode_columns(columns: list[Any]) -> tuple[list[Any], Any]:
    """Each column as an array, a list, a tuple for categories, or None when it stands in the stream that follows."""
    sent: list[Any] = []
    in_stream: dict[str, Any] = {}
    for number, column in enumerate(columns):
        dtype = column.dtype
        if dtype == np.dtype(object):
            sent.append(list(column))
        elif isinstance(dtype, np.dtype):
            sent.append(column.to_numpy())
        elif isinstance(dtype, pd.CategoricalDtype):
            values = column.array if isinstance(column, pd.Series) else column.values
            sent.append((np.asarray(values.codes), _encode_index(dtype.categories), bool(dtype.ordered)))
        else:
            sent.append(None)
            in_stream[str(number)] = pd.Series(column.array)
    return sent, _stream(in_stream) if in_stream else None


def _stream(columns: dict[str, Any]) -> memoryview:
    try:
        import pyarrow as pa
    except ImportError as error:
        raise ObjectEncodeError("sending such columns of pandas needs pyarrow; install it") from error
    from .arrow_stream import stream_of

    frame = pd.DataFrame(columns)
    try:
        table = pa.Table.from_pandas(frame, preserve_index=False)
        restored = table.slice(0, 0).to_pandas().dtypes
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise ObjectEncodeError("Arrow cannot hold a column of this frame; convert it to object") from error
    for name, dtype in frame.dtypes.items():
        if restored[name] != dtype:
            raise ObjectEncodeError(f"a column of type {dtype} would arrive as {restored[name]}; convert it")
    return stream_of(table)


def _decode_columns(sent: Any, stream: Any) -> list[Any]:
    if type(sent) is not list:
        raise _refuse()
    in_stream = {}
    if stream is not None:
        from .arrow_stream import table_untrusted

        if type(stream) not in (bytes, memoryview):
            raise _refuse()
        in_stream = dict(table_untrusted(stream).to_pandas().items())
    columns: list[Any] = []
    for number, column in enumerate(sent):
        if column is None:
            columns.append(in_stream[str(number)].array)
        elif type(column) is list:
            objects = np.empty(len(column), object)
            for at, item in enumerate(column):
                objects[at] = item
            columns.append(objects)
        elif type(column) is np.ndarray and column.ndim == 1 and column.dtype.kind in _COLUMN_KINDS:
            columns.append(column)
        elif type(column) is tuple:
            codes, categories, is_ordered = _parts(column, 3)
            columns.append(pd.Categorical.from_codes(codes, _decode_index(categories), ordered=bool(is_ordered)))
        else:
            raise _refuse()
    return columns


# Labels.


def _encode_index(index: Any) -> Any:
    kind = type(index)
    if kind is pd.RangeIndex:
        return "range", index.start, index.stop, index.step, index.name
    if kind is pd.MultiIndex:
        levels = [_encode_index(_as_values(level)) for level in index.levels]
        return "multi", levels, [np.asarray(codes) for codes in index.codes], list(index.names)
    frequency = index.freqstr if isinstance(index, _WITH_FREQUENCY) else None
    return "plain", *_encode_columns([index]), index.name, frequency


def _as_values(level: Any) -> Any:
    """A level without ranges: few bytes would stand for any number of labels, for each of which pandas takes memory."""
    return pd.Index(np.asarray(level), name=level.name) if type(level) is pd.RangeIndex else level


def _decode_index(payload: Any) -> Any:
    if type(payload) is not tuple or not payload:
        raise _refuse()
    if payload[0] == "range":
        _, start, stop, step, name = _parts(payload, 5)
        if any(type(number) is not int for number in (start, stop, step)):
            raise _refuse()
        return pd.RangeIndex(start, stop, step, name=name)
    if payload[0] == "multi":
        _, levels, codes, names = _parts(payload, 4)
        if any(type(level) is not tuple or level[:1] != ("plain",) for level in levels):
            raise _refuse()
        return pd.MultiIndex([_decode_index(level) for level in levels], codes, names=names)
    if payload[0] != "plain":
        raise _refuse()
    _, sent, stream, name, frequency = _parts(payload, 5)
    (column,) = _decode_columns(sent, stream)
    if isinstance(column, np.ndarray) and column.dtype.hasobject:
        return pd.Index(column, dtype=object, name=name)
    if frequency is None:
        return pd.Index(column, name=name)
    made: Any = pd.Index(column, name=name)
    if type(frequency) is not str or len(frequency) > FREQUENCY_SIZE_MAX or not isinstance(made, _WITH_FREQUENCY):
        raise _refuse()
    made.freq = frequency
    return made


# Frames and series.


def _encode_frame(frame: Any) -> Any:
    sent, stream = _encode_columns([frame.iloc[:, number] for number in range(frame.shape[1])])
    return _encode_index(frame.columns), _encode_index(frame.index), sent, stream, frame.attrs


def _decode_frame(payload: Any) -> Any:
    labels, rows, sent, stream, attributes = _parts(payload, 5)
    columns, index = _decode_columns(sent, stream), _decode_index(rows)
    if any(len(column) != len(index) for column in columns):
        raise _refuse("a frame with columns of other lengths than its index")
    frame = pd.DataFrame(dict(enumerate(columns)), index=index, copy=False)
    frame.columns = _decode_index(labels)
    return _with_attributes(frame, attributes)


def _encode_series(series: Any) -> Any:
    return _encode_index(series.index), *_encode_columns([series]), series.name, series.attrs


def _decode_series(payload: Any) -> Any:
    rows, sent, stream, name, attributes = _parts(payload, 5)
    (column,), index = _decode_columns(sent, stream), _decode_index(rows)
    if len(column) != len(index):
        raise _refuse("a series of another length than its index")
    dtype = object if getattr(column, "dtype", None) == np.dtype(object) else None
    return _with_attributes(pd.Series(column, index=index, name=name, dtype=dtype, copy=False), attributes)


def _with_attributes(made: Any, attributes: Any) -> Any:
    if type(attributes) is not dict:
        raise _refuse()
    made.attrs.update(attributes)
    return made


# Times.


def _encode_timestamp(value: Any) -> Any:
    zone = value.tzinfo
    plain = value if zone is None else value.tz_convert("UTC").tz_localize(None)
    return plain.to_numpy(), encode_zone(zone)


def _decode_timestamp(payload: Any) -> Any:
    moment, zone = _parts(payload, 2)
    if type(moment) is not np.datetime64:
        raise _refuse()
    made = pd.Timestamp(moment)
    return made if zone is None else made.tz_localize("UTC").tz_convert(decode_zone(zone))


def _decode_timedelta(payload: Any) -> Any:
    if type(payload) is not np.timedelta64:
        raise _refuse()
    return pd.Timedelta(payload)


KINDS: Final[dict[type, Kind]] = {
    pd.DataFrame: Kind("pandas.DataFrame", _encode_frame, _decode_frame),
    pd.Series: Kind("pandas.Series", _encode_series, _decode_series),
    pd.Timestamp: Kind("pandas.Timestamp", _encode_timestamp, _decode_timestamp),
    pd.Timedelta: Kind("pandas.Timedelta", lambda value: value.to_numpy(), _decode_timedelta),
    type(pd.NaT): Kind("pandas.NaT", lambda value: None, lambda payload: pd.NaT),
    type(pd.NA): Kind("pandas.NA", lambda value: None, lambda payload: pd.NA),
}
