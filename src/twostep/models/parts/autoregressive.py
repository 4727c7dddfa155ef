"""Autoregressive layers of a flow: each coordinate is moved by a function that those before it in some order decide.

    u_j = f(y_j; h_j(y_1, ..., y_{j-1})),   h a masked network, the order drawn anew in each layer

f is affine (`maf`) or a monotone rational-quadratic spline on `[-tail_bound, tail_bound]` (`nsf`). A density takes one
pass through h, a sample D of them. Neural autoregressive flows are left out: beyond a bound their inverse is not found.

Sources: Masked Autoregressive Flow (Papamakarios et al., 2017, arXiv 1705.07057); Neural Spline Flows (Durkan et al.,
2019, arXiv 1906.04032).
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from torch import Tensor, nn
from zuko.flows import MAF, Flow
from zuko.transforms import MonotonicRQSTransform

from twostep.models.parts.coupling import Couplings

Autoregressive = Literal["maf", "nsf"]


class ZukoLayers(nn.Module):
    """The layers of a flow of zuko; data `(B, D)`, and conditions `(B, K)` if it has such, to noise `(B, D)`."""

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.layers: Any = flow.transform

    def forward(self, y: Tensor, *c: Tensor) -> tuple[Tensor, Tensor]:
        """Map data to noise, with the log-determinant `(B,)`."""
        return self.layers(*c).call_and_ladj(y)

    def inverse(self, u: Tensor, *c: Tensor) -> Tensor:
        """Map noise to data."""
        return self.layers(*c).inv(u)


def autoregressive_layers(kind: Autoregressive, dim: int, keys: Couplings) -> ZukoLayers:
    """Return layers over the coordinates of a vector, whose networks are as wide and deep as those of couplings."""
    splines: dict[str, Any] = {
        "univariate": partial(MonotonicRQSTransform, bound=keys.tail_bound),
        "shapes": [(keys.num_bins,), (keys.num_bins,), (keys.num_bins - 1,)],
    }
    widths = (keys.hidden_units,) * (keys.num_blocks_per_layer + 1)
    flow = MAF(
        dim,
        keys.conditions,
        transforms=keys.num_layers,
        randperm=True,
        hidden_features=widths,
        **({"residual": True} if dim > 1 else {}),  # a single coordinate has no masks
        **(splines if kind == "nsf" else {}),
    )
    return ZukoLayers(flow)
