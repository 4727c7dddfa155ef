"""Kernel density: a Gaussian of one width at every training row.

    y = t(x),   log p(x) = log (1/n) Σ_i N(y; y_i, h² I) + log|det t'(x)|

The bandwidth h has the largest likelihood of rows left out of the sum one at a time,

    L(h) = Σ_j log (1/(n - 1)) Σ_{i: y_i ≠ y_j} N(y_j; y_i, h² I),

over at most 1,000 rows j; equal rows are left out with it, or copies would let h vanish. At most 50,000 evenly spaced
rows are kept. The density of a training row counts the row itself: only those of other rows say how good the fit is.

Sources: On Estimation of a Probability Density Function and Mode (Parzen, 1962); Choosing a kernel by cross-validation
(Duin, 1976).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Unpack, override

from twostep.core.schema import DataSpec
from twostep.models.base import MODELS, DataArguments
from twostep.models.parts.fitted import FittedConfig, FittedDensity
from twostep.nn.distributions import LOG_2PI

BLOCK = 2**22  # entries of a block of squared distances
LEFT_OUT_ROWS = 1000
LEFT_OUT_ENTRIES = 2**24
ROUNDING = 1e-12  # of squared norms: rows so near are equal
GRID = 12  # bandwidths, of which the best begins the search
PRECISION = 0.01  # of log h


class KernelDensity(FittedDensity):
    """A kernel density with Gaussians of one bandwidth, which the rows themselves choose.

    Args:
        event_shape: shape `*S` of a data point.
        data: see `Model`; the transform must give vectors.
    """

    sized = ("centres",)
    centres: Tensor
    bandwidth: Tensor

    def __init__(self, event_shape: Sequence[int], **data: Unpack[DataArguments]) -> None:
        super().__init__(event_shape, **data)
        self.register_buffer("centres", torch.zeros(1, self.dim))
        self.register_buffer("bandwidth", torch.ones(()))

    @override
    def fit_rows(self, y: Tensor) -> None:
        self.put("centres", y)
        self.put("bandwidth", y.new_tensor(best_bandwidth(y)))

    @override
    def log_density(self, x: Tensor) -> Tensor:
        y = self.transform(x)
        kernel = -2 * self.bandwidth.double().square()
        blocks = y.split(max(1, BLOCK // len(self.centres)))
        logs = torch.cat([(squares(block, self.centres) / kernel).logsumexp(1) for block in blocks])
        constant = math.log(len(self.centres)) + self.dim * (self.bandwidth.double().log() + LOG_2PI / 2)
        return (logs - constant).to(y) + self.transform.log_abs_det_jacobian(x)

    @override
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        device = self.centres.device
        which = torch.randint(len(self.centres), (n,), generator=generator, device=device)
        y = self.centres[which] + self.bandwidth * self.draw(torch.randn, (n, self.dim), generator)
        return self.clamp(self.transform.inverse(y))

    @override
    def extra_repr(self) -> str:
        return f"{len(self.centres)} rows, bandwidth {float(self.bandwidth):.3g}"


def squares(x: Tensor, y: Tensor) -> Tensor:
    """Return the squared distances of rows `(n, D)` and `(m, D)`, `(n, m)` in float64."""
    x, y = x.double(), y.double()
    return (x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T).clamp(min=0)


def best_bandwidth(y: Tensor) -> float:
    """Return the h with the largest likelihood of left-out rows `(n, D)`; 1 where no two of them differ."""
    from scipy.optimize import minimize_scalar  # here because it takes a second

    y = y.double() - y.double().mean(0)
    count = min(len(y), LEFT_OUT_ROWS, max(1, LEFT_OUT_ENTRIES // len(y)))
    left_out = y[torch.arange(count, device=y.device) * len(y) // count]
    found = squares(left_out, y)
    equal = found <= ROUNDING * (left_out.square().sum(1)[:, None] + y.square().sum(1))
    found = found.masked_fill_(equal, torch.inf).float()
    found = found[found.isfinite().any(1)]
    if not len(found):
        return 1.0

    def loss(log_h: Any) -> float:
        logs = (found / (-2 * math.exp(2 * log_h))).logsumexp(1)
        return y.shape[1] * float(log_h) - float(logs.double().mean())

    nearest = float(found.amin(1).sqrt().median())
    widest = max(float(y.square().mean().sqrt()), nearest)
    grid = np.linspace(math.log(nearest / 10), math.log(2 * widest), GRID)
    best = min(range(GRID), key=lambda place: loss(grid[place]))
    ends = grid[max(best - 1, 0)], grid[min(best + 1, GRID - 1)]
    result: Any = minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": PRECISION})
    return math.exp(float(result.x))


@MODELS.register("kde")
class KernelDensityConfig(FittedConfig):
    """Keys of `kde`."""

    summary: ClassVar[str] = "kernel density: a Gaussian at every training row"
    paper: ClassVar[str] = "Parzen, 1962"

    name: Literal["kde"] = "kde"

    @override
    def build(self, spec: DataSpec) -> KernelDensity:
        return KernelDensity(spec.shape, **self.data_arguments(spec))
