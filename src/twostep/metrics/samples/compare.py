"""Compare samples with data, both given as arrays, files or folders of images: no model is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twostep.core.keys import FeatureName, MetricKeys
from twostep.core.result import Result
from twostep.core.schema import DataSpec, UserError
from twostep.core.table import TableSchema
from twostep.data.base import Splits
from twostep.data.batches import Batches
from twostep.data.files.arrays import array_rows
from twostep.data.files.images import Size
from twostep.data.load import read_rows
from twostep.data.table.read import own_rows, own_table
from twostep.metrics.base import METRICS
from twostep.metrics.features.choice import FeatureChoice
from twostep.metrics.samples.feature_sets import FeatureSets
from twostep.metrics.samples.table import SampleMetric

DEFAULT = ("fd", "kid", "precision_recall_density_coverage", "c2st", "sliced_wasserstein")
NEED_HELD_OUT = ("memorisation", "nearer_to_training")


@dataclass
class GivenSamples:
    """Rows in the place of a model: `sample` returns the next n of them."""

    rows: Tensor

    def __post_init__(self) -> None:
        self.event_shape = tuple(self.rows.shape[1:])

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return the next n rows."""
        given, self.rows = self.rows[:n], self.rows[n:]
        return given


def compare(
    real: Any,
    samples: Any,
    metrics: Sequence[str] | None = None,
    *,
    held_out: Any = None,
    features: FeatureName | None = None,
    image_size: Size | None = None,
    max_rows: int = 10_000,
    nearest_k: int = 5,
    seed: int = 0,
    dataset_kwargs: Mapping[str, Any] | None = None,
) -> dict[str, Result]:
    """Compare samples with real data: distances, precision, recall, a classifier, with 95 % intervals.

    Args:
        real: an array, tensor or frame `(N, *S)`, or the path of a file or of a folder of images: what was trained on.
        samples: samples of a model, likewise; images of a folder get the size of the real ones.
        metrics: names of metrics that compare samples (`twostep.metrics.METRICS`); None: `fd`, `kid`,
            `precision_recall_density_coverage`, `c2st`, `sliced_wasserstein`, and with held-out data `memorisation` and
            `nearer_to_training`;
            of tables with words, dates or gaps `column_errors` too.
        held_out: real data that were not trained on: each result then has their value in the samples' place as its
            `reference`, which a perfect model would reach.
        features: in which features rows are compared; None: standardised columns of vectors, and for images those of
            `MetricKeys.features`.
        image_size: height and width to which images of folders are resized; None: they must have one size.
        max_rows: rows of each set to compare at most.
        nearest_k: neighbours within a ball of precision, recall, density and coverage.
        seed: of subsets, directions and classifiers.
        dataset_kwargs: keys of the real table (`twostep.data.table.keys.TableKeys`): which columns to compare.

    Returns:
        results by name.

    Raises:
        UserError: for unknown metrics, data that can't be read or have different shapes, or too few rows.
    """
    names = (*DEFAULT, *(NEED_HELD_OUT if held_out is not None else ())) if metrics is None else tuple(metrics)
    asked = [METRICS[name] for name in dict.fromkeys(names)]
    table = own_table(real, "real", dataset_kwargs)
    if dataset_kwargs and table is None:
        raise UserError(f"{', '.join(dataset_kwargs)}: only for a table")
    columns = None if table is None else table.columns
    if columns is not None and not columns.plain and metrics is None:
        names = ("column_errors", *names)
        asked = [METRICS[name] for name in names]
    train = _rows(real, "real", image_size) if table is None else table.train
    sides = (int(train.shape[2]), int(train.shape[3])) if train.dim() == 4 else None
    drawn = _rows(samples, "samples", sides, columns)
    unseen = train if held_out is None else _rows(held_out, "held_out", sides, columns)
    for name, rows in (("samples", drawn), ("held_out", unseen)):
        if rows.shape[1:] != train.shape[1:] or rows.dtype != train.dtype:
            kinds = [f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape[1:])}" for x in (train, rows)]
            raise UserError(f"{name}: rows are {kinds[1]}, and the real ones {kinds[0]}: give rows of one kind")
    low, high = (0.0, 255.0) if train.dtype == torch.uint8 else torch.stack(train.nan_to_num().aminmax()).tolist()
    shape, name = tuple(train.shape[1:]), "the data"
    spec = DataSpec(name=name, shape=shape, size=len(train), low=low, high=high, columns=columns)
    given = {"gen_samples": min(len(drawn), max_rows), "features": features, "nearest_k": nearest_k}
    keys, _ = MetricKeys.parse(given, "compare").resolve(names, spec.is_image)
    choice = FeatureChoice(spec, keys, Splits(spec, train, None, unseen))
    choice.check()
    found: dict[str, Result] = {}
    sets = FeatureSets(
        GivenSamples(drawn.float()),
        lambda: Batches(train, keys.gen_batch_size),
        Batches(unseen, keys.gen_batch_size),
        keys,
        choice.extractor,
        lambda rows: rows,
        seed,
        with_reference=held_out is not None,
    )
    for metric in asked:
        if not isinstance(metric, SampleMetric) or not isinstance(sets.model, metric.models):
            raise UserError(f"{metric.name}: compares no samples: it is a metric of a model")
        if metric.name in NEED_HELD_OUT and held_out is None:
            raise UserError(f"{metric.name}: needs real data that were not trained on: give held_out")
        found |= metric(sets)
    return found


def _rows(data: Any, name: str, image_size: Size | None, columns: TableSchema | None = None) -> Tensor:
    """Return rows `(N, *S)`, bytes or float32, of an array, a frame, a file or a folder; or codes of a table."""
    if columns is not None:
        return own_rows(columns, data, name)
    if isinstance(data, str | Path):
        return read_rows(Path(data), image_size)
    array = data.detach().cpu().numpy() if isinstance(data, Tensor) else np.asarray(data)
    return array_rows(array, name)
