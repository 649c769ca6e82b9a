"""Stat pages: what is published is read whole, by readers that cannot write, whatever the writer does meanwhile."""

from __future__ import annotations

import mmap
import os
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partywire.engine import stat_page
from partywire.engine.stat_figures import FIGURES
from partywire.engine.stat_page import (
    PAGE_SIZE,
    VALUES_MAX,
    StatPageError,
    StatPageReader,
    StatPageWriter,
    Value,
    Words,
    create_stat_page,
    open_read_only,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def page() -> Iterator[tuple[StatPageWriter, StatPageReader]]:
    fd = create_stat_page()
    reader = StatPageReader(open_read_only(fd))
    writer = StatPageWriter(fd)
    yield writer, reader
    writer.close()
    reader.close()


names = st.sampled_from(sorted(FIGURES))
labels = st.lists(st.tuples(st.text(max_size=8), st.text(max_size=12)), max_size=3, unique_by=lambda pair: pair[0])
values = st.lists(
    st.builds(Value, names, labels.map(tuple), st.integers(0, stat_page.VALUE_MAX)),
    max_size=20,
)
words = st.lists(st.builds(Words, st.just("link_cause"), labels.map(tuple), st.text(max_size=40)), max_size=3)


@settings(max_examples=60)
@given(st.lists(st.tuples(values, words), min_size=1, max_size=4))
def test_the_last_publication_is_read_as_it_was_made(publications: list[tuple[list[Value], list[Words]]]) -> None:
    fd = create_stat_page()
    reader = StatPageReader(open_read_only(fd))
    writer = StatPageWriter(fd)
    try:
        for made, said in publications:
            writer.publish(made, said)
            read = reader.read()
            assert read is not None
            assert list(read.values) == made
            assert list(read.words) == said
            assert (read.pid, read.left_out) == (os.getpid(), 0)
    finally:
        writer.close()
        reader.close()


def test_nothing_is_read_before_the_first_publication(page: tuple[StatPageWriter, StatPageReader]) -> None:
    assert page[1].generation == 0
    assert page[1].read() is None


def test_a_writer_that_died_inside_a_publication_leaves_what_was_read_before(
    page: tuple[StatPageWriter, StatPageReader],
) -> None:
    writer, reader = page
    writer._words[stat_page.WORD_GENERATION] = 1
    assert reader.read() is None
    writer.publish([Value("sessions", (), 1)])
    before = reader.read()
    assert before is not None
    writer._words[stat_page.WORD_GENERATION] = 3
    writer._words[stat_page.VALUES_AT] = 7
    assert reader.read() == before
    writer.publish([Value("sessions", (), 2)])
    read = reader.read()
    assert read is not None
    assert read.values[0].value == 2


@pytest.mark.parametrize(("value", "stored"), [(-1, 0), (0, 0), (2**64 - 1, 2**64 - 1), (2**64, 2**64 - 1)])
def test_a_value_beyond_a_word_is_held_at_its_ends(
    page: tuple[StatPageWriter, StatPageReader], value: int, stored: int
) -> None:
    page[0].publish([Value("inbox_bytes", (), value)])
    read = page[1].read()
    assert read is not None
    assert read.values[0].value == stored


@pytest.mark.parametrize(("count", "left_out"), [(VALUES_MAX, 0), (VALUES_MAX + 1, 1)])
def test_values_that_do_not_fit_are_counted(
    page: tuple[StatPageWriter, StatPageReader], count: int, left_out: int
) -> None:
    page[0].publish([Value("sessions", (("worker", "1"),), number) for number in range(count)])
    read = page[1].read()
    assert read is not None
    assert (len(read.values), read.left_out) == (VALUES_MAX, left_out)


def test_names_that_do_not_fit_are_counted_too(page: tuple[StatPageWriter, StatPageReader]) -> None:
    long = (("peer", "x" * 1000),)
    page[0].publish([Value("sessions", long, 1)] * 4000)
    read = page[1].read()
    assert read is not None
    assert 0 < len(read.values) < 4000
    assert len(read.values) + read.left_out == 4000


def test_a_read_is_one_whole_publication_while_another_is_made(page: tuple[StatPageWriter, StatPageReader]) -> None:
    writer, reader = page
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            writer.publish([Value("sessions", (("worker", str(index)),), number) for index in range(1 + number % 30)])

    thread = threading.Thread(target=write)
    thread.start()
    try:
        seen: set[int] = set()
        while len(seen) < 20:
            read = reader.read()
            if read is not None:
                assert len({value.value for value in read.values}) == 1
                assert len(read.values) == 1 + read.values[0].value % 30
                seen.add(read.values[0].value)
    finally:
        stop.set()
        thread.join()


def test_a_reader_can_neither_write_nor_shrink_the_page() -> None:
    fd = create_stat_page()
    read_fd = open_read_only(fd)
    try:
        with pytest.raises(PermissionError):
            mmap.mmap(read_fd, PAGE_SIZE)
        with pytest.raises(OSError, match=r"Bad file descriptor|Invalid argument"):
            os.write(read_fd, b"x")
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 0)  # not even who may write
    finally:
        os.close(fd)
        os.close(read_fd)


def written(text: bytes, count: int = 0, magic: int = stat_page.MAGIC, layout: int = stat_page.LAYOUT) -> int:
    """A page with these first words and this text."""
    fd = create_stat_page()
    head = [magic, layout, 1, 2, 1, count, len(text), 0]
    os.pwrite(fd, b"".join(word.to_bytes(8, "little") for word in head), 0)
    os.pwrite(fd, text, stat_page.TEXT_AT)
    return fd


@pytest.mark.parametrize(
    "fd_of",
    [
        lambda: written(b"{}"),
        lambda: written(b"not JSON"),
        lambda: written(b"[]"),
        lambda: written(b'{"values": [], "words": []}', count=1),
        lambda: written(b'{"values": [[1, "", {}]], "words": []}', count=1),
        lambda: written(b'{"values": [["sessions", "", {"worker": 1}]], "words": []}', count=1),
        lambda: written(b'{"values": [], "words": [["a", {}]]}'),
        lambda: written(b'{"values": [], "words": []}', count=2**63),
        lambda: written(b'{"values": [], "words": []}', magic=1),
        lambda: written(b'{"values": [], "words": []}', layout=stat_page.LAYOUT + 1),
    ],
)
def test_a_page_of_something_else_is_refused(fd_of: object) -> None:
    assert callable(fd_of)
    reader = StatPageReader(fd_of())
    try:
        with pytest.raises(StatPageError, match="another version"):
            reader.read()
    finally:
        reader.close()


def test_a_descriptor_of_another_size_is_refused() -> None:
    fd = os.memfd_create("other")
    os.ftruncate(fd, PAGE_SIZE - 1)
    with pytest.raises(StatPageError, match=str(PAGE_SIZE - 1)):
        StatPageReader(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
