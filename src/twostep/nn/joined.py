"""A network of two inputs, made from a network of one."""

from __future__ import annotations

import itertools

from torch import Tensor, nn


class JoinedNet(nn.Module):
    """A network whose first linear layer takes a second input beside its own, `(B, *), (B, side_dim) -> (B, out_dim)`.

    A linear layer of two inputs side by side is the sum of one of each: `features` depends on the first input alone,
    so it is computed once where many second inputs meet the same first one.

    Args:
        net: network of the first input; its first linear layer is where the second one enters.
        side_dim: size of the second input.
    """

    def __init__(self, net: nn.Sequential, side_dim: int) -> None:
        super().__init__()
        before = list(itertools.takewhile(lambda layer: not isinstance(layer, nn.Linear), net))
        first = net[len(before)]
        assert isinstance(first, nn.Linear)
        self.features = nn.Sequential(*before, first)
        self.side = nn.Linear(side_dim, first.out_features, bias=False)
        self.rest = nn.Sequential(*list(net)[len(before) + 1 :])
        bound = (first.in_features + side_dim) ** -0.5  # of a layer that takes both
        for layer in (first, self.side):
            nn.init.uniform_(layer.weight, -bound, bound)

    def forward(self, x: Tensor, side: Tensor) -> Tensor:
        """Map `(B, *)` and `(B, side_dim)` to `(B, out_dim)`."""
        return self.join(self.features(x), side)

    def join(self, features: Tensor, side: Tensor) -> Tensor:
        """Map features `(*, hidden)` of the first input and a second one `(*, side_dim)` to `(*, out_dim)`."""
        return self.rest(features + self.side(side))
