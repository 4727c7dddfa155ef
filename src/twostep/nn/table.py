"""Coded rows of a table as vectors that a network sees, and back; the codes are those of `core.table`.

For a density every column is one coordinate that is marginally N(0, 1), so that independent columns are N(0, I):

    numbers         y = G(x)                                a smooth monotone map to normal scores (`marginals`)
    integers        y = G(x + u)                            u ~ U[0, 1)
    levels          y = Φ⁻¹(F_k + u P_k)                    F_k: share of the levels before; a missing value is a level
    missing number  y ~ N(0, 1), and a coordinate more that says whether the number is missing, as a level

    P(x) = E_u[ p_Y(y) ∏ G'(x) ∏ P_k / φ(y) ∏_missing 1 / φ(y) ]      so   log P(x) >= E_u[ log ... ]

with respect to Lebesgue measure in columns of numbers and counting measure in the others: variational dequantisation
through the empirical distribution functions. For an autoencoder a level is a one-hot vector, a missing number its
median, 0, and an indicator.

Source: Flow++ (Ho et al., 2019, arXiv 1902.00275), for the bound.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from typing_extensions import override

from twostep.core.table import TableSchema
from twostep.nn.marginals import Shares, Splines, log_normal, normal_quantile
from twostep.nn.transforms import DataTransform, Noise

MOST_ROWS = 200_000  # that the statistics are taken from


class TableNoise(Noise):
    """Puts the noise of dequantisation beside codes `(B, C)`: `(B, 3 C)`, numbers uniform on [0, 1) in the last two."""

    def __init__(self, columns: int) -> None:
        super().__init__(dequantize=True)
        self.columns = columns

    @override
    def dequantize(self, x: Tensor) -> Tensor:
        """Draw the noise, unless rows have theirs already."""
        return x if x.shape[1] != self.columns else torch.cat([x, torch.rand_like(x), torch.rand_like(x)], 1)


class TableMap(DataTransform):
    """What both maps of a table share: the statistics of its columns."""

    numeric: Tensor
    nominal: Tensor
    gapped: Tensor
    whole: Tensor
    last: Tensor
    can_lack: Tensor

    def __init__(self, columns: TableSchema) -> None:
        super().__init__()
        self.columns = columns
        every = columns.modelled
        places = [place for place, one in enumerate(every) if not one.nominal]
        levels = [place for place, one in enumerate(every) if one.nominal]
        gapped = [at for at, place in enumerate(places) if every[place].gaps]
        for name, value in (("numeric", places), ("nominal", levels), ("gapped", gapped)):
            self.register_buffer(name, torch.tensor(value, dtype=torch.long), persistent=False)
        self.register_buffer(
            "whole", torch.tensor([every[place].integral for place in places], dtype=torch.bool), persistent=False
        )
        # a column's levels, then any other, then a missing one
        self.sizes = [len(every[place].levels) + 1 + every[place].gaps for place in levels]
        can = torch.tensor([every[place].gaps for place in levels], dtype=torch.bool)
        self.register_buffer("can_lack", can, persistent=False)
        self.register_buffer("last", torch.tensor(self.sizes, dtype=torch.long) - 1, persistent=False)
        self.splines, self.shares, self.missing = Splines(len(places)), Shares(self.sizes), Shares([2] * len(gapped))

    @override
    def fit(self, batches: Iterable[Tensor]) -> None:
        kept: list[Tensor] = []
        for batch in batches:
            kept.append(batch[:, : len(self.columns.modelled)].cpu())
            if sum(map(len, kept)) >= MOST_ROWS:
                break
        rows = torch.cat(kept).double()
        noise = torch.rand(len(rows), generator=torch.Generator().manual_seed(0)).double()
        for at, place in enumerate(self.numeric.tolist()):
            values = rows[:, place] + (noise if self.whole[at] else 0.0)
            self.splines.fit(at, values[~values.isnan()])
        for at, place in enumerate(self.nominal.tolist()):
            codes = rows[:, place]
            gap = codes.isnan()
            codes = codes.nan_to_num(self.sizes[at] - 1)
            self.shares.fit(at, codes if self.columns.modelled[place].gaps else codes[~gap])
        for at, of in enumerate(self.gapped.tolist()):
            self.missing.fit(at, rows[:, int(self.numeric[of])].isnan())

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return codes `(B, C)` and two numbers of noise for each, ½ where there is none."""
        number = len(self.columns.modelled)
        if x.shape[1] == number:
            half = torch.full_like(x, 0.5)
            return x, half, half
        return x[:, :number], x[:, number : 2 * number], x[:, 2 * number :]

    def _scores(self, codes: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return normal scores, log-slopes and where numbers are missing, `(B, numbers)`; scores are 0 there."""
        values = codes[:, self.numeric]
        gap = values.isnan()
        scores, log_slope = self.splines(values.nan_to_num(0.0) + torch.where(self.whole, u[:, self.numeric], 0.0))
        return scores.masked_fill(gap, 0.0), log_slope.masked_fill(gap, 0.0), gap

    def _levels(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Return levels as integers `(B, levels)`, and which are missing in columns that never lacked one."""
        values = codes[:, self.nominal]
        gap = values.isnan()
        levels = torch.minimum(values.nan_to_num(0.0).floor().long().clamp(min=0), self.last - self.can_lack.long())
        return torch.where(gap & self.can_lack, self.last, levels), gap & ~self.can_lack

    def _codes(self, scores: Tensor, missing: Tensor, levels: Tensor) -> Tensor:
        """Return codes `(B, C)` of normal scores, of which numbers are missing, and of levels."""
        values = self.splines.inverse(scores)
        values = torch.where(self.whole, values.floor(), values)
        gap = torch.zeros_like(values, dtype=torch.bool)
        gap[:, self.gapped] = missing
        codes = scores.new_empty(len(scores), len(self.columns.modelled), dtype=torch.float64)
        codes[:, self.numeric] = values.masked_fill(gap, torch.nan)
        codes[:, self.nominal] = levels.double().masked_fill(self.can_lack & (levels == self.last), torch.nan)
        return codes.to(torch.get_default_dtype())


class TableCoordinates(TableMap):
    """Rows as vectors `(B, width)` for a density: a coordinate for each number, level, and possibly missing number."""

    @property
    def width(self) -> int:
        """Number of coordinates."""
        return len(self.columns.modelled) + len(self.gapped)

    @override
    def forward(self, x: Tensor) -> Tensor:
        return self._mapped(x)[0]

    @override
    def log_abs_det_jacobian(self, x: Tensor) -> Tensor:
        """Return what a log-density of the vectors lacks to the integrand of the bound."""
        return self._mapped(x)[1]

    @override
    def inverse(self, y: Tensor) -> Tensor:
        """Return codes; noise is dropped."""
        numbers, levels, missing = y.split([len(self.numeric), len(self.nominal), len(self.gapped)], 1)
        cdf = torch.special.ndtr
        return self._codes(numbers, self.missing.at(cdf(missing.double())) == 1, self.shares.at(cdf(levels.double())))

    def _mapped(self, x: Tensor) -> tuple[Tensor, Tensor]:
        codes, u, v = self._split(x)
        scores, log_slope, gap = self._scores(codes, u)
        fill = normal_quantile(u[:, self.numeric])
        scores = torch.where(gap, fill, scores)
        log_det = torch.where(gap, -log_normal(fill), log_slope).sum(1)
        levels, unknown = self._levels(codes)
        for shares, of, noise in (
            (self.shares, levels, u[:, self.nominal]),
            (self.missing, gap[:, self.gapped].long(), v[:, self.numeric[self.gapped]]),
        ):
            low, share = shares.ends(of)
            inside = low + share * noise
            if of is levels:
                inside, share = torch.where(unknown, noise.double(), inside), torch.where(unknown, 1.0, share)
            y = normal_quantile(inside)
            log_det = log_det + (share.log() - log_normal(y)).sum(1)
            scores = torch.cat([scores, y], 1)
        return scores.to(x.dtype), log_det.to(x.dtype)


class TableFeatures(TableMap):
    """Rows as vectors `(B, width)` for an autoencoder: numbers, whether they are missing, one-hot levels."""

    group: Tensor
    index: Tensor

    def __init__(self, columns: TableSchema) -> None:
        super().__init__(columns)
        sizes = torch.tensor(self.sizes, dtype=torch.long)
        self.register_buffer("group", torch.arange(len(sizes)).repeat_interleave(sizes), persistent=False)
        first = sizes.cumsum(0) - sizes
        self.register_buffer("index", torch.arange(int(sizes.sum())) - first[self.group], persistent=False)

    @property
    def parts(self) -> tuple[int, int, int]:
        """Number of coordinates for numbers, for whether they are missing, and for levels."""
        return len(self.numeric), len(self.gapped), len(self.group)

    @property
    def width(self) -> int:
        """Number of coordinates."""
        return sum(self.parts)

    @override
    def forward(self, x: Tensor) -> Tensor:
        codes, u, _ = self._split(x)
        scores, _, gap = self._scores(codes, u)
        levels, unknown = self._levels(codes)
        one_hot = (levels[:, self.group] == self.index) & ~unknown[:, self.group]
        return torch.cat([scores.to(x.dtype), gap[:, self.gapped].to(x.dtype), one_hot.to(x.dtype)], 1)

    @override
    def log_abs_det_jacobian(self, x: Tensor) -> Tensor:
        """Return the log-slopes of the numbers that are there."""
        codes, u, _ = self._split(x)
        return self._scores(codes, u)[1].sum(1).to(x.dtype)

    @override
    def inverse(self, y: Tensor) -> Tensor:
        """Return codes: the largest entry of a column is its level, and more than ½ a missing number."""
        numbers, missing, levels = y.split(self.parts, 1)
        largest = self.grouped(levels, "amax")[:, self.group]
        place = torch.where(levels == largest, self.index.to(levels), -1.0)
        return self._codes(numbers, missing > 0.5, self.grouped(place, "amax").long())

    def grouped(self, entries: Tensor, how: str) -> Tensor:
        """Return the largest (`amax`) or the sum of the entries `(B, levels)` of each column, `(B, columns)`."""
        out = entries.new_zeros(len(entries), len(self.sizes))
        of = self.group.expand(len(entries), -1)
        return out.scatter_reduce(1, of, entries, how, include_self=False)
