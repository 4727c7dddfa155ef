"""Fully connected networks: the plain one, one of residual blocks, and one of two inputs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, takewhile
from typing import cast

from torch import Tensor, nn

from twostep.nn.layers import ACTIVATIONS, Activation, Residual


class MLP(nn.Sequential):
    """Linear layers with an activation between them; `(B, in_dim) -> (B, out_dim)`."""

    def __init__(self, in_dim: int, hidden_dims: Sequence[int], out_dim: int, activation: Activation) -> None:
        layers: list[nn.Module] = []
        for before, after in pairwise([in_dim, *hidden_dims, out_dim]):
            layers += [nn.Linear(before, after), ACTIVATIONS[activation]()]
        super().__init__(*layers[:-1])


class NormedMLP(nn.Sequential):
    """Blocks `h + W₂ a(W₁ n(h))` between two linear layers, n the layer norm; `(B, in_dim) -> (B, out_dim)`.

    Source: Layer Normalization (Ba et al., 2016, arXiv 1607.06450).
    """

    def __init__(self, in_dim: int, hidden_dims: Sequence[int], out_dim: int, activation: Activation) -> None:
        width = hidden_dims[0]
        blocks = [
            Residual(norm(width), nn.Linear(width, inner), ACTIVATIONS[activation](), nn.Linear(inner, width))
            for inner in hidden_dims
        ]
        super().__init__(nn.Linear(in_dim, width), *blocks, norm(width), nn.Linear(width, out_dim))


def norm(width: int) -> nn.LayerNorm:
    """Return a layer norm without weights of its own, as a linear layer follows it."""
    return nn.LayerNorm(width, elementwise_affine=False)


class ResidualMLP(nn.Module):
    """Blocks `h + W₂ relu(W₁ relu(h))` between two linear layers; `(B, in_dim) -> (B, out_dim)`.

    The last layer starts near zero, so that what it parametrises starts near its neutral value.

    Source: Deep Residual Learning for Image Recognition (He et al., 2016, arXiv 1512.03385).
    """

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int, blocks: int) -> None:
        super().__init__()
        self.first = self.layer(in_dim, hidden_dim)
        pairs = ([self.layer(hidden_dim, hidden_dim) for _ in range(2)] for _ in range(blocks))
        self.blocks = nn.ModuleList(nn.Sequential(nn.ReLU(), one, nn.ReLU(), other) for one, other in pairs)
        self.last = self.layer(hidden_dim, out_dim, last=True)
        nn.init.normal_(self.last.weight, std=1e-3)
        nn.init.zeros_(cast(Tensor, self.last.bias))

    def layer(self, before: int, after: int, last: bool = False) -> nn.Linear | nn.Conv2d:
        """Return a linear layer of these sizes."""
        return nn.Linear(before, after)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, in_dim)` to `(B, out_dim)`."""
        h = self.first(x)
        for block in self.blocks:
            h = h + block(h)
        return self.last(h)


class JoinedNet(nn.Module):
    """A network whose first linear layer takes a second input beside its own, `(B, *), (B, side_dim) -> (B, out_dim)`.

    A linear layer of two inputs side by side is the sum of one of each: `features` depends on the first input alone,
    so it is computed once where many second inputs meet the same first one.
    """

    def __init__(self, net: nn.Sequential, side_dim: int) -> None:
        super().__init__()
        self.side_dim = side_dim
        before = list(takewhile(lambda layer: not isinstance(layer, nn.Linear), net))
        first = net[len(before)]
        assert isinstance(first, nn.Linear)
        self.features = nn.Sequential(*before, first)
        self.side = nn.Linear(side_dim, first.out_features, bias=False)
        self.rest = nn.Sequential(*list(net)[len(before) + 1 :])
        bound = (first.in_features + side_dim) ** -0.5  # of a layer that takes both
        for layer in (first, self.side):
            nn.init.uniform_(layer.weight, -bound, bound)

    def forward(self, x: Tensor, side: Tensor) -> Tensor:
        """Map `(B, *)` and `(B, side_dim)`, or several of the second at each of the first, to `(B, out_dim)`."""
        return self.rest(self.features(x) + self.side(side))
