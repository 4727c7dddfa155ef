"""Defaults of the keys of residual convolutions, which follow from the sizes of images and of a grid of embeddings."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

from twostep.core.keys import grid_shape
from twostep.core.schema import DataSpec

WIDTH = 32  # channels of the first level, which double at each further one
SMALLEST = 4  # pixels of the last level's sides at least, where embeddings are vectors


def with_levels(keys: dict[str, Any], spec: DataSpec) -> dict[str, Any]:
    """Return keys with defaults of residual convolutions on top, where these or a grid of embeddings are asked for."""
    shape = keys.get("latent_shape")
    if shape is None and keys.get("encoder_net") != "rescnn":
        return keys
    side, smallest, size = (spec.shape[1] if spec.is_image else 1), SMALLEST, {}
    if shape is not None:
        with suppress(ValueError):  # an invalid one is refused where all keys are checked
            grid = grid_shape(shape)
            size, smallest = {"latent_dim": math.prod(grid)}, grid[1]
    halvings = max(1, round(math.log2(side / smallest)))
    channels = tuple(WIDTH * 2**level for level in range(halvings))
    for network, order in (("encoder", channels), ("decoder", channels[::-1])):
        size |= {f"{network}_net": "rescnn", f"{network}_hidden_channels": order, f"{network}_activation": "swish"}
    return {**size, **keys}
