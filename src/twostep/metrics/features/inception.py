"""Features of Inception v3, in which the Fréchet distance is called FID.

An image is rounded to integers v from 0 to 255, as if it came from a file, and resized as in TensorFlow 1: with n
pixels along a side, the position p = i n / 299 of pixel i is between a = floor(p) and b = min(a + 1, n - 1),

    v_i = v_a + (p - a) (v_b - v_a),    along rows, then along columns

without half-pixel offsets; then (v - 128) / 128. The features are the 2,048 activations of the last block, averaged
over positions. The user provides the weights: the published file, or any other with the tensors of the network.

Source: GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium (Heusel et al., 2017, arXiv
1706.08500).
"""

from __future__ import annotations

import hashlib
import io
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from torch import Tensor, nn

from twostep.core.schema import UserError
from twostep.data.files import cache
from twostep.metrics.features.base import Extractor, check_range, digest_of
from twostep.metrics.features.inception_network import network

NAME = "inception"
SIDE = 299
BLOCK = 32  # images in the network: a thousand would need 6 GB

# the published file of weights, used by pytorch-fid and torch-fidelity, and its SHA-256
FILE = "pt_inception-2015-12-05-6726825d.pth"
PUBLISHED = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"


def inception(low: float, high: float, weights: Path) -> Extractor:
    """Return the extractor of 2,048 features for data in [low, high]; the weights are a .pth or .safetensors file.

    Data without a finite range, and a file that is missing, damaged or of another network, raise a `UserError`.
    """
    check_range(NAME, low, high)
    net, digest = load(weights)
    words = (
        f"{low:g} to {high:g} scaled to v in 0 to 255 and rounded, stretched to {SIDE} pixels a side "
        "(bilinear, as TensorFlow 1), (v - 128) / 128, grey repeated to three channels"
    )

    def features(x: Tensor) -> Tensor:
        net.to(x.device)
        return torch.cat([net(normalise(block, low, high)) for block in x.split(BLOCK)])

    origin = f"weights {digest[:8]}, {'' if digest == PUBLISHED else 'not '}those of published FIDs"
    return Extractor(NAME, f"{origin}; {words}", digest_of(f"{NAME} {digest} {words}"), features, cached=True)


def normalise(x: Tensor, low: float, high: float) -> Tensor:
    """Return the input of the network, `(B, 3, 299, 299)` in [-1, 1], for images `(B, 1 or 3, H, W)`."""
    v = ((x.float() - low) * (255 / (high - low))).round().clamp(0, 255)
    return ((_resize(_resize(v, 3), 2) - 128) / 128).expand(-1, 3, -1, -1)


def load(path: Path) -> tuple[nn.Module, str]:
    """Return the network without its layer of logits, and the SHA-256 of its weights' file, which is read once."""
    if not path.is_file():
        raise UserError(f"{NAME}: {path}: no such file; give the path of {FILE}")
    return _load(*cache.file_facts(path))


@lru_cache(maxsize=1)
def _load(path: str, size: int, changed: int) -> tuple[nn.Module, str]:
    try:
        content = Path(path).read_bytes()
        if path.endswith(".safetensors"):
            read: Any = safetensors.torch.load(content)
        else:
            read = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise many types
        problem = f"damaged, or without weights ({size:,} bytes; {type(error).__name__})"
        raise UserError(f"{NAME}: {path}: {problem}") from None
    if not isinstance(read, dict) or not all(isinstance(one, Tensor) for one in cast(dict[str, Any], read).values()):
        raise UserError(f"{NAME}: {path} contains no state dict")
    net = network()
    wanted = net.state_dict()
    # old files lack this counter of batch normalisation, which has no effect
    found = {name: torch.zeros(()) for name in wanted if name.endswith("num_batches_tracked")}
    found |= cast(dict[str, Tensor], read)
    for name in [*wanted, *found]:
        here, there = (str(tuple(x[name].shape)) if name in x else "missing" for x in (wanted, found))
        if here != there:
            raise UserError(f"{NAME}: {path} is of another network: {name} is {there}, not {here}")
    net.load_state_dict({name: tensor.float() for name, tensor in found.items()}, assign=True)
    return net[:-1].requires_grad_(False), hashlib.sha256(content).hexdigest()


def _resize(x: Tensor, side: int) -> Tensor:
    n = x.shape[side]
    position = torch.arange(SIDE, dtype=x.dtype, device=x.device) * (n / SIDE)
    below = position.long()
    share = (position - below).view(-1, *[1] * (x.ndim - 1 - side))
    a, b = (x.index_select(side, at) for at in (below, (below + 1).clamp(max=n - 1)))
    return a + (b - a) * share
