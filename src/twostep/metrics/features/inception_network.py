"""Inception v3 as trained in 2015 with 1,008 labels, the network of the FID.

Five convolutions and two pooling layers, then eleven blocks of parallel branches, whose outputs are concatenated. Each
convolution is followed by batch normalisation and a ReLU. It differs from torchvision's network of that name: average
pooling in the blocks excludes the padding, the last block uses max pooling, and there are 1,008 labels.

Source: Rethinking the Inception Architecture for Computer Vision (Szegedy et al., 2015, arXiv 1512.00567).
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

Kernel = int | tuple[int, int]
# channels and kernel of convolutions; two kernels are applied to the same input, and their outputs concatenated
Chains = dict[str, list[tuple[int, Kernel] | tuple[int, Kernel, Kernel]]]

ROW, COLUMN = (1, 7), (7, 1)
DOUBLE: Chains = {"branch3x3dbl": [(64, 1), (96, 3), (96, 3)]}
SQUARES: Chains = {"branch1x1": [(64, 1)], "branch5x5": [(48, 1), (64, 5)], **DOUBLE}
FORKS: Chains = {
    "branch1x1": [(320, 1)],
    "branch3x3": [(384, 1), (384, (1, 3), (3, 1))],
    "branch3x3dbl": [(448, 1), (384, 3), (384, (1, 3), (3, 1))],
}
SHRINKING: Chains = {"branch3x3": [(192, 1), (320, 3)], "branch7x7x3": [(192, 1), (192, ROW), (192, COLUMN), (192, 3)]}


def network() -> nn.Sequential:
    """Return the network on the meta device, with tensors named as in the published file of weights.

    It maps images `(B, 3, 299, 299)` to logits `(B, 1008)`; without its last layer, to features `(B, 2048)`.
    """
    mean = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
    with torch.device("meta"):
        layers: dict[str, nn.Module] = {
            "Conv2d_1a_3x3": _convolution(3, 32, 3, stride=2),
            "Conv2d_2a_3x3": _convolution(32, 32, 3),
            "Conv2d_2b_3x3": _convolution(32, 64, 3, padding="same"),
            "MaxPool_1": nn.MaxPool2d(3, 2),
            "Conv2d_3b_1x1": _convolution(64, 80, 1),
            "Conv2d_4a_3x3": _convolution(80, 192, 3),
            "MaxPool_2": nn.MaxPool2d(3, 2),
            "Mixed_5b": Block(192, SQUARES, mean, 32),
            "Mixed_5c": Block(256, SQUARES, mean, 64),
            "Mixed_5d": Block(288, SQUARES, mean, 64),
            "Mixed_6a": Block(288, {"branch3x3": [(384, 3)], **DOUBLE}),
            "Mixed_6b": Block(768, _strips(128), mean, 192),
            "Mixed_6c": Block(768, _strips(160), mean, 192),
            "Mixed_6d": Block(768, _strips(160), mean, 192),
            "Mixed_6e": Block(768, _strips(192), mean, 192),
            "Mixed_7a": Block(768, SHRINKING),
            "Mixed_7b": Block(1280, FORKS, mean, 192),
            "Mixed_7c": Block(2048, FORKS, nn.MaxPool2d(3, 1, 1), 192),
            "AvgPool": nn.AdaptiveAvgPool2d(1),
            "flatten": nn.Flatten(),
            "fc": nn.Linear(2048, 1008),
        }
    return nn.Sequential(OrderedDict(layers)).eval()


class Block(nn.Module):
    """Parallel chains of convolutions and a pooling layer, which keep the sides of the input or halve them.

    Args:
        inputs: channels of the input `(B, inputs, H, W)`.
        chains: convolutions of each chain by its name, which names them too, with a number if there are several.
        pool: pooling layer that keeps the sides; None: max pooling and the last convolutions halve them.
        pooled: output channels of a convolution after `pool`; 0: none.
    """

    def __init__(self, inputs: int, chains: Chains, pool: nn.Module | None = None, pooled: int = 0) -> None:
        super().__init__()
        self._chains: list[list[list[str]]] = []
        for chain, steps in chains.items():
            self._chains.append([])
            channels = inputs
            for number, (outputs, *kernels) in enumerate(steps, 1):
                name = f"{chain}_{number}" if len(steps) > 1 else chain
                names = [name] if len(kernels) == 1 else [f"{name}a", f"{name}b"]
                stride, padding = (2, "valid") if pool is None and number == len(steps) else (1, "same")
                for one, kernel in zip(names, kernels, strict=True):
                    self.add_module(one, _convolution(channels, outputs, kernel, stride, padding))
                self._chains[-1].append(names)
                channels = outputs
        self.pool = pool or nn.MaxPool2d(3, 2)
        self.branch_pool = _convolution(inputs, pooled, 1) if pooled else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return the concatenated outputs of all branches, the pooling layer last."""
        found: list[Tensor] = []
        for chain in self._chains:
            y = x
            for names in chain:
                y = torch.cat([self.get_submodule(name)(y) for name in names], 1)
            found.append(y)
        return torch.cat([*found, self.branch_pool(self.pool(x))], 1)


def _strips(width: int) -> Chains:
    return {
        "branch1x1": [(192, 1)],
        "branch7x7": [(width, 1), (width, ROW), (192, COLUMN)],
        "branch7x7dbl": [(width, 1), (width, COLUMN), (width, ROW), (width, COLUMN), (192, ROW)],
    }


def _convolution(inputs: int, outputs: int, kernel: Kernel, stride: int = 1, padding: str = "valid") -> nn.Module:
    layers: dict[str, nn.Module] = {
        "conv": nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False),
        "bn": nn.BatchNorm2d(outputs, eps=1e-3),
        "relu": nn.ReLU(inplace=True),
    }
    return nn.Sequential(OrderedDict(layers))
