"""Metrics that compare samples with training data in a feature space.

Each has a 95 % interval and, in a test, a reference value: that of held-out data in place of the samples. None of them
evaluates a density away from the data, and all depend on the features, which are named in the result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from twostep.core.schema import UserError
from twostep.metrics.base import METRICS, Metric, Result
from twostep.metrics.features import inception
from twostep.metrics.samples import c2st as two_sample
from twostep.metrics.samples import frechet, kernel, memorisation, prdc, sliced
from twostep.metrics.samples.estimates import GROUPS, Estimate
from twostep.metrics.samples.feature_sets import FeatureSets
from twostep.models.base import Sampler

DIGITS = 12  # of an extractor's digest that a note shows


@dataclass(frozen=True)
class SampleMetric(Metric):
    """A comparison of samples with training data.

    Args:
        name: as it is asked for.
        summary: what it is, in a line.
        compare: features `(n, D)` of training data with `(m, D)` of samples, or of what stands in their place; it
            returns an `Estimate`, or what has one for each figure.
        unit: of the figures.
        figures: what it has several of; none: its one figure bears its name.
        lower_is_better: direction.
        features: the only ones in which it may be called so; empty: any.
        least: rows that it needs of training data, held-out data and samples, by the key `nearest_k`.
    """

    name: str
    summary: str
    compare: Callable[[Tensor, Tensor, FeatureSets], Any]
    unit: str = ""
    figures: tuple[str, ...] = ()
    lower_is_better: bool = True
    features: str = ""
    least: Callable[[int], int] = lambda k: 2

    @property
    def stops(self) -> bool:
        """Whether it has one figure, and so can stop training."""
        return not self.figures

    def refusal(self, model: nn.Module) -> str:
        """Refuse models that do not sample."""
        return "" if isinstance(model, Sampler) else "it does not sample: train a density on it"

    def __call__(self, sets: FeatureSets) -> dict[str, Result]:
        """Compare the samples, and held-out data if the sets asks for it.

        Raises:
            UserError: if there are too few rows, features that are not finite, or others than the metric is named for.
        """
        used = sets.extractor.name
        if self.features not in ("", used):
            raise UserError(f"{self.name}: only in {self.features} features is it called so, not in {used}: ask for fd")
        found = self._estimates(sets.samples, sets)
        references = self._estimates(sets.unseen, sets) if sets.with_reference else {}
        return {
            name: _result(one, self.unit, references[name].value if references else None, sets)
            for name, one in found.items()
        }

    def _estimates(self, rows: Tensor, sets: FeatureSets) -> dict[str, Estimate]:
        found = self.compare(sets.data, rows, sets)
        return {figure: getattr(found, figure) for figure in self.figures} or {self.name: found}


def _result(found: Estimate, unit: str, reference: float | None, sets: FeatureSets) -> Result:
    used = sets.extractor
    sizes = " and ".join(f"{n:,}" for n in found.n)
    beside = "" if reference is None else f", held-out data of {len(sets.unseen):,}"
    about = "; ".join(text for text in (used.weights, used.preprocessing) if text)
    note = f"{used.name} features {used.digest[:DIGITS]} ({about}) of {sizes} rows{beside}; {found.method}"
    return Result(
        found.value, unit, len(sets.samples), note=note, interval=(found.low, found.high), reference=reference
    )


for _metric in (
    SampleMetric(
        "fd",
        "Fréchet distance of samples to training data in features that the result names",
        lambda data, rows, _: frechet.frechet(data, rows),
        unit="squared feature units",
    ),
    SampleMetric(
        "fid",
        "the same in Inception's features, where their weights are given; else `fd`",
        lambda data, rows, _: frechet.frechet(data, rows),
        unit="squared feature units",
        features=inception.NAME,
    ),
    SampleMetric(
        "fd_infinity",
        "the same as `fd`, extrapolated to infinitely many rows",
        lambda data, rows, sets: frechet.fd_infinity(data, rows, sets.seed),
        unit="squared feature units",
        least=lambda k: 2 * frechet.CUTS[-1],
    ),
    SampleMetric(
        "kid",
        "kernel distance (cubic kernel, unbiased) of samples to training data",
        lambda data, rows, sets: kernel.kid(data, rows, seed=sets.seed),
        least=lambda k: 4,
    ),
    SampleMetric(
        "mmd",
        "maximum mean discrepancy (Gaussian kernel, unbiased, squared)",
        lambda data, rows, sets: kernel.mmd(data, rows, sets.seed),
        least=lambda k: 4,
    ),
    SampleMetric(
        "sliced_wasserstein",
        "sliced Wasserstein distance of samples to training data",
        lambda data, rows, sets: sliced.sliced_wasserstein(data, rows, seed=sets.seed),
        unit="feature units",
    ),
    SampleMetric(
        "c2st",
        "how often a classifier tells samples from data, 0.5 at best",
        lambda data, rows, sets: two_sample.c2st(data, rows, sets.seed),
        unit="of unseen rows",
        least=lambda k: 20,
    ),
    SampleMetric(
        "precision_recall_density_coverage",
        "four figures of samples by balls to the k-th nearest neighbour, rim included",
        lambda data, rows, sets: prdc.prdc(data, rows, sets.keys.nearest_k, sets.seed),
        figures=("precision", "recall", "density", "coverage"),
        lower_is_better=False,
        least=lambda k: GROUPS * (k + 2),
    ),
    SampleMetric(
        "memorisation",
        "are samples nearer to the training data than held-out data are?",
        lambda _, rows, sets: memorisation.memorisation(sets.all_data(), sets.unseen, rows, sets.seed),
        figures=("farther", "c_t", "copies"),
    ),
):
    METRICS.register(_metric.name)(_metric)
