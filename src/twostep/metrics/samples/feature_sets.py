"""Data, held-out data and samples in one feature space, each made once for all the metrics that compare them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from twostep.core.keys import MetricKeys
from twostep.core.seeds import derive
from twostep.data.batches import Batches, subsample
from twostep.data.files import cache
from twostep.metrics.features.base import Extractor
from twostep.models.base import Sampler

BLOCK = 10_000
"""Rows whose features are held at once where all training rows are asked for."""


@dataclass(frozen=True)
class FeatureSets:
    """What samples are compared with, and in which features.

    Args:
        model: is sampled from.
        training: gives the batches that it was trained on.
        held_out: batches of data of the same law that it was not trained on.
        keys: how many samples, at once, and the neighbours that count.
        make_extractor: gives the features, from the training batches; called if a metric needs them.
        gather: gathers the rows of all ranks, which draw a share of the samples each.
        seed: of the samples and of whatever a metric draws.
        with_reference: whether metrics tell, too, what held-out data have in the samples' place.
    """

    model: Sampler
    training: Callable[[], Batches]
    held_out: Batches
    keys: MetricKeys
    make_extractor: Callable[[Batches], Extractor]
    gather: Callable[[Tensor], Tensor]
    seed: int
    with_reference: bool

    @cached_property
    def _trained_on(self) -> Batches:
        return self.training()

    @cached_property
    def extractor(self) -> Extractor:
        """The map to features."""
        return self.make_extractor(self._trained_on)

    @cached_property
    def data(self) -> Tensor:
        """Features of training rows, `(n, D)`, evenly spaced in the data's order."""
        return self._of_data(self._trained_on)

    def all_data(self) -> Iterator[Tensor]:
        """Yield features of all training rows, in blocks `(b, D)` in the data's order."""
        rows = self._trained_on.data
        if len(rows) <= self.keys.gen_samples:
            yield self.data
        else:
            yield from (self._of_rows(block, self._trained_on) for block in rows.split(BLOCK))

    @cached_property
    def unseen(self) -> Tensor:
        """Features of held-out rows, `(m, D)`, evenly spaced in the data's order."""
        return self._of_data(self.held_out)

    @cached_property
    def samples(self) -> Tensor:
        """Features of samples, `(gen_samples, D)`; the same seed and number of ranks give the same ones."""
        of = self.held_out
        start, stop = (self.keys.gen_samples * rank // of.world_size for rank in (of.rank, of.rank + 1))
        generator = torch.Generator(of.device).manual_seed(derive(self.seed, "samples", of.rank))
        sizes = [len(part) for part in torch.empty(stop - start).split(self.keys.gen_batch_size)]
        with torch.no_grad():
            return self.gather(torch.cat([self.extractor(self.model.sample(n, generator)) for n in sizes]))

    def _of_data(self, batches: Batches) -> Tensor:
        return self._of_rows(subsample(batches.data, self.keys.gen_samples), batches)

    def _of_rows(self, rows: Tensor, batches: Batches) -> Tensor:
        whole = replace(batches, data=rows, batch_size=self.keys.gen_batch_size, rank=0, world_size=1)
        if batches.encode is None and self.extractor.kept:
            return _kept(self.extractor, rows, whole).to(batches.device)
        return torch.cat([self.extractor(x) for x in whole])


def _kept(extractor: Extractor, rows: Tensor, batches: Iterable[Tensor]) -> Tensor:
    """Return features from the cache, by the content of the rows, or take them and keep them."""
    content = hashlib.sha256(rows.contiguous().view(torch.uint8).numpy().data).hexdigest()
    key = cache.key(f"features-{extractor.name}", [extractor.digest, str(rows.dtype), tuple(rows.shape), content])
    known = cache.load(key)
    if known is not None:
        return known["features"]
    features = torch.cat([extractor(x) for x in batches]).cpu()
    cache.store(key, {"features": features})
    return features
