"""The likelihood of a row of a table given a decoder's output: Gaussian numbers, Bernoulli gaps, categorical levels.

    log p(y | h) = Σ_numbers log N(y_j; h_j, σ_j²) + Σ_gaps log Bernoulli(y_j; h_j) + Σ_columns log softmax(h_c)[y_c]

y are the features of `nn.table`, h the decoder's output of the same width; a number that is missing has no term. σ_j is
a parameter for each column, times an output of a decoder whose output is twice as wide: columns of numbers that vary
more at some levels than at others need one for each z (benchmarks/mixed_tables.py).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from twostep.nn.marginals import log_normal
from twostep.nn.table import TableFeatures

LEAST_STD = 0.01  # of a number's normal score, or a column that another one determines has an infinite density


class RowLikelihood(nn.Module):
    """p(y | h) of the features of a table, with a std for each column of numbers.

    Outputs are `(B, width)`, or `(B, 2 width)` if the first of the other entries are log stds of numbers.
    """

    def __init__(self, features: TableFeatures) -> None:
        super().__init__()
        self._features = (features,)  # no submodule: it is the model's transform
        self.raw_std = nn.Parameter(torch.zeros(features.parts[0]))

    @property
    def features(self) -> TableFeatures:
        """The map from rows to features."""
        return self._features[0]

    def log_prob(self, y: Tensor, output: Tensor) -> Tensor:
        """Return log p(y | h), `(B,)`, for features `(B, width)` and outputs."""
        numbers, missing, levels = y.split(self.features.parts, 1)
        mean, gap, logits, log_std = self._split(output)
        there = torch.ones_like(numbers)
        there[:, self.features.gapped] = 1 - missing
        density = log_normal((numbers - mean) * (-log_std).exp()) - log_std
        total = (there * density).sum(1)
        total = total - binary_cross_entropy_with_logits(gap, missing, reduction="none").sum(1)
        return total + (levels * self._log_softmax(logits)).sum(1)

    def mean(self, output: Tensor) -> Tensor:
        """Return the mean of y: numbers, and probabilities of gaps and levels."""
        mean, gap, logits, _ = self._split(output)
        return torch.cat([mean, gap.sigmoid(), self._log_softmax(logits).exp()], 1)

    def sample(self, output: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw features, whose largest entry among the levels of a column is the level drawn."""
        mean, gap, logits, log_std = self._split(output)
        mean = mean + log_std.exp() * torch.empty_like(mean).normal_(generator=generator)
        gaps = torch.empty_like(gap).uniform_(generator=generator) < gap.sigmoid()
        gumbel = -torch.empty_like(logits).exponential_(generator=generator).log()
        return torch.cat([mean, gaps.to(mean), logits + gumbel], 1)

    def squared_error(self, y: Tensor, output: Tensor) -> Tensor:
        """Return the squared distance of y to its mean, `(B,)`, without numbers that are missing."""
        error = y - self.mean(output)
        missing = y.split(self.features.parts, 1)[1]
        there = torch.ones_like(error)
        there[:, self.features.gapped] = 1 - missing
        return (there * error).square().sum(1)

    def _split(self, output: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return means of numbers, logits of gaps and of levels, and log σ of numbers."""
        width = self.features.width
        mean, gap, logits = output[:, :width].split(self.features.parts, 1)
        own = output[:, width : width + mean.shape[1]] if output.shape[1] == 2 * width else 0.0
        return mean, gap, logits, ((self.raw_std + own).exp() + LEAST_STD).log().expand_as(mean)

    def _log_softmax(self, logits: Tensor) -> Tensor:
        group = self.features.group
        shifted = logits - self.features.grouped(logits.detach(), "amax")[:, group]
        return shifted - self.features.grouped(shifted.exp(), "sum").log()[:, group]
