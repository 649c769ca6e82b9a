"""The kinds of records in the rings of a lane, and the payload of the one kind that has a structure.

Between a worker and the I/O process of a link. A data lane is one ring pair of one connection; the control lane is one
ring pair between the opener and each I/O process, and so is the substream lane, where there is one. `tx` is worker ->
I/O process, `rx` the other way.

Kind        tx                                          rx
DATA        whole frames                                any slice of the connection's stream
CONTROL     the body of one CONTROL frame               the body of one CONTROL frame
SUBSTREAMS  any slice of the opener's byte stream       any slice of the I/O process's byte stream
STREAM_END  -                                           the connection is over; nothing follows
FINISH      no more from us                             -
PEER_ERRED  behind FINISH: the peer broke the protocol  -

The one invariant: DATA, FINISH and at most one PEER_ERRED behind it on data lanes, CONTROL and FINISH on control
lanes, STREAM_END last on each rx ring.
On a substream lane, which is a byte stream each way (ring_stream.py), there are SUBSTREAMS in both rings and STREAM_END
last in each: clean for the end of that direction, else both directions are broken.
A worker sends a GOODBYE frame as its last DATA before FINISH. FINISH on the control lane says that the party closes.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import orjson

DATA: Final = 1
CONTROL: Final = 2
STREAM_END: Final = 3
FINISH: Final = 4
SUBSTREAMS: Final = 5
PEER_ERRED: Final = 6

_CAUSE_LENGTH_MAX = 1000  # characters; a sentence. The record must fit a ring of the smallest size many times.


class StreamEnd(NamedTuple):
    """Why a connection is over. `clean`: the peer said goodbye, and everything before it was delivered."""

    clean: bool
    cause: str


def encode_stream_end(end: StreamEnd) -> bytes:
    """The payload of a STREAM_END record."""
    return orjson.dumps({"clean": end.clean, "cause": end.cause[:_CAUSE_LENGTH_MAX]})


def decode_stream_end(payload: bytes | bytearray | memoryview) -> StreamEnd:
    """What a STREAM_END record says.

    Raises:
        ValueError: the I/O process wrote something else; a bug.
    """
    document = orjson.loads(payload)
    match document:
        case {"clean": bool(clean), "cause": str(cause)}:
            return StreamEnd(clean, cause)
        case _:
            raise ValueError("a STREAM_END record without `clean` and `cause`")
