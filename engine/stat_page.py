"""A stat page: the figures of one process in memory that other processes map and read without its help.

Between one writer, the process that the figures are about, and any number of readers (supervisor, `partywire stat`).

    word 0..7   magic, layout, writer's pid, generation, time, count of values, size of the text, values left out
    VALUES_AT   one 8-byte word for each value
    TEXT_AT     JSON: which name, unit and labels each value has, and what is published as words

The one invariant: while `generation` is even and stays the same over a read, what was read is one whole publication.

Guarantees
- Each word has one writer and is stored by one aligned 8-byte store. Publishing waits for nobody, reading stores
  nothing.
- The page is a sealed memfd: it has no name, cannot shrink under a reader, and is gone with its last descriptor.
- It costs the memory that is used of its PAGE_SIZE; the text is written again only when it differs.

Assumptions
- Stores become visible in the order of the program (x86-64). Elsewhere a read may rarely mix two publications; nothing
  but a display depends on a figure. A writer that is killed inside a publication leaves a page that a new reader cannot
  read.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from .errors import PartyWireError
from .stat_figures import FIGURES

if TYPE_CHECKING:
    from collections.abc import Iterable

PAGE_SIZE: Final = 1 << 20
VALUES_MAX: Final = 8192
"""Twelve figures of each ring and five of each lane: 290 connections."""

MAGIC: Final = int.from_bytes(b"MPCSTAT1", "little")
LAYOUT: Final = 1

WORD_MAGIC: Final = 0
WORD_LAYOUT: Final = 1
WORD_PID: Final = 2
WORD_GENERATION: Final = 3  # odd while the writer is inside a publication; 0 before the first
WORD_PUBLISHED_NS: Final = 4  # CLOCK_MONOTONIC
WORD_COUNT: Final = 5
WORD_TEXT_SIZE: Final = 6
WORD_LEFT_OUT: Final = 7  # values that the page had no room for

VALUES_AT: Final = 64
TEXT_AT: Final = (VALUES_AT + VALUES_MAX) * 8
TEXT_SIZE_MAX: Final = PAGE_SIZE - TEXT_AT
WORDS_MAX: Final = 512  # characters of what is published as words

VALUE_MAX: Final = (1 << 64) - 1
READ_ATTEMPTS: Final = 16
"""A publication takes microseconds and there are two a second."""

SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL

Labels = tuple[tuple[str, str], ...]


class StatPageError(PartyWireError):
    """Raised when a descriptor is not a stat page of this version."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"a stat page cannot be read: {self.what}; is the party another version than this command?"


class Value(NamedTuple):
    """One figure at the moment of its publication."""

    name: str
    labels: Labels
    value: int


class Words(NamedTuple):
    """What is published as words."""

    name: str
    labels: Labels
    text: str


class Publication(NamedTuple):
    """Everything that a process published at one moment."""

    pid: int
    published_ns: int
    values: tuple[Value, ...]
    words: tuple[Words, ...]
    left_out: int  # values that there was no room for


def create_stat_page() -> int:
    """The descriptor of an empty page, the caller's."""
    fd = os.memfd_create("partywire-stat", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, PAGE_SIZE)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_read_only(fd: int) -> int:
    """A descriptor of the same page that cannot be mapped for writing, the caller's."""
    return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)


class StatPageWriter:
    """The end of the process that the page is about. Not for several threads."""

    def __init__(self, fd: int) -> None:
        """Takes ownership of `fd`, which is closed: the mapping is enough.

        Raises:
            StatPageError: it is no page.
        """
        self._map = map_page(fd, mmap.PROT_READ | mmap.PROT_WRITE)
        whole = memoryview(self._map)
        self._words = whole[:TEXT_AT].cast("Q")
        self._text_area = whole[TEXT_AT:]
        whole.release()
        self._text = b""
        self._generation = self._words[WORD_GENERATION] // 2 * 2
        self._words[WORD_PID] = os.getpid()
        self._words[WORD_LAYOUT] = LAYOUT
        self._words[WORD_MAGIC] = MAGIC

    def publish(self, values: Iterable[Value], texts: Iterable[Words] = ()) -> None:
        """Put these in the place of everything that was published before. Waits for nothing."""
        kept = list(values)
        count = len(kept)
        text = encode_text(kept, texts)
        words = self._words
        words[WORD_GENERATION] = self._generation + 1
        for position, value in enumerate(kept, VALUES_AT):
            words[position] = min(max(value.value, 0), VALUE_MAX)
        words[WORD_COUNT] = len(kept)
        words[WORD_LEFT_OUT] = count - len(kept)
        if text != self._text:
            self._text_area[: len(text)] = text
            words[WORD_TEXT_SIZE] = len(text)
            self._text = text
        words[WORD_PUBLISHED_NS] = time.monotonic_ns()
        self._generation += 2
        words[WORD_GENERATION] = self._generation

    def close(self) -> None:
        """Give the mapping back; what was published stays readable. May be called again."""
        self._words.release()
        self._text_area.release()
        self._map.close()


class StatPageReader:
    """A reader's end. Not for several threads."""

    def __init__(self, fd: int) -> None:
        """Takes ownership of `fd`, also when it raises.

        Raises:
            StatPageError: it is no page.
        """
        self._map = map_page(fd, mmap.PROT_READ)
        self._words = memoryview(self._map)[:TEXT_AT].cast("Q")
        self._text = b""
        self._described: tuple[list[tuple[str, Labels]], tuple[Words, ...]] = ([], ())
        self._last: Publication | None = None  # set by each read that met a whole publication

    @property
    def generation(self) -> int:
        """Moves with each publication; 0 before the first. May be stale."""
        return self._words[WORD_GENERATION]

    def read(self) -> Publication | None:
        """The latest publication that was met whole; None if there was none yet.

        Inside a publication, where its writer may have been stopped or killed, that is the one read before.

        Raises:
            StatPageError: what stands there is not of this version.
        """
        words = self._words
        for _ in range(READ_ATTEMPTS):
            before = words[WORD_GENERATION]
            if before == 0:
                return None
            if before % 2:
                continue
            pid, published_ns, left_out = words[WORD_PID], words[WORD_PUBLISHED_NS], words[WORD_LEFT_OUT]
            values = words[VALUES_AT : VALUES_AT + min(words[WORD_COUNT], VALUES_MAX)].tolist()
            text = self._map[TEXT_AT : TEXT_AT + min(words[WORD_TEXT_SIZE], TEXT_SIZE_MAX)]
            if words[WORD_GENERATION] == before:
                if words[WORD_MAGIC] != MAGIC or words[WORD_LAYOUT] != LAYOUT:
                    raise StatPageError("its first words are wrong")
                self._last = self._publication(pid, published_ns, values, text, left_out)
                break
        return self._last

    def _publication(self, pid: int, published_ns: int, values: list[int], text: bytes, left_out: int) -> Publication:
        if text != self._text:
            self._described = decode_text(text)
            self._text = text
        described, words = self._described
        if len(described) != len(values):
            raise StatPageError(f"{len(values)} values with {len(described)} names")
        named = tuple(Value(name, labels, value) for (name, labels), value in zip(described, values, strict=True))
        return Publication(pid, published_ns, named, words, left_out)

    def close(self) -> None:
        """Give the mapping back. May be called again."""
        self._words.release()
        self._map.close()


def map_page(fd: int, protection: int) -> mmap.mmap:
    """Map a page and close its descriptor."""
    try:
        size = os.fstat(fd).st_size
        if size != PAGE_SIZE:
            raise StatPageError(f"it has {size} bytes instead of {PAGE_SIZE}")
        return mmap.mmap(fd, PAGE_SIZE, flags=mmap.MAP_SHARED, prot=protection)
    except (OSError, ValueError) as error:
        raise StatPageError(str(error)) from error
    finally:
        os.close(fd)


# The text.


def encode_text(values: list[Value], texts: Iterable[Words]) -> bytes:
    """What says which value is which. Values that do not fit the page are removed from the end of `values`."""
    del values[VALUES_MAX:]
    words = [[text.name, dict(text.labels), text.text[:WORDS_MAX]] for text in texts]
    while True:
        described = [[value.name, FIGURES[value.name].unit, dict(value.labels)] for value in values]
        text = orjson.dumps({"values": described, "words": words})
        if len(text) <= TEXT_SIZE_MAX:
            return text
        del values[len(values) // 2 :]


def decode_text(text: bytes) -> tuple[list[tuple[str, Labels]], tuple[Words, ...]]:
    """Names and labels in the order of the values, and the words.

    Raises:
        StatPageError: not what `encode_text` writes.
    """
    try:
        document: dict[str, Any] = orjson.loads(text)
        described = [(checked(name), labels_of(labels)) for name, _, labels in document["values"]]
        words = tuple(
            Words(checked(name), labels_of(labels), checked(said)) for name, labels, said in document["words"]
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise StatPageError("its text is not what this version writes") from error
    return described, words


def checked(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(type(value).__name__)
    return value


def labels_of(labels: dict[str, object]) -> Labels:
    return tuple((checked(name), checked(value)) for name, value in labels.items())
