"""The page needs no network, shows every row, believes nothing that rows say, and is the same for the same rows."""

from __future__ import annotations

import random
import re
from html.parser import HTMLParser
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywire.perf.contender import CONTENDERS
from partywire.perf.page import render_page, write_page
from partywire.perf.page.quantities import bytes_size, count, digits, duration, ratio
from partywire.perf.page.rows import Verdict, group, parse_row, parse_rows, verdict
from partywire.perf.page.scales import log_axis, spread_out

if TYPE_CHECKING:
    from pathlib import Path

MACHINE = {"commit": "abc1234", "cpu": "Test CPU", "cores": 2, "kernel": "6.1", "python": "3.11.7", "load": 0.2}
HOSTILE = "</style><script src=//evil.example>alert(1)</script><img onerror=x> \"'&<b>\x00\ud800"
SIZE_MAX = 1_000_000
X = "\N{MULTIPLICATION SIGN}"
VOID = {"meta"}
SPARSE = ((1, 1 << 20), (64, 64), (64, 4096))

Row = dict[str, Any]


class Page(HTMLParser):
    """What a browser would find. Raises on elements that are not closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.in_style = ""
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert not self._open

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def attributes(self, name: str) -> list[str]:
        return [attributes[name] for _, attributes in self.elements if name in attributes]

    def classes(self) -> list[str]:
        return [each for value in self.attributes("class") for each in value.split()]

    def count(self, tag: str) -> int:
        return sum(found == tag for found, _ in self.elements)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "style":
            self.in_style += data
        else:
            self.words.append(data)


def row(contender: str = "partywire", *, sessions: int | None = 64, size: int | None = 64, **more: object) -> Row:
    """A row with every field, its figures told apart by its parameters."""
    seed = random.Random(f"{contender!a} {sessions} {size}")
    rate = seed.uniform(1e3, 1e6)
    low = seed.uniform(10, 100)
    fields: Row = {
        "workload": "ring", "unit": "round", "contender": contender, "is_ours": contender.startswith("partywire"),
        "is_floor": False, "sessions": sessions, "size": size, "parties": 3, "rate": rate,
        "samples": [rate * 0.95, rate, rate * 1.04], "mb_per_s": rate * 3 * (size or 1) / 1e6,
        "latency_us": {"p50": low, "p90": low * 1.5, "p99": low * 3.3, "p99.9": low * 7.7, "max": low * 31},
        "latency_cdf_us": [[low * (0.5 + at / 100), at / 100] for at in range(100)],
        "cpu_us_per_message": seed.uniform(1, 50), "context_switches_per_message": seed.uniform(0.01, 1),
        "syscalls_per_message": seed.uniform(0.1, 4), "pss_mib_per_party": seed.uniform(10, 150),
        "ready_s": seed.uniform(0.1, 3), "ratio_to_best_rival": None, "error": None, "machine": MACHINE,
        "rtt_ms": 0, "mbit": None,
    }  # fmt: skip
    return fields | more


def matrix(names: tuple[str, ...] = ("partywire", "uvloop", "pyzmq")) -> list[Row]:
    return [row(name, sessions=sessions, size=size) for name in names for sessions in (1, 8) for size in (64, 4096)]


def test_page_opens_without_network() -> None:
    rows = [*matrix(), row("mpi", error="see http://mpi.example/why")]
    rows[0]["workload"] = "http://work.example"
    written = render_page(rows)
    page = Page(written)
    assert "http:" not in page.in_style
    assert not re.search(r"url\(|@import|<script|<link|<iframe|<object|\bsrc=|\bon\w+=", written)
    assert all(target.startswith("#") for target in page.attributes("href"))
    targets = {target.removeprefix("#") for target in page.attributes("href")}
    assert targets <= set(page.attributes("id"))


def test_page_shows_every_figure_of_every_row() -> None:
    rows = matrix()
    words = Page(render_page(rows)).text
    for each in rows:
        assert count(each["rate"]) in words
        assert f"{count(each['samples'][0])} … {count(each['samples'][-1])}" in words
        figures = [*each["latency_us"].values(), each["mb_per_s"]]
        figures += [each[name] for name in each if name.endswith(("_per_message", "_per_party", "_s")) and each[name]]
        for figure in figures:
            assert digits(figure) in words, (each["contender"], figure)
    for value in MACHINE.values():
        assert str(value) in words


def test_hostile_strings_stay_text() -> None:
    fields = row(HOSTILE, workload=HOSTILE, unit=HOSTILE, security=HOSTILE, error=HOSTILE, is_ours=True)
    fields["machine"] = dict.fromkeys(MACHINE, HOSTILE)
    fields["parameters"] = {HOSTILE: HOSTILE}
    page = Page(render_page([fields, row("uvloop", workload=HOSTILE), {**fields, "rate": None, "samples": []}]))
    assert not {"script", "img", "b"} & {tag for tag, attributes in page.elements if "onerror" in attributes}
    assert not page.count("script")
    assert not page.count("img")
    assert "<script src=//evil.example>" in page.text
    assert "evil" not in page.in_style
    assert "\x00" not in page.text


def test_page_is_written_whatever_rows_hold(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_page([row(HOSTILE)], path)
    assert Page(path.read_text(encoding="utf-8")).count("figure")


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{}],
        [{}, {}],
        [{"workload": "ring", "contender": "partywire"}],
        [{"contender": "uvloop", "rate": 5}],
        [{"workload": "ring", "contender": "pyzmq", "error": "no such module"}],
        [{"latency_cdf_us": [[1, 0.5], [2, 0.9]], "latency_us": None, "samples": None, "machine": None}],
        [{"rate": 1e300, "sessions": 10**400, "size": 10**300}, {"rate": 1e-300, "sessions": 0.001}],
    ],
)
def test_rows_with_little_in_them_give_a_page(rows: list[Row]) -> None:
    page = Page(render_page(rows))
    assert page.count("h1") == 1
    assert "nan" not in page.text
    assert not [value for name in ("d", "x", "y", "height") for value in page.attributes(name) if "nan" in value]


JUNK = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.floats(), max_size=3)


@given(st.lists(st.fixed_dictionaries({}, optional={name: JUNK for name in row()}), max_size=4))
def test_no_field_of_a_wrong_type_ends_the_page(rows: list[Row]) -> None:
    Page(render_page(rows))


def test_one_number_of_sessions_is_ranked_and_not_drawn_as_lines() -> None:
    rows = [row(name, sessions=32, size=None, workload="iris", unit="job") for name in ("partywire", "uvloop", "mpi")]
    page = Page(render_page(rows))
    captions = [words for words in page.words if words in ("Jobs/s", "Jobs/s over sessions")]
    assert "Jobs/s" in captions
    assert "Jobs/s over sessions" not in captions
    assert page.count("figure") == 3  # rate, latency, CPU


def test_each_size_has_its_rates_over_sessions() -> None:
    page = Page(render_page(matrix()))
    assert page.words.count("Rounds/s over sessions") == 2
    assert page.words.count("MB/s over size") == 2


def test_cases_that_share_no_axis_are_ranked_one_by_one() -> None:
    rows = [row(name, sessions=sessions, size=size) for name in ("partywire", "mpi") for sessions, size in SPARSE]
    page = Page(render_page(rows))
    assert page.words.count("Rounds/s over sessions") == 0
    assert page.words.count("MB/s over size") == 1
    assert page.words.count("Rounds/s") == 1


def test_single_measurements_are_a_table_of_their_own() -> None:
    single = {
        "workload": "idle", "contender": "partywire", "is_ours": True, "parameters": {"figure": "CPU of an idle party"},
        "unit": "%", "lower_is_better": True, "rate": 0.31, "samples": [0.3, 0.31], "target": 1.0, "met": True,
    }  # fmt: skip
    missed = single | {"parameters": {"figure": "memory"}, "unit": "MiB", "rate": 160, "target": 150, "met": False}
    page = Page(render_page([row(), row("uvloop"), single, missed]))
    assert "0.310 %" in page.text
    assert "≤ 1.00, met" in page.text
    assert "≤ 150, missed" in page.text
    assert not group(row for row in parse_rows([single]) if not row.figure)


def test_failed_rows_are_rows() -> None:
    page = Page(
        render_page([row(), row("uvloop"), {**row("mpi"), "rate": None, "samples": [], "error": "tag too big"}])
    )
    assert "tag too big" in page.text
    assert "1 row failed or were left out (mpi)" in page.text


def test_lost_rows_are_marked_as_clearly_as_won_ones() -> None:
    won = [row("partywire", rate=2e3, samples=[2e3] * 3), row("uvloop", rate=1e3, samples=[1e3] * 3)]
    won = [each | {"latency_us": None} for each in won]
    lost = [{**each, "sessions": 8} for each in (won[0] | {"rate": 5e2, "samples": [5e2] * 3}, won[1])]
    page = Page(render_page(won + lost))
    assert page.text.count(f"▲ 2.00{X}") == page.text.count(f"▼ 0.50{X}") == 2  # the overview and the table of figures
    assert page.classes().count("ahead") == page.classes().count("behind")
    assert "ahead of the best rival in 1, level with it in 0 and behind it in 1 of 2 cases" in page.text


def test_overlapping_runs_are_level() -> None:
    rows = [row("partywire", rate=11, samples=[9, 11, 12]), row("uvloop", rate=10, samples=[9.5, 10, 10.5])]
    (case,) = group(parse_rows(rows))[0].cases
    assert verdict(case.rows[0], case) is Verdict.LEVEL


def test_lower_is_better_where_rows_say_so() -> None:
    rows = [row("partywire", rate=1, samples=[1]), row("uvloop", rate=2, samples=[2])]
    rows = [each | {"workload": "startup", "unit": "s", "lower_is_better": True} for each in rows]
    (case,) = group(parse_rows(rows))[0].cases
    assert case.rows[0].contender == "partywire"
    assert verdict(case.rows[0], case) is Verdict.AHEAD
    assert f"▲ 2.00{X}" in Page(render_page(rows)).text


def test_floors_are_no_rivals() -> None:
    rows = [row("partywire", rate=2, samples=[2]), row("c-epoll", rate=9, samples=[9], is_floor=True)]
    (case,) = group(parse_rows(rows))[0].cases
    assert case.best_rival is None
    assert verdict(case.rows[1], case) is None
    assert f"0.22{X}" in Page(render_page(rows)).text  # of the floor


def test_settings_are_kept_apart() -> None:
    rows = [row(), row(rtt_ms=10, mbit=100), row(parameters={"stream_mb_s": 200})]
    assert len(group(parse_rows(rows))) == 3
    words = Page(render_page(rows)).text
    assert "10 ms round trip added, 100 Mbit/s" in words
    assert "stream_mb_s = 200" in words


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ({"machine": MACHINE | {"load": 1.7}}, "The load average was 1.70 before 1 of 2 rows"),
        ({"others_cores": 1.3}, "The machine was busy: beside 1 of 2 rows other processes used more than 0.1 cores"),
        ({"machine": MACHINE | {"commit": "other"}}, "2 different machines, commits or versions"),
        ({"samples": [1e5]}, "1 row of 2 with figures rest on fewer than 3 runs"),
        ({"rate": 10.0, "samples": [5, 10, 15]}, "most of all for partywire in ring"),
    ],
)
def test_rows_that_deserve_doubt_are_named(change: Row, warning: str) -> None:
    calm = Page(render_page([row(), row("uvloop")]))
    assert warning not in calm.text
    assert "warn" not in calm.classes()
    assert warning in Page(render_page([row(**change), row("uvloop")])).text


def test_contenders_keep_their_look_over_all_plots_and_pages() -> None:
    def looks(rows: list[Row]) -> set[str]:
        return {value for value in Page(render_page(rows)).attributes("class") if re.fullmatch(r"s \w+ c\d+", value)}

    together, alone = looks(matrix()), looks(matrix(("uvloop",)))
    assert len(together) == 3
    assert alone < together


def test_no_two_listed_contenders_look_the_same() -> None:
    written = render_page([row(name) for name in CONTENDERS])
    swatches = re.findall(r'<svg class="swatch".*?</svg>', written)
    assert len(set(swatches)) == len(CONTENDERS)


def test_every_plot_has_a_text_alternative() -> None:
    page = Page(render_page(matrix()))
    identities = page.attributes("id")
    assert len(identities) == len(set(identities))
    plots = [attributes for tag, attributes in page.elements if tag == "svg" and attributes.get("role") == "img"]
    assert len(plots) == page.count("figure")
    assert {attributes["aria-labelledby"] for attributes in plots} <= set(identities)
    assert {attributes["aria-describedby"] for attributes in plots} <= set(identities)
    assert all("aria-hidden" in found for tag, found in page.elements if tag == "svg" and found not in plots)


def test_same_rows_in_any_order_give_the_same_page() -> None:
    rows = matrix()
    shuffled = rows[:]
    random.Random(1).shuffle(shuffled)
    assert render_page(rows) == render_page(shuffled) == render_page(rows)


def test_page_of_a_full_run_stays_small() -> None:
    names = (*CONTENDERS, "c-epoll", "c-blocking")
    rows = [
        row(name, sessions=sessions, size=size)
        for name in names
        for sessions in (1, 8, 64, 256, 1024)
        for size in (64, 4096, 65536, 1 << 20)
    ]
    rows += [row(name, workload=workload) for name in names for workload in ("pingpong", "oneway", "iris", "beside")]
    assert len(render_page(rows).encode()) < SIZE_MAX


def test_a_row_keeps_only_what_can_be_a_figure() -> None:
    parsed = parse_row(row(rate=True, samples=[1, -1, float("nan"), "2"], mb_per_s="3", ready_s=float("inf")))
    assert parsed.rate == 1.0
    assert parsed.samples == (1.0,)
    assert parsed.mb_per_s is None
    assert parsed.ready_s is None


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (count(999_999), "1.00 M"), (count(493_210), "493 k"), (count(12), "12.0"), (digits(0.01234), "0.0123"),
        (digits(12_345), "12,300"), (digits(99.96), "100"), (bytes_size(64), "64 B"), (bytes_size(65_536), "64 KiB"),
        (duration(0.5), "500 ns"), (duration(1_000), "1 ms"), (ratio(0.295), f"0.29{X}"), (ratio(0.0042), f"0.004{X}"),
        (ratio(20.91), f"20.9{X}"),
    ],
)  # fmt: skip
def test_numbers_are_short(written: str, expected: str) -> None:
    assert written.replace("\N{NO-BREAK SPACE}", " ") == expected


@given(st.lists(st.floats(1e-6, 1e12), min_size=1))
def test_log_axis_holds_all_figures_and_has_few_ticks(figures: list[float]) -> None:
    axis = log_axis(figures, 0, 300, digits)
    assert all(0 <= axis.scale(figure) <= 300 for figure in figures)
    assert 1 <= len(axis.ticks) <= 9


@given(st.lists(st.floats(-50, 400), min_size=1, max_size=30), st.floats(1, 20))
def test_labels_keep_their_order_and_distance(places: list[float], gap: float) -> None:
    placed = spread_out(places, gap, 0, 300)
    order = sorted(range(len(places)), key=lambda at: places[at])
    in_order = [placed[at] for at in order]
    least = min(gap, 300 / max(1, len(places) - 1))
    assert all(later - earlier >= least - 1e-6 for earlier, later in pairwise(in_order))
    assert in_order[0] >= -1e-6
    assert in_order[-1] <= 300 + 1e-6
