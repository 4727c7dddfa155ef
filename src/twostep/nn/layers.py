"""Activation functions by name, and an affine map as a layer."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

Activation = Literal["relu", "tanh", "swish"]

ACTIVATIONS: dict[Activation, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "swish": nn.SiLU}


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
