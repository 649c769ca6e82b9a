"""The Prometheus text, read back by a parser that takes nothing but the format."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import pytest

from partywire.engine.stat_figures import FIGURES
from partywire.engine.stat_page import Publication, Value
from partywire.workers.metrics import FROM_KERNEL, number_text, prometheus_text
from partywire.workers.stat_process import ProcessUse
from partywire.workers.stat_reader import PartySnapshot

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"'
SAMPLE = re.compile(rf"({NAME})\{{((?:{LABEL})(?:,{LABEL})*)\}} (-?[0-9.e+-]+)")
SECOND = 1_000_000_000


@dataclass
class Family:
    kind: str = ""
    help: str = ""
    samples: dict[tuple[tuple[str, str], ...], float] = field(default_factory=dict)


def unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: {"n": "\n"}.get(found[1], found[1]), text)


def parse(text: str) -> dict[str, Family]:
    """Families by name; raises AssertionError for whatever the text format 0.0.4 does not allow."""
    assert text.endswith("\n")
    families: dict[str, Family] = {}
    current = ""
    for line in text[:-1].split("\n"):
        if found := re.fullmatch(rf"# HELP ({NAME}) (.*)", line):
            current = found[1]
            assert current not in families, f"{current} stands in two places"
            families[current] = Family(help=unescaped(found[2]))
        elif found := re.fullmatch(rf"# TYPE ({NAME}) (counter|gauge)", line):
            assert found[1] == current
            assert not families[current].kind
            families[current].kind = found[2]
        else:
            sample = SAMPLE.fullmatch(line)
            assert sample, line
            assert sample[1] == current
            assert families[current].kind, "TYPE comes before the samples"
            pairs = [(name, unescaped(value)) for name, value in re.findall(LABEL, sample[2])]
            assert len(dict(pairs)) == len(pairs), "a label twice"
            key = tuple(sorted(pairs))
            assert key not in families[current].samples, "a sample twice"
            families[current].samples[key] = float(sample[7])
    return families


def snapshot(party: str, values: list[Value], taken_s: float = 100) -> PartySnapshot:
    taken_ns = int(taken_s * SECOND)
    publication = Publication(10, taken_ns - SECOND, tuple(values), (), 0)
    uses = {"supervisor": ProcessUse(1.5, 7, 4096, 1)}
    return PartySnapshot(party, (party, "bob"), 1, taken_ns, {"supervisor": 10}, {"supervisor": publication}, uses)


def test_every_figure_is_a_family_of_its_kind() -> None:
    values = [Value(name, tuple((label, "1") for label in figure.labels), 3) for name, figure in FIGURES.items()]
    families = parse(prometheus_text([snapshot("alice", values)]))
    assert set(families) == {f"partywire_{name}" for name in (*FIGURES, *FROM_KERNEL)}
    for name, figure in FIGURES.items():
        family = families[f"partywire_{name}"]
        assert (family.kind, family.help) == (figure.kind, figure.help)
        [labels] = family.samples
        assert {label for label, _ in labels} == {"party", *figure.labels}


@pytest.mark.parametrize("name", [*FIGURES, *FROM_KERNEL])
def test_names_follow_the_conventions(name: str) -> None:
    kind = FIGURES[name].kind if name in FIGURES else FROM_KERNEL[name][0]
    assert name.endswith("_total") == (kind == "counter")
    if name in FIGURES:
        unit = {"bytes": "_bytes", "ns (monotonic)": "_seconds", "": ""}[FIGURES[name].unit]
        assert name.removesuffix("_total").endswith(unit)


def test_an_instant_becomes_its_age_in_seconds() -> None:
    values = [Value("link_heartbeat_age_seconds", (("peer", "bob"),), int(97.5 * SECOND))]
    families = parse(prometheus_text([snapshot("alice", values)]))
    assert families["partywire_link_heartbeat_age_seconds"].samples == {(("party", "alice"), ("peer", "bob")): 2.5}
    assert families["partywire_process_publication_age_seconds"].samples == {
        (("party", "alice"), ("process", "supervisor")): 1.0
    }
    assert families["partywire_process_cpu_seconds_total"].samples == {
        (("party", "alice"), ("process", "supervisor")): 1.5
    }


def test_several_parties_share_their_families() -> None:
    one, other = (snapshot(name, [Value("sessions", (("worker", "0"),), 4)]) for name in ("alice", "bob"))
    samples = parse(prometheus_text([one, other]))["partywire_sessions"].samples
    assert samples == {(("party", name), ("worker", "0")): 4.0 for name in ("alice", "bob")}


def test_parties_of_one_name_are_told_apart() -> None:
    one, other = (snapshot("alice", [Value("sessions", (("worker", "0"),), count)]) for count in (4, 5))
    other.pids["supervisor"] = 11
    samples = parse(prometheus_text([one, other]))["partywire_sessions"].samples
    assert samples == {
        (("party", "alice"), ("supervisor_pid", pid), ("worker", "0")): count for pid, count in (("10", 4), ("11", 5))
    }


def test_labels_are_escaped() -> None:
    strange = 'back\\slash "quote"\nnewline'
    values = [Value("link_up", (("peer", strange),), 1)]
    [labels] = parse(prometheus_text([snapshot("alice", values)]))["partywire_link_up"].samples
    assert dict(labels)["peer"] == strange


def test_a_figure_of_a_later_version_is_left_out() -> None:
    families = parse(prometheus_text([snapshot("alice", [Value("unheard_of", (), 1)])]))
    assert set(families) == {f"partywire_{name}" for name in FROM_KERNEL}


def test_no_party_is_no_text() -> None:
    assert prometheus_text([]) == ""


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (2**63 + 1, "9223372036854775809"), (0.5, "0.5"), (3.0, "3"), (0.1 + 0.2, "0.3")]
)
def test_whole_numbers_lose_nothing(value: float, text: str) -> None:
    assert number_text(value) == text
