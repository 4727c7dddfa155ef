"""A Gaussian mixture on a random curved manifold: the image of R^d under a fixed random network.

    x = F(Q z),  z ~ mixture of Gaussians in R^d,  Q: R^d -> R^D a random isometry,

where F is a composition of additive couplings `a <- a + h(b)`, b and a being the two halves of the coordinates in turn
and h a random one-layer tanh network. F is smooth and invertible, so the manifold has no self-intersections, z is known
for every point, and `log p(x) = log p(z) - 1/2 log det JᵀJ` with J the Jacobian of `F(Q z)`.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor
from typing_extensions import override

from twostep.core.schema import NonNegativeFloat, PositiveInt
from twostep.core.seeds import derive
from twostep.data.synthetic.base import SyntheticDistribution, synthetic
from twostep.data.synthetic.numerics import choice, log_normal, normal

NEWTON_STEPS = 40
CONVERGED = 1e-9
WIDTH = 32
STD = 0.5  # of each Gaussian; their means are standard normal


@synthetic("network_manifold", "a Gaussian mixture mapped by a fixed random network")
class NetworkManifold(SyntheticDistribution):
    """A d-dimensional manifold in R^D, D > d."""

    manifold_dim: PositiveInt = Field(2, description="dimension d of the manifold")
    ambient_dim: PositiveInt | None = Field(10, description="dimension D of the space, more than d; None: d + 1")
    components: PositiveInt = Field(5, description="number of Gaussians in the mixture")
    layers: PositiveInt = Field(4, description="number of coupling layers")
    curvature: NonNegativeFloat = Field(1.0, description="scale of the coupling layers' outputs; 0: a linear subspace")

    @property
    @override
    def dims(self) -> tuple[int, int]:
        return self.manifold_dim, self.ambient_dim or self.manifold_dim + 1

    @override
    def draw(self, n: int, generator: Generator) -> Tensor:
        means = self._means[choice(n, self.components, generator)]
        return self.chart(means + STD * normal(n, self.manifold_dim, generator=generator))

    @override
    def log_density(self, y: Tensor) -> Tensor:
        z = self._pull_back(y) @ self._frame
        log_mixture = torch.logsumexp(log_normal(z[:, None] - self._means, STD), 1) - math.log(self.components)
        return log_mixture - torch.linalg.svdvals(self._jacobian(z)).log().sum(1)

    @override
    def nearest(self, y: Tensor) -> Tensor:
        # Levenberg-Marquardt from the inverse of the network
        z = self._pull_back(y) @ self._frame
        best, damping = (self.chart(z) - y).square().sum(1), torch.ones(len(y), dtype=y.dtype)
        for _ in range(NEWTON_STEPS):
            jacobian = self._jacobian(z)
            slope, gram = jacobian.mT @ (y - self.chart(z))[..., None], jacobian.mT @ jacobian
            damped = gram + torch.diag_embed(damping[:, None] * gram.diagonal(0, 1, 2))
            step = torch.linalg.solve(damped, slope)[..., 0]
            if bool((step.abs() < CONVERGED).all()):
                break
            there = z + step
            cost = (self.chart(there) - y).square().sum(1)
            nearer = cost < best
            z, best = torch.where(nearer[:, None], there, z), torch.where(nearer, cost, best)
            damping = torch.where(nearer, damping / 10, damping * 10).clamp(1e-9, 1e9)
        return self.chart(z)

    def chart(self, z: Tensor) -> Tensor:
        """Map `(*, d)` to points `(*, D)` of the manifold."""
        y = z @ self._frame.T
        for coupling in self._couplings:
            y = y + _shift(y, *coupling)
        return y

    def _jacobian(self, z: Tensor) -> Tensor:
        """Return the Jacobian of the chart at z `(n, d)`, of shape `(n, D, d)`."""
        return torch.func.vmap(torch.func.jacfwd(self.chart))(z)

    def _pull_back(self, y: Tensor) -> Tensor:
        for coupling in reversed(self._couplings):
            y = y - _shift(y, *coupling)
        return y

    @cached_property
    def _frame(self) -> Tensor:
        return torch.linalg.qr(normal(self.native_dim, self.manifold_dim, generator=self._random("frame"))).Q

    @cached_property
    def _means(self) -> Tensor:
        return normal(self.components, self.manifold_dim, generator=self._random("means"))

    @cached_property
    def _couplings(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        couplings: list[tuple[Tensor, Tensor, Tensor]] = []
        moved = (torch.arange(self.native_dim) < self.native_dim // 2).double()
        for layer in range(self.layers):
            generator = self._random("coupling", layer)
            moved = 1 - moved
            into = (1 - moved)[:, None] * normal(self.native_dim, WIDTH, generator=generator)
            bias = normal(WIDTH, generator=generator)
            out = normal(WIDTH, self.native_dim, generator=generator) * moved * self.curvature / math.sqrt(WIDTH)
            couplings.append((into, bias, out))
        return couplings

    def _random(self, *purpose: str | int) -> Generator:
        return torch.Generator().manual_seed(derive(self.seed, *purpose))

    @model_validator(mode="after")
    def _check_dims(self) -> Self:
        if self.native_dim <= self.manifold_dim:
            raise ValueError(f"ambient_dim={self.ambient_dim} must be more than manifold_dim={self.manifold_dim}")
        return self


def _shift(y: Tensor, into: Tensor, bias: Tensor, out: Tensor) -> Tensor:
    """Return what a coupling adds to points `(*, D)`; `into` reads one half of them and `out` writes into the other."""
    return torch.tanh(y @ into + bias) @ out
