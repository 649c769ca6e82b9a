"""Job `iris`: which enrolled eyes is a picture of an eye like? Matching of iris codes that no party shows to another.

Party 0 has a gallery of iris codes and masks, party 1 has probes, party 2 helps and has nothing. All learn, for each
probe and gallery code, whether their fractional Hamming distance is below 0.375 at one of 31 rotations, and nothing
else. Without files the codes are synthetic. What the job promises is in docs/iris.md, the protocol in iris_match.py;
numpy is imported only when data is loaded, so that `--help` stays quick.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from .errors import JobInputError, JobOptionError
from .job import Job, JobOption, JobReport, resolve_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .iris_match import ChunkMatch, GalleryShare
    from .job import JobRunner

__all__ = ["BLOCK_SIZE_MAX", "CHUNK_SIZE_MAX", "CODES_MAX", "IrisJob"]

GALLERY_DEFAULT = 1000
PROBES_DEFAULT = 32
# Four probes share the conversion of a gallery block to floats, which then takes a twentieth of the products.
CHUNK_SIZE = 4
CHUNK_SIZE_MAX = 64
# A step of 4 probes and 256 gallery codes has 31,744 comparisons and takes 7 MB for a moment.
BLOCK_SIZE = 256
BLOCK_SIZE_MAX = 4096
# Arbitrary; a gallery of this size takes each worker up to 1 GB of shares.
CODES_MAX = 10_000
SEED_MAX = (1 << 63) - 1
ROWS_SHOWN = 8


class IrisJob(Job):
    """Iris matching at threshold 0.375 over 31 rotations; one set-up job, one job per chunk of probes, one to end."""

    name: ClassVar[str] = "iris"
    summary: ClassVar[str] = "match secret iris codes with a secret gallery; only match bits are opened"
    options: ClassVar[tuple[JobOption, ...]] = (
        JobOption(
            "gallery",
            "int",
            None,
            f"Enrolled codes: of the generator [default: {GALLERY_DEFAULT:,}], or the first N of own files [all].",
            shared=True,
        ),
        JobOption(
            "probes",
            "int",
            None,
            f"Codes to look up: of the generator, half of them enrolled eyes, half strangers [default: "
            f"{PROBES_DEFAULT}], or the first N of own files [all].",
            shared=True,
        ),
        JobOption("seed", "int", 1, "Of the generator. Synthetic codes hide nothing from who knows it.", shared=True),
        JobOption(
            "gallery-codes",
            "path",
            None,
            "Party 0: own gallery, a .npy of 0 and 1 with a row of 12,800 bits per code: 16 rings of 200 places of 4.",
        ),
        JobOption("gallery-masks", "path", None, "Party 0: the masks, in the same shape; 1 where a bit counts."),
        JobOption("probe-codes", "path", None, "Party 1: own probes, like --gallery-codes."),
        JobOption("probe-masks", "path", None, "Party 1: the masks of the probes."),
        JobOption("chunk", "int", CHUNK_SIZE, "Probes per session and step.", shared=True),
        JobOption("block", "int", BLOCK_SIZE, "Gallery codes per step; bounds memory.", shared=True),
    )

    def __init__(self, party_index: int, options: Mapping[str, object]) -> None:
        super().__init__(party_index, options)
        _require_valid(self.values)
        from . import iris_data, iris_match

        self._codes = None  # the third party stays without
        if party_index == iris_match.GALLERY_OWNER:
            self._codes = iris_data.load_gallery(self.values)
        elif party_index == iris_match.PROBE_OWNER:
            self._codes = iris_data.load_probes(self.values)

    def run(self, runner: JobRunner) -> JobReport:
        """Share the gallery, match all chunks, tell each other what it cost. `checked` is set for synthetic codes."""
        from . import iris_data, iris_match

        mine = (self._codes, self.values["chunk"], self.values["block"])
        [gallery] = runner.map(iris_match.try_share_gallery, [mine])
        if isinstance(gallery, JobInputError):
            raise gallery
        plan = gallery.plan
        inputs: list[Any] = [chunk.stop - chunk.start for chunk in plan.chunks()]
        if self.party_index == iris_match.PROBE_OWNER and self._codes is not None:
            inputs = [self._codes[chunk] for chunk in plan.chunks()]
        opened: list[ChunkMatch] = runner.map(partial(iris_match.match_chunk, gallery), inputs)
        seconds = max(chunk.ended_s for chunk in opened) - min(chunk.began_s for chunk in opened)
        compared = sum(chunk.bytes_compared for chunk in opened)
        [costs] = runner.map(iris_match.tell_costs, [(compared, seconds)])

        matches = [row.nonzero()[0].tolist() for chunk in opened for row in chunk.is_match]
        result = _result(gallery, matches, costs)
        checked = None
        if plan.is_synthetic:
            checked = matches == iris_data.plain_matches(self.values)
        return JobReport(result, checked, _rows(result))

    @classmethod
    def check(cls, options: Mapping[str, object], result: Mapping[str, object]) -> bool:
        """Whether `result["matches"]` are those of a plaintext search with the data of both owners."""
        from . import iris_data

        values = resolve_options(cls.options, options)
        _require_valid(values)
        return result.get("matches") == iris_data.plain_matches(values)


def _result(gallery: GalleryShare, matches: list[list[int]], costs: list[tuple[int, float]]) -> dict[str, object]:
    """The same at all parties. `matches` has the indices of the matching gallery codes for each probe."""
    plan = gallery.plan
    seconds = max(spent for _, spent in costs)
    return {
        "matches": matches,
        "probes": plan.probe_count,
        "gallery": plan.gallery_count,
        "synthetic": {"gallery": plan.has_synthetic_gallery, "probes": plan.has_synthetic_probes},
        "comparisons": plan.comparisons,
        "seconds": seconds,
        "comparisons_per_second": plan.comparisons / seconds,
        "bytes_compared": [size for size, _ in costs],
        "bytes_per_comparison": [size / plan.comparisons for size, _ in costs],
    }


def _rows(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = [(probe, codes) for probe, codes in enumerate(result["matches"]) if codes]
    shown = [f"{probe}: {' '.join(map(str, codes[:ROWS_SHOWN]))}" for probe, codes in found[:ROWS_SHOWN]]
    each = ", ".join(f"{size:.3f}" for size in result["bytes_per_comparison"])
    made_by = ["synthetic" if result["synthetic"][side] else "own" for side in ("gallery", "probes")]
    return [
        ("codes", "{} gallery, {} probes".format(*made_by)),
        ("probes matched", f"{len(found):,} of {result['probes']:,}, against {result['gallery']:,} gallery codes"),
        ("first matches", "; ".join(shown) + (" ..." if len(found) > ROWS_SHOWN else "") or "none"),
        ("comparisons", f"{result['comparisons']:,} ({result['probes']:,} x {result['gallery']:,} x 31 rotations)"),
        ("comparisons/s", f"{result['comparisons_per_second']:,.0f} over {result['seconds']:.2f} s"),
        ("bytes/comparison", f"{each} sent by each party"),
    ]


def _require_valid(values: Mapping[str, Any]) -> None:
    for name, least, greatest in (
        ("gallery", 1, CODES_MAX),
        ("probes", 1, CODES_MAX),
        ("seed", 0, SEED_MAX),
        ("chunk", 1, CHUNK_SIZE_MAX),
        ("block", 1, BLOCK_SIZE_MAX),
    ):
        value = values[name]
        if value is not None and not least <= value <= greatest:
            raise JobOptionError(name, f"must be {least} to {greatest}")
    for owner in ("gallery", "probe"):
        codes, masks = f"{owner}-codes", f"{owner}-masks"
        if (values[codes] is None) != (values[masks] is None):
            missing = masks if values[masks] is None else codes
            raise JobOptionError(missing, f"is needed too: --{codes} and --{masks} go together")
