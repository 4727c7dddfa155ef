"""Metrics that compare samples with training data in a feature space.

Each has a 95 % interval and, in a test, its null value: what held-out data score in the samples' place. None says how
good a density is where there are no data, and all depend on the features, which the result names.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from twostep.metrics import frechet, kernel, memorisation, prdc, sliced, two_sample
from twostep.metrics.base import METRICS, Metric, Result
from twostep.metrics.estimates import Estimate
from twostep.metrics.gallery import Gallery
from twostep.models.base import DensityEstimator
from twostep.models.two_step import TwoStep

FEATURES = "squared feature units"
DIGITS = 12  # of an extractor's digest that a note shows


class SampleMetric(Metric):
    """A comparison of samples with training data."""

    unit: ClassVar[str]

    @classmethod
    def refusal(cls, model: nn.Module) -> str:
        """Refuse models that do not sample."""
        return "" if isinstance(model, DensityEstimator | TwoStep) else "it does not sample: train a density on it"

    @abstractmethod
    def compare(self, data: Tensor, samples: Tensor, gallery: Gallery) -> Mapping[str, Estimate]:
        """Compare features `(n, D)` of training data with `(m, D)` of samples, or of what stands in their place."""

    def __call__(self, gallery: Gallery) -> dict[str, Result]:
        """Compare the samples, and held-out data if the gallery asks for it.

        Raises:
            UserError: if there are too few rows, or features that are not finite.
        """
        found = self.compare(gallery.data, gallery.samples, gallery)
        nulls = {name: one.value for name, one in self._nulls(gallery).items()} if gallery.with_null else {}
        return {name: _result(one, self.unit, nulls.get(name), gallery) for name, one in found.items()}

    def _nulls(self, gallery: Gallery) -> Mapping[str, Estimate]:
        return self.compare(gallery.data, gallery.unseen, gallery)


@METRICS.register("fd")
class FrechetDistance(SampleMetric):
    """Fréchet distance of Gaussians with the moments of both sets; only in Inception's features is it FID."""

    name: ClassVar[str] = "fd"
    summary: ClassVar[str] = "Fréchet distance of samples to training data in features that the result names"
    lower_is_better: ClassVar[bool] = True
    unit: ClassVar[str] = FEATURES

    def compare(self, data: Tensor, samples: Tensor, gallery: Gallery) -> Mapping[str, Estimate]:
        """Return `fd`."""
        return {self.name: frechet.frechet(data, samples)}


@METRICS.register("fd_infinity")
class UnbiasedFrechetDistance(SampleMetric):
    """Fréchet distance extrapolated to infinitely many rows."""

    name: ClassVar[str] = "fd_infinity"
    summary: ClassVar[str] = "the same, extrapolated to infinitely many rows"
    lower_is_better: ClassVar[bool] = True
    unit: ClassVar[str] = FEATURES

    def compare(self, data: Tensor, samples: Tensor, gallery: Gallery) -> Mapping[str, Estimate]:
        """Return `fd_infinity`."""
        return {self.name: frechet.fd_infinity(data, samples, gallery.seed)}


@METRICS.register("kid")
class KernelDistance(SampleMetric):
    """Squared maximum mean discrepancy by a cubic kernel."""

    name: ClassVar[str] = "kid"
    summary: ClassVar[str] = "kernel distance (cubic kernel, unbiased) of samples to training data"
    lower_is_better: ClassVar[bool] = True
    unit: ClassVar[str] = ""

    def compare(self, data: Tensor, samples: Tensor, gallery: Gallery) -> Mapping[str, Estimate]:
        """Return `kid`."""
        return {self.name: kernel.kid(data, samples, seed=gallery.seed)}


@METRICS.register("mmd")
class Discrepancy(SampleMetric):
    """Squared maximum mean discrepancy by a Gaussian kernel."""

    name: ClassVar[str] = "mmd"
    summary: ClassVar[str] = "maximum mean discrepancy (Gaussian kernel, unbiased, squared)"
    lower_is_better: ClassVar[bool] = True
    unit: ClassVar[str] = ""

    def compare(self, data: Tensor, samples: Tensor, gallery: Gallery) -> Mapping[str, Estimate]:
        """Return `mmd`."""
        return {self.name: kernel.mmd(data, samples, gallery.seed)}


@METRICS.register("sliced_wasserstein")
class SlicedWasserstein(SampleMetric):
    """Sliced Wasserstein distance."""

    name: ClassVar[str] = "sliced_wasserstein"
    summary: ClassVar[str] = "sliced Wasserstein distance of samples to training data"
    lower_is_better: ClassVar[bool] = True
    unit: ClassVar[str] = "feature units"

    def compare(self, data: Tensor, samples: Tensor, gallery: Gallery) -> Mapping[str, Estimate]:
        """Return `sliced_wasserstein`."""
        return {self.name: sliced.sliced_wasserstein(data, samples, seed=gallery.seed)}


@METRICS.register("c2st")
class ClassifierTest(SampleMetric):
    """Classifier two-sample test."""

    name: ClassVar[str] = "c2st"
    summary: ClassVar[str] = "how often a classifier tells samples from data, 0.5 at best"
    lower_is_better: ClassVar[bool] = True
    unit: ClassVar[str] = "of unseen rows"

    def compare(self, data: Tensor, samples: Tensor, gallery: Gallery) -> Mapping[str, Estimate]:
        """Return `c2st`."""
        return {self.name: two_sample.c2st(data, samples, gallery.seed)}


@METRICS.register("precision_recall_density_coverage")
class PrecisionRecallDensityCoverage(SampleMetric):
    """Precision, recall, density and coverage by balls of neighbours."""

    name: ClassVar[str] = "precision_recall_density_coverage"
    summary: ClassVar[str] = "four figures of samples by balls to the k-th nearest neighbour, rim included"
    lower_is_better: ClassVar[bool] = False
    stops: ClassVar[bool] = False
    unit: ClassVar[str] = ""

    def compare(self, data: Tensor, samples: Tensor, gallery: Gallery) -> Mapping[str, Estimate]:
        """Return `precision`, `recall`, `density` and `coverage`."""
        found = prdc.prdc(data, samples, gallery.keys.nearest_k, gallery.seed)
        return {name: getattr(found, name) for name in ("precision", "recall", "density", "coverage")}


@METRICS.register("memorisation")
class Copies(SampleMetric):
    """How near samples lie to the training data, against how near held-out data do."""

    name: ClassVar[str] = "memorisation"
    summary: ClassVar[str] = "are samples nearer to the training data than held-out data are?"
    lower_is_better: ClassVar[bool] = True
    stops: ClassVar[bool] = False
    unit: ClassVar[str] = ""

    def compare(self, data: Tensor, samples: Tensor, gallery: Gallery) -> Mapping[str, Estimate]:
        """Return `farther`, `c_t` and `copies`."""
        found = memorisation.memorisation(data, gallery.unseen, samples, gallery.seed)
        return {name: getattr(found, name) for name in ("farther", "c_t", "copies")}


def _result(found: Estimate, unit: str, null: float | None, gallery: Gallery) -> Result:
    used = gallery.extractor
    sizes = " and ".join(f"{n:,}" for n in found.n)
    beside = "" if null is None else f", held-out data of {len(gallery.unseen):,}"
    note = f"{used.name} features {used.digest[:DIGITS]} ({used.preprocessing}) of {sizes} rows{beside}; {found.method}"
    return Result(found.value, unit, len(gallery.samples), note=note, interval=(found.low, found.high), null=null)
