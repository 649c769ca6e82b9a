"""Segments: what creation promises, what attaching refuses, and that nothing outlives its users."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import zlib
from types import SimpleNamespace

import pytest

from partywire.shm import RingClosed, Segment, SegmentError, sweep
from partywire.shm.counters import WORD_DIGEST
from partywire.shm.segment import CAPACITY_MAX, HEADER_SIZE, IMMUTABLE, create_unnamed


def names_of(pid: int) -> list[str]:
    return [name for name in os.listdir("/dev/shm") if name.startswith(f"partywire-{pid}-")]


def run_python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_segment_is_seen_alike_by_creator_and_attacher() -> None:
    ours = Segment.create(4096, ring_id=5)
    theirs = Segment.attach(os.dup(ours.fileno()), ours.epoch)
    assert (theirs.capacity, theirs.epoch, theirs.ring_id) == (4096, ours.epoch, 5)
    ours.words[100] = 1 << 63
    ours.data[-3:] = b"end"
    assert theirs.words[100] == 1 << 63
    assert bytes(theirs.data[-3:]) == b"end"
    assert len(theirs.data) == 4096
    assert ours.epoch != 0
    ours.close()
    theirs.close()


def test_a_segment_is_private_to_its_user_and_has_no_name() -> None:
    segment = Segment.create(4096)
    status = os.fstat(segment.fileno())
    assert status.st_mode & 0o777 == 0o600
    assert status.st_nlink == 0
    assert status.st_blocks * 512 >= HEADER_SIZE + 4096, "all pages are reserved"
    assert not os.get_inheritable(segment.fileno())
    assert names_of(os.getpid()) == []
    segment.close()


def test_each_segment_has_another_epoch() -> None:
    segments = [Segment.create(128) for _ in range(8)]
    assert len({segment.epoch for segment in segments}) == 8
    for segment in segments:
        segment.close()


@pytest.mark.parametrize("size", [0, 1, 64, 100, 4097, 3 << 20, CAPACITY_MAX * 2, -4096])
def test_a_data_size_that_is_no_power_of_two_in_range_is_a_mistake_of_the_caller(size: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        Segment.create(size)


def test_a_ring_id_of_more_than_64_bits_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="64 bits"):
        Segment.create(128, ring_id=1 << 64)


def test_a_full_dev_shm_is_an_error_before_anything_is_created(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=10, f_frsize=4096, f_blocks=100))
    with pytest.raises(SegmentError, match="does not fit /dev/shm: 69632, allowed is 40960; make /dev/shm larger"):
        Segment.create(65536)


def test_a_missing_dev_shm_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> object:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)

    monkeypatch.setattr(os, "statvfs", refuse)
    with pytest.raises(SegmentError, match="no usable /dev/shm"):
        Segment.create(65536)


def test_pages_that_cannot_be_reserved_are_an_error_and_leave_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(SegmentError, match="could not reserve 8192 bytes: No space left"):
        Segment.create(4096)


def test_a_block_that_cannot_be_created_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, size: int) -> None:
        raise OSError(errno.EFBIG, "File too large")

    monkeypatch.setattr(os, "ftruncate", refuse)
    with pytest.raises(SegmentError, match="no shared memory block can be created: File too large"):
        Segment.create(4096)
    assert names_of(os.getpid()) == []


def test_attaching_with_another_epoch_is_refused() -> None:
    segment = Segment.create(128)
    with pytest.raises(SegmentError, match="another epoch"):
        Segment.attach(os.dup(segment.fileno()), segment.epoch ^ 1)
    segment.close()


@pytest.mark.parametrize("word", range(WORD_DIGEST + 1))
@pytest.mark.parametrize("value", [0, 1, 0xFFFF_FFFF_FFFF_FFFF, 1 << 63, 4097])
def test_any_changed_word_of_the_immutable_block_is_refused(word: int, value: int) -> None:
    segment = Segment.create(128)
    if segment.words[word] != value:
        segment.words[word] = value
        with pytest.raises(SegmentError):
            Segment.attach(os.dup(segment.fileno()))
    segment.close()


@pytest.mark.parametrize(
    "fields",
    [
        {1: 2 << 32 | HEADER_SIZE},
        {2: 0},
        {2: 100},
        {2: 256},
        {2: 1 << 63},
        {3: 1 << 40},
        {4: 0},
        {6: 1},
    ],
)
def test_a_block_that_contradicts_itself_is_refused_in_spite_of_a_right_digest(fields: dict[int, int]) -> None:
    segment = Segment.create(128)
    for word, value in fields.items():
        segment.words[word] = value
    segment.words[WORD_DIGEST] = zlib.crc32(os.pread(segment.fileno(), IMMUTABLE.size, 0))
    with pytest.raises(SegmentError):
        Segment.attach(os.dup(segment.fileno()))
    segment.close()


@pytest.mark.parametrize("size", [0, 1, 63, 64, 4095, 4096, 4223])
def test_a_truncated_segment_is_refused_without_touching_its_mapping(size: int) -> None:
    fd = create_unnamed(HEADER_SIZE + 128)
    segment = Segment.create(128)
    os.pwrite(fd, bytes(segment.words.cast("B")), 0)
    os.ftruncate(fd, size)
    with pytest.raises(SegmentError):
        Segment.attach(fd)
    segment.close()


def test_what_is_no_regular_file_is_refused() -> None:
    reading, writing = os.pipe()
    with pytest.raises(SegmentError):
        Segment.attach(reading)
    os.close(writing)
    with pytest.raises(SegmentError, match="cannot be read"):
        Segment.attach(-1)


def test_a_closed_segment_says_so_and_closing_again_does_nothing() -> None:
    segment = Segment.create(128)
    segment.close()
    segment.close()
    assert segment.closed
    with pytest.raises(RingClosed, match="the segment is closed"):
        segment.fileno()
    with pytest.raises(RingClosed):
        segment.stat()


def test_a_lent_view_outlives_the_segment() -> None:
    segment = Segment.create(128)
    segment.data[:4] = b"lent"
    view = segment.data[:4]
    segment.close()
    assert bytes(view) == b"lent"
    view.release()


def test_creating_segments_starts_no_resource_tracker_and_leaves_the_users_module_alone() -> None:
    program = """
import multiprocessing.resource_tracker as tracker, os
from pathlib import Path
from partywire.shm import Segment
segments = [Segment.create(4096) for _ in range(4)]
assert tracker._resource_tracker._fd is None
assert Path(f"/proc/self/task/{os.getpid()}/children").read_text() == ""
from multiprocessing import shared_memory
assert getattr(shared_memory, "resource_tracker", tracker) is tracker
for segment in segments: segment.close()
assert not [name for name in os.listdir("/dev/shm") if name.startswith(f"partywire-{os.getpid()}-")]
"""
    done = run_python(program)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_name_of_a_creator_killed_before_it_could_unlink_is_swept() -> None:
    program = """
import os, signal
from partywire.shm import Segment
os.unlink = lambda path: os.kill(os.getpid(), signal.SIGKILL)
print(os.getpid(), flush=True)
Segment.create(4096)
"""
    done = run_python(program)
    assert done.returncode == -signal.SIGKILL
    pid = int(done.stdout)
    left = names_of(pid)
    assert len(left) == 1
    assert sweep(pid + 1) == []
    assert sweep(pid) == left
    assert names_of(pid) == []


def test_many_segments_leak_no_descriptor() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        segment = Segment.create(128)
        Segment.attach(os.dup(segment.fileno())).close()
        with pytest.raises(SegmentError):
            Segment.attach(os.dup(segment.fileno()), epoch=0)
        segment.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_segments_repr_tells_its_state() -> None:
    segment = Segment.create(128, ring_id=255)
    assert "capacity=128, ring_id=0xff" in repr(segment)
    segment.close()
    assert "closed" in repr(segment)
