"""Activation functions by name, an affine map as a layer, and networks that end in an affine map."""

from collections.abc import Callable
from typing import Literal, Protocol, runtime_checkable

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


@runtime_checkable
class EndsAffinely(Protocol):
    """A network that can say where its last affine map begins, which makes volumes under it cheap."""

    def affine_tail(self) -> tuple[nn.Sequential, Callable[[Tensor], Tensor]]:
        """Return the layers before the last affine map, and that map."""
        ...
