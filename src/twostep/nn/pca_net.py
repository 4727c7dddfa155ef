"""Networks beside principal component analysis, which is where they start: most of an image before any training.

    y = Uᵀ(x - mean) / s,   z = y_1:d + f(y),   x ≈ mean + U s ((z, 0) + g(z))

U holds the k leading principal axes of the data, s the stds along them. f and g are zero at the start; they work on k
whitened numbers and not on all pixels, from which they learn faster.

Source: Principal Component Analysis (Jolliffe, 2002), chapters 2 and 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from typing_extensions import override

from twostep.nn.layers import Activation, Affine, Residual
from twostep.nn.mlp import NormedMLP

AXES = 384  # principal axes that are kept, or thrice as many as embeddings have coordinates
ROWS = 10_000  # of the data, at most, whose axes are taken
SPARE, PASSES = 30, 3  # of the randomised decomposition (Halko et al., 2011, arXiv 0909.4061)
FLOOR = 1e-3  # of the largest std, under all of them


class PrincipalAxes(Affine):
    """Mean `(D,)`, k axes `(D, k)` and stds `(k,)` of flattened points, in buffers, and one of the two maps."""

    mean: Tensor
    axes: Tensor
    stds: Tensor

    def __init__(self, dim: int, k: int) -> None:
        super().__init__(self.mapped)
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("axes", torch.eye(dim, k))
        self.register_buffer("stds", torch.ones(k))

    def mapped(self, h: Tensor) -> Tensor:
        """Map whitened coordinates `(B, k)` to flattened points `(B, D)`; further ones follow as they are."""
        k = len(self.stds)
        x = (h[:, :k] * self.stds) @ self.axes.T + self.mean
        return torch.cat([x, h[:, k:]], 1)

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Take the axes of rows `(n, D)`; where these are too few for k, the last ones are zero."""
        x, k = x.to(self.mean), len(self.stds)
        mean, found = x.mean(0), min(k, *x.shape)
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            _, values, axes = torch.svd_lowrank(x - mean, min(found + SPARE, *x.shape), PASSES)
        stds = values[:found] / len(x) ** 0.5
        stds = stds.clamp(min=FLOOR * float(stds[0])) if stds[0] > 0 else torch.ones_like(stds)
        self.mean.copy_(mean)
        self.axes.copy_(pad(axes[:, :found], (0, k - found)))
        self.stds.copy_(pad(stds, (0, k - found), value=1.0))


class ToAxes(PrincipalAxes):
    """From flattened points to whitened coordinates."""

    @override
    def mapped(self, h: Tensor) -> Tensor:
        return (h - self.mean) @ self.axes / self.stds


class Beside(Residual):
    """`(h_1:keep, 0) + body(h)`, vectors of as many entries as the body gives, which is zero at the start."""

    def __init__(self, body: nn.Sequential, keep: int) -> None:
        super().__init__(*body)
        last = cast(nn.Linear, body[-1])
        self.keep, self.size = keep, last.out_features
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    @override
    def skip(self, h: Tensor) -> Tensor:
        return pad(h[:, : self.keep], (0, self.size - self.keep))


class PrincipalEncoder(nn.Sequential):
    """From flattened points to embeddings `(B, d)`, and further entries that are zero at first, `(B, out_dim)`."""

    def __init__(self, dim: int, d: int, out_dim: int, hidden_dims: Sequence[int], activation: Activation) -> None:
        k = axes_of(dim, d)
        super().__init__(ToAxes(dim, k), Beside(NormedMLP(k, hidden_dims, out_dim, activation), d))


class PrincipalDecoder(nn.Sequential):
    """From embeddings `(B, d)` to flattened points, with further entries that are zero at first, `(B, D + extra)`."""

    def __init__(self, dim: int, d: int, extra: int, hidden_dims: Sequence[int], activation: Activation) -> None:
        k = axes_of(dim, d)
        super().__init__(Beside(NormedMLP(d, hidden_dims, k + extra, activation), d), PrincipalAxes(dim, k))


def axes_of(dim: int, d: int) -> int:
    """Return how many axes are kept of points with `dim` coordinates for embeddings of d."""
    return max(d, min(dim, max(AXES, 3 * d)))


def fit_axes(networks: Iterable[nn.Module], batches: Callable[[], Iterable[Tensor]]) -> None:
    """Fit all axes in networks to the first `ROWS` rows of batches `(B, *)`, which are made only if there are axes."""
    layers = [layer for network in networks for layer in network.modules() if isinstance(layer, PrincipalAxes)]
    if not layers:
        return
    rows: list[Tensor] = []
    for batch in batches():
        rows.append(batch.flatten(1))
        if sum(map(len, rows)) >= ROWS:
            break
    for layer in layers:
        layer.fit(torch.cat(rows)[:ROWS])
