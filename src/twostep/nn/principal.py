"""The map to principal axes: where a Gaussian fitted to the data has independent coordinates.

    y_j = u_j · (x - mean) / τ_j,   τ_j = s_j^p s^(1-p),   Σ u_j = s_j² u_j

with Σ the covariance of the data and s the smallest of the stds s_j along its axes. Power p = 1 whitens; p = 0 only
rotates, and divides by one number. A Gaussian with the moments of the data has stds `s_j / τ_j` in y.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from twostep.core.moments import principal_axes
from twostep.nn.transforms import DEVIATION_FLOOR, DataTransform


class Principal(DataTransform):
    """Rotate vectors `(B, D)` to their principal axes and divide each coordinate by a power of its std.

    An s_j counts as at least 1 % of the largest. Where p = 1 the whitened coordinates are turned back to the axes of
    the data: of all whitenings that one alone is continuous in the covariance, so a network survives a new fit.
    `spread` holds the stds of y, `(D,)`.
    """

    affine = True
    mean: Tensor
    axes: Tensor
    scale: Tensor
    spread: Tensor

    def __init__(self, dim: int, power: float) -> None:
        super().__init__()
        self.power = power
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("axes", torch.eye(dim))
        for name in ("scale", "spread"):
            self.register_buffer(name, torch.ones(dim))

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Take mean and covariance in one pass, in float64; data that do not vary are only shifted."""
        count, shift = 0, torch.zeros_like(self.mean, dtype=torch.float64)
        total, squares = torch.zeros_like(shift), torch.zeros_like(self.axes, dtype=torch.float64)
        for batch in batches:
            x = batch.double()
            if not count:
                shift = x.mean(0)
            x = x - shift
            count += len(x)
            total += x.sum(0)
            squares += x.T @ x
        mean = total / count
        variances, axes = (found.flip(-1) for found in principal_axes(squares / count - torch.outer(mean, mean)))
        stds = variances.clamp(min=0).sqrt()
        stds = stds.clamp(min=DEVIATION_FLOOR * float(stds[-1])) if stds[-1] > 0 else torch.ones_like(stds)
        self.mean.copy_(mean + shift)
        self.axes.copy_(axes)
        self.scale.copy_(stds**self.power * stds[0] ** (1 - self.power))
        self.spread.copy_(stds / self.scale)

    def forward(self, x: Tensor) -> Tensor:
        """Map vectors to coordinates along the axes."""
        y = (x - self.mean) @ self.axes / self.scale
        return y @ self.axes.T if self.power == 1 else y

    def inverse(self, y: Tensor) -> Tensor:
        """Map back to the data's axes and mean."""
        y = y @ self.axes if self.power == 1 else y
        return (y * self.scale) @ self.axes.T + self.mean

    def log_abs_det_jacobian(self, x: Tensor) -> Tensor:
        """Return `-sum log τ`."""
        return (-self.scale.log().sum()).expand(len(x))
