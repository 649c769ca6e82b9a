"""Job `digits`: whose handwriting is it like? Nearest match of images that no party shows to another.

Party 0 has a gallery of labelled images, party 1 has probes, party 2 helps and has nothing. All learn, for each probe,
the label of the nearest gallery image, and nothing else: neither images nor distances nor which image it was. The
protocol is in nearest.py; numpy is imported only when data is loaded, so that `--help` stays quick.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from .errors import JobInputError, JobOptionError
from .job import Job, JobOption, JobReport, resolve_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .job import JobRunner

__all__ = ["DigitsJob"]

# CPU time of all three parties for the 297 built-in probes: 0.70 s in chunks of 8, 0.43 s of 16, 0.30 s of 32, 0.25 s
# of 64; a chunk of 32 takes 3 MB in each party, and there are enough chunks to hide the rounds of one behind another.
CHUNK_SIZE = 32
CHUNK_SIZE_MAX = 4096
VALUE_MAX_MAX = 46340  # one value of this size still has a square below 2^31


class DigitsJob(Job):
    """Nearest match of secret probes in a secret gallery; made of one set-up job and one job per chunk of probes."""

    name: ClassVar[str] = "digits"
    summary: ClassVar[str] = "match secret images of handwritten digits with a secret gallery; only labels are opened"
    options: ClassVar[tuple[JobOption, ...]] = (
        JobOption("probes", "int", None, "Match only the first N probes.", shared=True),
        JobOption("chunk", "int", CHUNK_SIZE, "Probes per session and step.", shared=True),
        JobOption("gallery", "path", None, "Party 0: own gallery, a 2-D .npy of integers, one image per row."),
        JobOption("labels", "path", None, "Party 0: labels of the gallery, a 1-D .npy of integers."),
        JobOption("probe-images", "path", None, "Party 1: own probes, a 2-D .npy of integers, one image per row."),
        JobOption(
            "value-max", "int", None, "Greatest value in own images; all parties learn it. [default: 255]", shared=True
        ),
    )

    def __init__(self, party_index: int, options: Mapping[str, object]) -> None:
        super().__init__(party_index, options)
        _require_valid(self.values)
        from . import digits_data, nearest

        self._data: digits_data.Gallery | digits_data.Probes | None = None  # the third party stays without
        if party_index == nearest.GALLERY_OWNER:
            self._data = digits_data.load_gallery(self.values)
        elif party_index == nearest.PROBE_OWNER:
            self._data = digits_data.load_probes(self.values)

    def run(self, runner: JobRunner) -> JobReport:
        """Share the gallery, then match all chunks. `checked` is set where the built-in data make that possible."""
        from . import digits_data, nearest

        [gallery_share] = runner.map(nearest.try_share_gallery, [(self._data, self.values["chunk"])])
        if isinstance(gallery_share, JobInputError):
            raise gallery_share
        plan = gallery_share.plan
        if isinstance(self._data, digits_data.Probes):
            inputs: list[Any] = [self._data.images[chunk] for chunk in plan.chunks()]
        else:
            inputs = [chunk.stop - chunk.start for chunk in plan.chunks()]
        opened = runner.map(partial(nearest.match_chunk, gallery_share), inputs)
        labels = [int(label) for chunk in opened for label in chunk]

        result: dict[str, object] = {
            "labels": labels,
            "probes": plan.probe_count,
            "gallery": plan.gallery_count,
            "features": plan.features,
            "compare_bits": plan.compare_bits,
        }
        rows = [
            ("probes matched", f"{plan.probe_count:,} against {plan.gallery_count:,} gallery images"),
            ("first labels", " ".join(map(str, labels[:20])) + (" ..." if len(labels) > 20 else "")),
        ]
        checked = None
        if plan.is_built_in:
            built_in: dict[str, object] = {"probes": plan.probe_count}
            try:
                checked = self.check(built_in, result)
                meant = digits_data.built_in_probe_labels(plan.probe_count).tolist()
            except JobInputError:
                pass  # the helper has computed without scikit-learn, and has nothing to compare with
            else:
                recognised = sum(label == digit for label, digit in zip(labels, meant, strict=True))
                result["recognised"] = recognised
                rows.append(("digits recognised", f"{recognised} of {plan.probe_count}"))
        return JobReport(result, checked, rows)

    @classmethod
    def check(cls, options: Mapping[str, object], result: Mapping[str, object]) -> bool:
        """Whether `result["labels"]` are those of a plaintext search with the data of both owners."""
        from . import digits_data

        values = resolve_options(cls.options, options)
        _require_valid(values)
        probes = digits_data.load_probes(values)
        expected: list[int] = digits_data.nearest_labels(digits_data.load_gallery(values), probes.images).tolist()
        return result.get("labels") == expected


def _require_valid(values: Mapping[str, Any]) -> None:
    for name, greatest in (("probes", None), ("chunk", CHUNK_SIZE_MAX), ("value-max", VALUE_MAX_MAX)):
        value = values[name]
        if value is not None and (value < 1 or (greatest is not None and value > greatest)):
            raise JobOptionError(name, "must be at least 1" if greatest is None else f"must be 1 to {greatest}")
    if (values["gallery"] is None) != (values["labels"] is None):
        missing = "labels" if values["labels"] is None else "gallery"
        raise JobOptionError(missing, "is needed too: --gallery and --labels go together")
