"""From samples to rows: medians, percentiles, ratios; and from words on the command line to cells and contenders."""

from __future__ import annotations

import math

import orjson
import pytest

from partywire.perf.contender import CONTENDERS
from partywire.perf.matrix import Cell, cells, parse_size, size_text
from partywire.perf.measure import chosen
from partywire.perf.party_set import Link
from partywire.perf.processes import Usage
from partywire.perf.rows import at_fraction, compare, failed_row, latency_fields, measured_row
from partywire.perf.run import Sample
from partywire.perf.tables import busy_warning, print_rows
from partywire.perf.workloads import BesideStream, IrisTrace, OneWay, RingRounds

RING = Cell(RingRounds(4, 64))


def sample(rate: float, *, cpu_s: float = 0.3, others: float = 0.0) -> Sample:
    """A visit of one second, with 10 microseconds of latency for each unit."""
    units = int(rate) // 4
    usage = Usage(cpu_s, cpu_s / 2, 30, 3)
    return Sample(units, 1.0, rate, 0.5, (usage,) * 3, (1 << 20, 2 << 20, 3 << 20), others, 0.1, [10_000] * units)


def test_a_row_has_the_median_rate_and_every_sample() -> None:
    row = measured_row(RING, "uvloop", [sample(400), sample(100), sample(200)], None)
    assert row["rate"] == 200
    assert row["samples"] == [400, 100, 200]
    assert [visit["rate"] for visit in row["visits"]] == [400, 100, 200]


def test_costs_are_counted_per_message_of_all_parties() -> None:
    row = measured_row(RING, "uvloop", [sample(400), sample(800)], {"sendto": 0.5, "poll": 0.25})
    messages = (400 + 800) * 3
    assert row["cpu_us_per_message"] == pytest.approx(2 * 3 * 0.3 * 1e6 / messages)
    assert row["context_switches_per_message"] == pytest.approx(2 * 3 * 33 / messages)
    assert row["cores_per_party"] == [0.3] * 3
    assert row["pss_mib_per_party"] == 2.0
    assert row["syscalls_per_message"] == 0.75
    assert row["mb_per_s"] == pytest.approx(600 * 3 * 64 / 1e6)


def test_a_row_travels_as_json() -> None:
    row = measured_row(RING, "uvloop", [sample(400)], None)
    assert orjson.loads(orjson.dumps(row)) == row


@pytest.mark.parametrize(("fraction", "value"), [(0.5, 50), (0.99, 99), (0.991, 100), (1.0, 100), (0.001, 1)])
def test_a_percentile_is_a_latency_that_was_seen(fraction: float, value: int) -> None:
    assert at_fraction(range(1, 101), fraction) == value


def test_the_curve_of_few_latencies_does_not_reach_into_the_tail() -> None:
    few, many = (latency_fields(range(1000, 1000 * (count + 1), 1000)) for count in (100, 100_000))
    assert few["latency_cdf_us"][-1][1] == 0.99
    assert many["latency_cdf_us"][-1][1] == 0.9999
    assert many["latency_us"]["max"] == 100_000
    assert latency_fields([])["latency_us"] is None


def test_ratios_are_to_the_best_rival_and_ours_is_none() -> None:
    ours, best, other = (
        measured_row(RING, name, [sample(rate)], None)
        for name, rate in (("partywire", 300), ("uvloop", 200), ("asyncio", 100))
    )
    failed = failed_row(RING, "pyzmq", "ConnectionRefusedError")
    compare([ours, best, other, failed])
    assert [row["ratio_to_best_rival"] for row in (ours, best, other, failed)] == [1.5, 1.0, 0.5, None]
    assert {row["best_rival"] for row in (ours, best, other, failed)} == {"uvloop"}
    assert ours["ratio_to_c_split"] is None


def test_the_table_has_the_rows_that_we_lose_and_those_that_failed(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [measured_row(RING, name, [sample(rate)], None) for name, rate in (("partywire", 100), ("uvloop", 200))]
    rows.append(failed_row(RING, "pyzmq", "party 1: ConnectionRefusedError"))
    compare(rows)
    print_rows(rows)
    printed = capsys.readouterr().out
    assert "0.50 x" in printed
    assert "pyzmq, 4 x 64 B: party 1: ConnectionRefusedError" in printed


def test_rows_that_were_measured_beside_others_work_are_marked(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [measured_row(RING, name, [sample(400, others=others)], None) for name, others in (("a", 0.0), ("b", 1.5))]
    compare(rows)
    print_rows(rows)
    assert "others' cores" in capsys.readouterr().out
    assert "up to 1.5 cores busy while 1 of these rows" in busy_warning(rows)
    assert busy_warning(rows[:1]) == ""


def test_cells_are_all_combinations_of_sessions_and_sizes() -> None:
    link = Link(10, 100)
    found = cells(["ring"], [1, 8], [64, 4096], link, is_smoke=False)
    assert found == [Cell(RingRounds(count, size), link) for size in (64, 4096) for count in (1, 8)]
    assert cells(["iris", "oneway"], [2], [], None, is_smoke=False) == [Cell(IrisTrace(2)), Cell(OneWay(2, 1 << 20))]
    assert [cell.parameters for cell in cells(["beside"], [], [], None, is_smoke=False)] == [
        {"stream_mb_s": 0},
        {"stream_mb_s": 200},
    ]


def test_a_cell_says_what_it_is() -> None:
    assert str(Cell(RingRounds(8, 65536), Link(10, 100))) == "ring 8 x 64 KiB, 10 ms round trip, 100 Mbit/s"
    assert str(Cell(BesideStream())) == "beside 2 x 64 B, stream_mb_s 200"


@pytest.mark.parametrize(("text", "size"), [("64", 64), ("4K", 4096), ("4KiB", 4096), ("1m", 1 << 20), (" 7B ", 7)])
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size
    assert parse_size(size_text(size).replace(" ", "")) == size


@pytest.mark.parametrize("text", ["", "x", "0", "-1", "4G"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|int"):
        parse_size(text)


def test_contenders_are_chosen_by_name_and_by_group() -> None:
    assert chosen("uvloop, partywire") == ["partywire", "uvloop"]
    assert chosen("ours") == [name for name in CONTENDERS if name.startswith("partywire")]
    assert not set(chosen("rivals")) & set(chosen("ours"))
    assert set(chosen("all")) >= set(CONTENDERS)
    with pytest.raises(ValueError, match="no contender nobody; there are usual, "):
        chosen("nobody")


def test_usage_is_counted_between_two_looks() -> None:
    spent = Usage(2.0, 1.0, 20, 5) - Usage(0.5, 0.25, 10, 1)
    assert spent == Usage(1.5, 0.75, 10, 4)
    assert math.isclose((spent + spent).cpu_s, 3.0)
