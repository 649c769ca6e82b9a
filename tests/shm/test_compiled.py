"""The compiled core: who gets it, and that nothing in it leaks, crashes or differs from plain Python in numbers."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import os
import re
import subprocess
import sys
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from partywire.shm import (
    Bell,
    Doorbell,
    RecordTooLarge,
    RingClosed,
    Segment,
    UnsoundOrdering,
    compiled,
    counters,
    fence,
    probe,
    pure,
    record,
    segment,
)
from partywire.shm.counters import WORD_HEAD, WORD_TAIL
from tests.shm import ring_pair
from tests.shm.implementations import compiled_core, implementation
from tests.shm.ring_pair import RingPair, payload_of

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def pair() -> Iterator[RingPair]:
    with RingPair(1024) as made:
        yield made


# Choosing.


def refuse_import(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ImportError(f"no {name} here")

    monkeypatch.setattr(importlib, "import_module", fail)


def test_plain_python_can_be_asked_for() -> None:
    assert compiled.load("pure") is None


def test_without_the_module_the_process_uses_plain_python(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_import(monkeypatch)
    assert compiled.load("auto") is None


def test_a_compiled_core_that_was_asked_for_and_is_not_there_is_an_error_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refuse_import(monkeypatch)
    with pytest.raises(ImportError, match=r"PARTYWIRE_CORE asks for the compiled core.*no partywire._core here.*unset"):
        compiled.load("compiled")


def test_an_unknown_choice_is_refused() -> None:
    with pytest.raises(ValueError, match="PARTYWIRE_CORE is 'fast'; unset it or use one of auto, pure, compiled"):
        compiled.load("fast")


# Numbers.


def test_the_layout_in_c_has_the_numbers_of_the_specification() -> None:
    text = (Path(compiled.__file__).parent / "core" / "layout.h").read_text()
    numbers = {name: eval(value) for name, value in re.findall(r"^    ([A-Z_]+) = ([\w <]+),$", text, re.MULTILINE)}
    assert len(numbers) == 14
    specified = {**vars(segment), **vars(record), **vars(counters)}
    assert {name: specified[name] for name in numbers} == numbers


def test_the_ticket_in_c_is_the_word_of_the_specification() -> None:
    text = (Path(compiled.__file__).parent / "core" / "doorbell.c").read_text()
    assert f"WORD_TICKET = {pure.WORD_TICKET} " in text


# Arguments.


@pytest.mark.both
def test_every_argument_may_be_given_by_its_name(pair: RingPair) -> None:
    assert pair.writer.try_write(parts=[b"ab", b"c"], size=3, kind=7, connection=8, link_epoch=9)
    claim = pair.writer.try_claim(size_max=100, size_min=2)
    assert claim is not None
    claim[:2] = b"de"
    pair.writer.commit(size=2, kind=10, connection=11, link_epoch=12)
    pair.writer.publish()
    (first,) = pair.reader.poll(records_max=1, bytes_max=1000)
    (second,) = pair.reader.poll(bytes_max=1000)
    assert (first.kind, first.connection, first.link_epoch, bytes(first.payload)) == (7, 8, 9, b"abc")
    assert (second.kind, second.connection, second.link_epoch, bytes(second.payload)) == (10, 11, 12, b"de")


@pytest.mark.both
@pytest.mark.parametrize(
    ("args", "keywords"),
    [
        (([b"x"], 1), {}),
        (([b"x"], 1, 1, 0, 0, 0), {}),
        (([b"x"], 1, 1), {"size": 1}),
        (([b"x"], 1, 1), {"sizes": 1}),
        ((["text"], 4, 1), {}),
        ((None, 1, 1), {}),
        (([b"x"], "1", 1), {}),
    ],
)
def test_wrong_arguments_are_type_errors_and_leave_the_ring_as_it_was(
    pair: RingPair, args: tuple[Any, ...], keywords: dict[str, Any]
) -> None:
    with pytest.raises(TypeError):
        pair.writer.try_write(*args, **keywords)
    pair.send(b"next")
    assert pair.receive() == [b"next"]


@pytest.mark.both
@pytest.mark.parametrize(("kind", "connection", "epoch"), [(1 << 16, 0, 0), (-1, 0, 0), (1, 1 << 32, 0), (1, 0, -1)])
def test_numbers_that_no_header_holds_are_refused(pair: RingPair, kind: int, connection: int, epoch: int) -> None:
    with pytest.raises(Exception, match=r"number|between|range|convert"):
        pair.writer.try_write([b"x"], 1, kind, connection, epoch)
    pair.send(b"next")
    assert pair.receive() == [b"next"]


@pytest.mark.both
def test_sizes_beyond_every_integer_of_the_machine_are_refused_like_any_other(pair: RingPair) -> None:
    for size in (1 << 62, 1 << 63, 1 << 64, 1 << 200):
        with pytest.raises(RecordTooLarge):
            pair.writer.try_write([b"x"], size, 1)
        with pytest.raises(RecordTooLarge):
            pair.writer.try_claim(size, size)
        with pytest.raises(ValueError, match=r"no record has between|structure"):
            pair.writer.try_write([b"x"], -size, 1)
        claim = pair.writer.try_claim(size)
        assert claim is not None
        assert len(claim) == pair.writer.record_size_max
        with pytest.raises(ValueError, match="do not lie within the claim"):
            pair.writer.commit(size, 1)
        pair.writer.abort()


@pytest.mark.both
def test_parts_that_do_not_add_up_commit_nothing(pair: RingPair) -> None:
    for parts, size in (([b"abc"], 2), ([b"abc"], 4), ([], 1), ([b"a", b"bc", b"d"], 3), ([bytes(400)], 10)):
        with pytest.raises(ValueError, match=r"add up|structure"):
            pair.writer.try_write(parts, size, 1)
    pair.send(b"next")
    assert pair.receive() == [b"next"]


@pytest.mark.both
def test_parts_that_close_the_ring_while_they_are_taken_are_an_error_and_no_crash(pair: RingPair) -> None:
    def parts() -> Iterator[bytes]:
        yield b"a"
        pair.writer.close()
        yield b"b"

    with pytest.raises((RingClosed, ValueError, RuntimeError)):
        pair.writer.try_write(parts(), 2, 1)  # type: ignore[arg-type]
    with pytest.raises(RingClosed):
        pair.writer.publish()
    assert pair.reader.poll() == []


def test_objects_that_were_never_made_refuse_every_call() -> None:
    core = compiled_core()
    writer, reader, bell = (kind.__new__(kind) for kind in (core.WriterCore, core.ReaderCore, core.BellCore))
    calls = [
        lambda: writer.try_write([b""], 0, 1),
        lambda: writer.try_claim(1),
        lambda: writer.commit(0, 1),
        writer.abort,
        writer.publish,
        writer._load_head,
        reader.poll,
        lambda: reader.release(0),
        reader.release_all,
        lambda: reader.release_part(0),
        reader.is_empty,
        bell.ring,
        bell.ring_if_asleep,
        lambda: core.receive_into_ring(writer, -1, 0, 0, 1, 1, 1),
        lambda: core.send_from_ring(reader, -1, 1),
    ]
    for call in calls:
        with pytest.raises(AttributeError):  # the method that would have refused is not there
            call()
    for end in (writer, reader, bell):
        end._detach()


def test_an_end_is_made_once() -> None:
    strong = implementation("compiled")
    doorbell = Doorbell.create()
    with RingPair(128) as pair:
        for end in (
            strong.writer(pair.writer_segment, probe(), None),
            strong.reader(pair.reader_segment, probe(), None),
        ):
            with pytest.raises(TypeError, match="made once"):
                end.__init__(pair.writer_segment, probe(), None)  # type: ignore[misc]
        bell = ring_pair.bell_of(doorbell, strong.bell)
        with pytest.raises(TypeError, match="made once"):
            compiled_core().BellCore.__init__(bell, 0, bell._map)
        bell.close()
    doorbell.close()


def test_a_mapping_that_is_no_segment_is_refused() -> None:
    core = compiled_core()

    class Fake:
        def __init__(self, capacity: object, mapping: object) -> None:
            self.capacity, self._map, self.data = capacity, mapping, memoryview(bytearray(8))

    for capacity, mapping in ((128, bytearray(128)), (128, bytes(4096 + 128)), (100, bytearray(5000)), (-1, None)):
        for kind in (core.WriterCore, core.ReaderCore):
            with pytest.raises((ValueError, TypeError, BufferError)):
                kind(Fake(capacity, mapping), probe(), None)
    with pytest.raises(ValueError, match="wrong size"):
        core.BellCore(0, bytes(100))


def test_the_functions_of_the_core_refuse_ends_that_are_not_its_own() -> None:
    core = compiled_core()
    for end in (object(), None, 3):
        with pytest.raises(TypeError, match="compiled writer"):
            core.receive_into_ring(end, 0, 0, 0, 1, 1, 1)
        with pytest.raises(TypeError, match="compiled reader"):
            core.send_from_ring(end, 0, 1)


# Lifetimes.


@pytest.mark.both
def test_payload_that_is_still_lent_outlives_its_ring(pair: RingPair) -> None:
    pair.send(b"kept")
    (kept,) = pair.reader.poll()
    pair.reader.close()
    pair.writer.close()
    gc.collect()
    assert bytes(kept.payload) == b"kept"
    kept.payload.release()
    pair.reader_segment._map.close()  # which is possible now; else its fixture would look like a leak


@pytest.mark.both
def test_a_closed_segment_does_not_take_the_memory_from_under_its_ring(pair: RingPair) -> None:
    """Whoever closes it against the rules gets errors or results, and no access to unmapped memory."""
    pair.writer_segment.close()
    for call in (lambda: pair.writer.try_write([b"x"], 1, 1), pair.writer.publish, pair.writer.close):
        try:
            call()
        except (ValueError, RingClosed):
            pass
    pair.writer_segment._map.close()  # the ring has let go of it


def test_an_end_that_is_part_of_a_cycle_is_collected() -> None:
    strong = implementation("compiled")

    class Chatty(Bell):
        writer: object = None

    doorbell = Doorbell.create()
    made = Segment.create(128)
    bell = ring_pair.bell_of(doorbell, Chatty)
    writer = strong.writer(made, probe(), bell)
    bell.writer = writer  # type: ignore[attr-defined]
    bell.close()
    writer.close()
    gone = weakref.ref(writer)
    del bell, writer
    gc.collect()
    assert gone() is None
    doorbell.close()


@pytest.mark.both
def test_a_long_run_leaves_no_object_behind(pair: RingPair) -> None:
    payload = payload_of(1, 50)

    def use() -> None:
        for number in range(200):
            assert pair.writer.try_write((payload, b"tail"), 54, 1, number)
            claim = pair.writer.try_claim(100)
            assert claim is not None
            pair.writer.commit(5, 2)
            pair.writer.publish()
            assert [record.kind for record in pair.reader.poll()] == [1, 2]
            pair.reader.release(1)
            pair.reader.release_part(2)
            pair.reader.release_all()
            assert pair.writer.request_space(100)
            assert pair.writer.try_claim(1) is not None
            with pytest.raises(ValueError, match="do not lie"):
                pair.writer.commit(2, 1)
            pair.writer.abort()
        while pair.writer.try_write((payload,), 50, 1):
            pass
        pair.writer.publish()
        pair.receive()

    references = sys.getrefcount(payload)
    for _ in range(3):
        use()
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(5):
        use()
    gc.collect()
    assert sys.getrefcount(payload) == references
    assert sys.getallocatedblocks() - before < 200  # a leak of one object a turn would be 1,000


@pytest.mark.both
@pytest.mark.parametrize("name", ["compiled", "membarrier", "sched_yield"])
def test_bells_and_space_work_with_every_fence(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(compiled, "core", compiled_core() if name == "compiled" else compiled.core)
    monkeypatch.setenv(fence.OVERRIDE_VARIABLE, name)
    try:
        found = probe()
    except UnsoundOrdering as error:
        pytest.skip(str(error))
    with RingPair(128, fence=found) as pair:
        for _ in range(3):
            pair.reader_doorbell.arm()
            assert pair.writer.try_write([b"x"], 1, 1)
            assert pair.writer.publish()
            while pair.writer.try_write([b"x"], 1, 1):
                pass
            assert not pair.writer.request_space()
            assert not pair.reader.is_empty()
            assert len(pair.receive()) == 2
        assert pair.reader.stat().space_bells == 3
        assert pair.writer.stat().bells == 3


@pytest.mark.parametrize("end", ["writer", "reader"])
def test_positions_that_cannot_be_make_a_dead_end_before_any_access(end: str) -> None:
    """Also where the Python class forgot to look."""
    core = compiled_core()
    made = Segment.create(128)
    made.words[WORD_TAIL] = 1 << 40
    made.words[WORD_HEAD] = 33
    kind = core.WriterCore if end == "writer" else core.ReaderCore
    raw = kind(made, probe(), None)
    with pytest.raises(AttributeError):
        raw.try_write([b""], 0, 1) if end == "writer" else raw.poll()
    raw._detach()
    made.close()


def test_the_module_may_be_imported_before_everything_else() -> None:
    compiled_core()
    program = "import partywire._core as core; from partywire.shm import RingReader; print(RingReader.__mro__[1])"
    environment = {**os.environ, compiled.VARIABLE: "compiled"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    assert done.stdout == "<class 'partywire._core.ReaderCore'>\n", done.stderr


def test_a_second_load_would_replace_the_types_of_living_objects_and_is_refused() -> None:
    core = compiled_core()
    assert core.__spec__ is not None
    spec = importlib.util.spec_from_file_location("partywire._core", core.__spec__.origin)
    assert spec is not None
    assert spec.loader is not None
    second = importlib.util.module_from_spec(spec)
    with pytest.raises(ImportError, match="once in a process"):
        spec.loader.exec_module(second)
