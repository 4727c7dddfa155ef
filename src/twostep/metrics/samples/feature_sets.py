"""Training data, held-out data and samples in one feature space, computed once for all metrics that compare them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from twostep.core.keys import MetricKeys
from twostep.core.seeds import derive
from twostep.data.batches import Batches, Rows, subsample
from twostep.data.files import cache
from twostep.metrics.features.base import Extractor, digest_of
from twostep.models.base import GeneralizedAutoencoder, Sampler
from twostep.models.two_step import TwoStep

BLOCK = 10_000  # rows, when the features of all training rows are needed


@dataclass(frozen=True)
class FeatureSets:
    """The samples of a model and what they are compared with, in one feature space, computed when needed."""

    model: Sampler | GeneralizedAutoencoder
    training: Callable[[], Batches]  # that the model was trained on
    held_out: Batches  # of data that it was not trained on
    keys: MetricKeys
    make_extractor: Callable[[Batches], Extractor]  # given the training batches
    gather: Callable[[Tensor], Tensor]  # the rows of all ranks, each of which draws a share of the samples
    seed: int  # of the samples and of the metrics
    with_reference: bool  # whether metrics also compare held-out data with the training data

    @cached_property
    def _trained_on(self) -> Batches:
        return self.training()

    @cached_property
    def extractor(self) -> Extractor:
        """The feature extractor."""
        return self.make_extractor(self._trained_on)

    @cached_property
    def data(self) -> Tensor:
        """Features of at most `gen_samples` training rows, `(n, D)`."""
        return self._of_rows(subsample(self._trained_on.data, self.keys.gen_samples), self._trained_on)

    def all_data(self) -> Iterator[Tensor]:
        """Yield the features of all training rows, in blocks `(b, D)`."""
        rows = self._trained_on.data
        if len(rows) <= self.keys.gen_samples:
            yield self.data
        else:
            yield from (self._of_rows(block, self._trained_on) for block in rows.split(BLOCK))

    @cached_property
    def unseen(self) -> Tensor:
        """Features of at most `gen_samples` held-out rows, `(m, D)`."""
        return self._of_rows(subsample(self.held_out.data, self.keys.gen_samples), self.held_out)

    @property
    def number(self) -> int:
        """Number of samples: `gen_samples`; with a reference no more than held-out rows, so that both are as biased."""
        most = self.keys.gen_samples
        return min(most, len(self.held_out.data)) if self.with_reference else most

    @cached_property
    def samples(self) -> Tensor:
        """Features of samples, `(number, D)`; they depend on the seed and the number of ranks only."""
        of = self.held_out
        start, stop = (self.number * rank // of.world_size for rank in (of.rank, of.rank + 1))
        generator = torch.Generator(of.device).manual_seed(derive(self.seed, "samples", of.rank))
        sizes = [len(block) for block in torch.empty(stop - start).split(self.keys.gen_batch_size)]
        assert isinstance(self.model, Sampler)
        with torch.no_grad():
            return self.gather(torch.cat([self.extractor(self.model.sample(n, generator)) for n in sizes]))

    @cached_property
    def reconstructions(self) -> Tensor:
        """Features of the reconstructions of the rows of `unseen`, `(m, D)`."""
        gae = self.model.gae if isinstance(self.model, TwoStep) else self.model
        assert isinstance(gae, GeneralizedAutoencoder)
        every = self._every(subsample(self.held_out.data, self.keys.gen_samples), self.held_out)
        with torch.no_grad():
            return torch.cat([self.extractor(gae.clamp(gae.decode(gae.encode(x)))) for x in every])

    def _of_rows(self, rows: Tensor, batches: Batches) -> Tensor:
        """Return the features of rows, from the cache by their content if the extractor allows that."""
        every = self._every(rows, batches)
        if batches.encode is not None or not self.extractor.cached:
            return torch.cat([self.extractor(x) for x in every])
        key = cache.key(f"features-{self.extractor.name}", [digest_of(self.extractor.digest, [rows])])
        known = cache.load(key)
        if known is None:
            known = {"features": torch.cat([self.extractor(x) for x in every]).cpu()}
            cache.store(key, known)
        return known["features"].to(batches.device)

    def _every(self, rows: Rows, batches: Batches) -> Batches:
        """Return rows in batches, all of them on each rank."""
        return replace(batches, data=rows, batch_size=self.keys.gen_batch_size, rank=0, world_size=1)
