"""Metrics that compare samples with training data in a feature space.

Each has a 95 % interval and, in a test, a reference value: that of held-out data in place of the samples. None of them
evaluates a density away from the data, and all depend on the features, which are named in the result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn
from typing_extensions import override

from twostep.core.schema import UserError
from twostep.metrics.base import METRICS, Metric, Result
from twostep.metrics.features import inception
from twostep.metrics.samples import frechet, kernel, prdc
from twostep.metrics.samples.c2st import MIN_ROWS, c2st
from twostep.metrics.samples.checks import SampleEstimate
from twostep.metrics.samples.feature_sets import FeatureSets
from twostep.metrics.samples.memorisation import Memorisation, memorisation
from twostep.metrics.samples.sliced import sliced_wasserstein
from twostep.models.base import Sampler

DIGITS = 12  # of an extractor's digest that a note shows


@dataclass(frozen=True)
class SampleMetric(Metric):
    """A comparison of samples with training data.

    Args:
        name: name of the metric.
        summary: one line about it.
        compare: maps features `(n, D)` of training data and `(m, D)` of samples, or of held-out data, to an estimate,
            or to a named tuple of several.
        unit: unit of the values.
        figures: names of the values, if there are several.
        lower_is_better: direction.
        features: the only features in which it may have this name; empty: any.
        min_rows: number of rows of training data, held-out data and samples that it needs, by the key `nearest_k`.
    """

    name: str
    summary: str
    compare: Callable[[Tensor, Tensor, FeatureSets], SampleEstimate | tuple[SampleEstimate, ...]]
    unit: str = ""
    figures: tuple[str, ...] = ()
    lower_is_better: bool = True
    features: str = ""
    min_rows: Callable[[int], int] = lambda k: 2

    @property
    @override
    def stops(self) -> bool:
        return not self.figures

    @override
    def refusal(self, model: nn.Module) -> str:
        return "" if isinstance(model, Sampler) else "it does not sample: train a density on its embeddings"

    def __call__(self, sets: FeatureSets) -> dict[str, Result]:
        """Compare the samples, and held-out data if a reference is asked for, with training data.

        Raises:
            UserError: if there are too few rows, features that are not finite, or features of another name.
        """
        used = sets.extractor.name
        if self.features not in ("", used):
            raise UserError(f"{self.name}: defined in {self.features} features only, not in {used}: use fd")
        found = self._estimates(sets.samples, sets)
        references = self._estimates(sets.unseen, sets) if sets.with_reference else {}
        return {
            name: _result(one, self.unit, references[name].value if references else None, sets)
            for name, one in found.items()
        }

    def _estimates(self, rows: Tensor, sets: FeatureSets) -> dict[str, SampleEstimate]:
        found = self.compare(sets.data, rows, sets)
        several = cast(tuple[SampleEstimate, ...], (found,) if isinstance(found, SampleEstimate) else found)
        return dict(zip(self.figures or (self.name,), several, strict=True))


def _result(found: SampleEstimate, unit: str, reference: float | None, sets: FeatureSets) -> Result:
    used = sets.extractor
    sizes = " and ".join(f"{n:,}" for n in found.n)
    held_out = "" if reference is None else f", held-out data of {len(sets.unseen):,}"
    about = "; ".join(text for text in (used.weights, used.preprocessing) if text)
    note = f"{used.name} features {used.digest[:DIGITS]} ({about}) of {sizes} rows{held_out}; {found.method}"
    return Result(found.value, unit, len(sets.samples), note=note, interval=found.interval, reference=reference)


for _metric in (
    SampleMetric(
        "fd",
        "Fréchet distance of samples to training data, in features named in the result",
        lambda data, rows, _: frechet.frechet(data, rows),
        unit="squared feature units",
    ),
    SampleMetric(
        "fid",
        "Fréchet inception distance, if Inception's weights are given; else `fd`",
        lambda data, rows, _: frechet.frechet(data, rows),
        unit="squared feature units",
        features=inception.NAME,
    ),
    SampleMetric(
        "fd_infinity",
        "Fréchet distance, extrapolated to infinitely many rows",
        lambda data, rows, sets: frechet.fd_infinity(data, rows, sets.seed),
        unit="squared feature units",
        min_rows=lambda k: 2 * frechet.CUTS[-1],
    ),
    SampleMetric(
        "kid",
        "kernel inception distance (cubic kernel, unbiased), in any features",
        lambda data, rows, sets: kernel.kid(data, rows, seed=sets.seed),
        min_rows=lambda k: 4,
    ),
    SampleMetric(
        "mmd",
        "squared maximum mean discrepancy (Gaussian kernel, unbiased)",
        lambda data, rows, sets: kernel.mmd(data, rows, sets.seed),
        min_rows=lambda k: 4,
    ),
    SampleMetric(
        "sliced_wasserstein",
        "sliced Wasserstein distance of samples to training data",
        lambda data, rows, sets: sliced_wasserstein(data, rows, seed=sets.seed),
        unit="feature units",
    ),
    SampleMetric(
        "c2st",
        "classifier two-sample test: accuracy of separating samples from data, at best 0.5",
        lambda data, rows, sets: c2st(data, rows, sets.seed),
        unit="accuracy",
        min_rows=lambda k: MIN_ROWS,
    ),
    SampleMetric(
        "precision_recall_density_coverage",
        "precision, recall, density and coverage, by balls that reach to the k-th nearest neighbour",
        lambda data, rows, sets: prdc.prdc(data, rows, sets.keys.nearest_k, sets.seed),
        figures=prdc.PRDC._fields,
        lower_is_better=False,
        min_rows=prdc.min_rows,
    ),
    SampleMetric(
        "memorisation",
        "whether samples are closer to the training data than held-out data are",
        lambda _, rows, sets: memorisation(sets.all_data(), sets.unseen, rows, sets.seed),
        figures=Memorisation._fields,
    ),
):
    METRICS.register(_metric.name)(_metric)
