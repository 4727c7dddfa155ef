"""Metrics that compare samples with training data in a feature space.

Each has a 95 % interval and, in a test, a reference value: that of held-out data in place of the samples. None of them
evaluates a density away from the data, and all depend on the features, which are named in the result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from typing_extensions import override

from twostep.core.schema import UserError
from twostep.core.table import TableSchema
from twostep.metrics.base import METRICS, Metric, Result
from twostep.metrics.features import inception
from twostep.metrics.samples import frechet, kernel, prdc
from twostep.metrics.samples.c2st import MIN_ROWS, c2st
from twostep.metrics.samples.checks import SampleEstimate, check_features
from twostep.metrics.samples.columns import ColumnErrors, column_errors
from twostep.metrics.samples.feature_sets import FeatureSets
from twostep.metrics.samples.memorisation import Memorisation, memorisation, nearer_to_training
from twostep.metrics.samples.sliced import sliced_wasserstein
from twostep.models.base import GeneralizedAutoencoder, Model, Sampler
from twostep.models.two_step import TwoStep


@dataclass(frozen=True)
class SampleMetric(Metric):
    """A comparison of features `(n, D)` of training data with `(m, D)` of samples, or of the rows that `rows` names.

    It gives an estimate, or a named tuple of several, and needs at least `min_rows` rows, by the key `nearest_k`.
    """

    name: str
    summary: str
    compare: Callable[[Tensor, Tensor, FeatureSets], SampleEstimate | prdc.PRDC | Memorisation | ColumnErrors]
    unit: str = ""
    lower_is_better: bool = True
    min_rows: Callable[[int], int] = lambda k: 2
    stops: bool = True
    models: tuple[type, ...] = (Sampler,)
    refused: str = "it does not sample: train a density on its embeddings"
    needs: Literal["", "decoder", "volume"] = "decoder"
    rows: Callable[[FeatureSets], Tensor] = lambda sets: sets.samples

    def __call__(self, sets: FeatureSets) -> dict[str, Result]:
        """Compare the samples, and held-out data if a reference is asked for, with training data."""
        used = sets.extractor
        if self.name == "fid" and used.name != inception.NAME:
            raise UserError(f"fid: defined in {inception.NAME} features only, not in {used.name}: use fd")
        rows = self.rows(sets)
        found = self._estimates(rows, sets)
        reference = self._estimates(sets.unseen, sets) if sets.with_reference else {}
        features = f"{used.name} features {used.digest[:12]} ({used.preprocessing})"
        held_out = f", held-out data of {len(sets.unseen):,}" if reference else ""
        results: dict[str, Result] = {}
        for name, one in found.items():
            note = f"{features} of {one.n[0]:,} and {one.n[1]:,} rows{held_out}; {one.method}"
            expected = reference[name].value if reference else None
            results[name] = Result(
                one.value, self.unit, len(rows), note=note, interval=one.interval, reference=expected
            )
        return results

    def _estimates(self, rows: Tensor, sets: FeatureSets) -> dict[str, SampleEstimate]:
        check_features(self.min_rows(sets.keys.nearest_k), data=sets.data, samples=rows)
        found = self.compare(sets.data, rows, sets)
        return {self.name: found} if isinstance(found, SampleEstimate) else found._asdict()


class ColumnMetric(SampleMetric):
    """A comparison of the columns of a table."""

    @override
    def refusal(self, model: nn.Module) -> str:
        of_table = isinstance(model, Model | TwoStep) and model.columns is not None
        return super().refusal(model) or ("" if of_table else "it is no model of a table with words, dates or gaps")


def coded(data: Tensor, rows: Tensor, sets: FeatureSets) -> tuple[TableSchema, Tensor, Tensor]:
    """Return the columns of a table, and its coded rows whose features are given."""
    table = sets.extractor.table
    if table is None:
        raise UserError(f"column_errors: not in {sets.extractor.name} features: leave the key features out")
    return table.columns, table.inverse(data), table.inverse(rows)


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
    ),
    SampleMetric(
        "fd_reconstruction",
        "Fréchet distance of reconstructions of held-out data to training data: what samples of any density can reach",
        lambda data, rows, _: frechet.frechet(data, rows),
        unit="squared feature units",
        models=(GeneralizedAutoencoder, TwoStep),
        refused="it does not reconstruct data",
        rows=lambda sets: sets.reconstructions,
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
        stops=False,
        lower_is_better=False,
        min_rows=lambda k: prdc.GROUPS * (k + 2),
    ),
    ColumnMetric(
        "column_errors",
        "errors of the columns of sampled rows and of their associations, by SDMetrics' definitions, for tables",
        lambda data, rows, sets: column_errors(*coded(data, rows, sets), sets.seed),
        stops=False,
        min_rows=lambda k: 20,
    ),
    SampleMetric(
        "memorisation",
        "whether samples are closer to the training data than held-out data are",
        lambda _, rows, sets: memorisation(sets.all_data(), sets.unseen, rows, sets.seed),
        stops=False,
    ),
    SampleMetric(
        "nearer_to_training",
        "share of samples nearer to a training row than to any of as many held-out rows, 0.5 without copies",
        lambda data, rows, sets: nearer_to_training(data, sets.unseen, rows),
        stops=False,
    ),
):
    METRICS.register(_metric.name)(_metric)
