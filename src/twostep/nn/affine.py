"""An affine map as a layer."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class Affine(nn.Module):
    """A map `(B, *S) -> (B, *T)` that is known to be affine.

    Args:
        of: the map.
    """

    def __init__(self, of: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.of = of

    def forward(self, x: Tensor) -> Tensor:
        """Apply the map."""
        return self.of(x)
