"""Log lines of the command's programs: for people as text, for machines as one JSON object a line.

Between the loggers `partywire.*`, which the library writes to and never configures, and standard error of a program of
ours. The one invariant: an object carries what FIELDS names and nothing else, so nothing secret gets there by way of an
`extra`; of an exception it has the type alone, whose message may quote data.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import IO

LOG_FORMATS: Final = ("text", "json")
LOG_LEVELS: Final = ("debug", "info", "warning", "error")
LOGGER: Final = "partywire"

FIELDS: Final = ("party", "peer", "session", "cause", "address", "worker", "count", "exit_code", "job")
"""What a record may add to time, level, logger and message, by `extra={"event": ..., "peer": ...}`."""

EVENT_UNNAMED: Final = "log"
MESSAGE_SIZE_MAX: Final = 8192  # characters; a job may print a line of any length


def time_text(seconds: float) -> str:
    """Unix time as RFC 3339 in UTC, to the microsecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def document(time_s: float, level: str, event: str, message: str, logger: str, **fields: Any) -> dict[str, Any]:
    """One log line. Every field of the first three and `message` is always there, others where they are known."""
    known = {name: plain(fields[name]) for name in FIELDS if fields.get(name) is not None}
    return {
        "time": time_text(time_s),
        "level": level,
        "event": plain(event),
        **known,
        "message": plain(message),
        "logger": plain(logger),
    }


def plain(value: object) -> str | int | float | bool:
    """A value as JSON can carry it: numbers as they are if they fit, anything else as text, cut where it is long."""
    if isinstance(value, (bool, float)) or (isinstance(value, int) and value.bit_length() < 64):
        return value
    try:
        text = str(value)
    except Exception:
        text = f"a {type(value).__name__} that cannot be shown"
    return text[:MESSAGE_SIZE_MAX].encode("utf-8", "backslashreplace").decode()  # a file's name may be any bytes


def record_document(record: logging.LogRecord) -> dict[str, Any]:
    """A record of the standard library as one log line."""
    fields = {name: getattr(record, name, None) for name in FIELDS}
    line = document(
        record.created,
        record.levelname.lower(),
        str(getattr(record, "event", EVENT_UNNAMED)),
        message_of(record),
        record.name,
        **fields,
    )
    if record.exc_info and record.exc_info[0] is not None:
        line["error"] = record.exc_info[0].__name__
    return line


def message_of(record: logging.LogRecord) -> str:
    """Its sentence; a mistake in the arguments of a log call must not put a stack trace among the lines."""
    try:
        return record.getMessage()
    except Exception:
        return f"{plain(record.msg)} (its arguments do not fit)"


def encode_line(line: dict[str, Any]) -> str:
    """What `document` made as one line, without its end."""
    return orjson.dumps(line).decode()


class JsonFormatter(logging.Formatter):
    """For a handler of a program of one's own: one object a line."""

    def format(self, record: logging.LogRecord) -> str:
        return encode_line(record_document(record))


class ProcessFormatter(logging.Formatter):
    """For the further processes of a party: a line says whose it is, as those of `engine/child_logs` do."""

    def __init__(self, whose: Callable[[], str]) -> None:
        """`whose` is asked for each line, since a process may learn its party's name late."""
        super().__init__()
        self._whose = whose

    def format(self, record: logging.LogRecord) -> str:
        return f"partywire: {self._whose()}: {super().format(record)}"


def log_with(whose: Callable[[], str]) -> None:
    """Write every warning and error of this process to standard error, behind whose it is."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(ProcessFormatter(whose))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


class LineHandler(logging.Handler):
    """Gives each record as a log line to `sink`, which must not log."""

    def __init__(self, sink: Callable[[dict[str, Any]], None]) -> None:
        super().__init__()
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._sink(record_document(record))
        except Exception:
            self.handleError(record)


def is_news(record: logging.LogRecord) -> bool:
    """Whether a record is of what happens to a party, and not a remark that always stood on the terminal."""
    return hasattr(record, "event")


def configure_logs(format_: str, level: str | None, stream: IO[str] | None = None) -> logging.Handler:
    """Show the log lines of this process on `stream` (standard error). For programs, never for the library.

    Text without a level shows warnings, and of what happens to links nothing: the error that ends a run says it.
    """
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    if format_ == "json":
        handler.setFormatter(JsonFormatter())
    install(handler, format_, level)
    return handler


def install(handler: logging.Handler, format_: str, level: str | None) -> None:
    """Let a handler show what the format and level ask for, and nobody else the same."""
    if format_ == "text" and level is None:
        handler.addFilter(lambda record: not is_news(record))
    logger = logging.getLogger(LOGGER)
    logger.setLevel((level or ("info" if format_ == "json" else "warning")).upper())
    logger.addHandler(handler)
    logger.propagate = False


def wants_json_logs(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for JSON lines, before anybody has parsed it."""
    return "--log-format=json" in arguments or ("--log-format", "json") in pairwise(arguments)
