"""What reconstructions explain of the variance of test rows: is it much, and more than principal components do?"""

from __future__ import annotations

import logging
from dataclasses import replace

import torch

from twostep.core.result import Result
from twostep.data.base import Splits
from twostep.data.batches import subsample

EXPLAINS_NOTHING = 0.1  # of the variance of test rows
LEAST, MOST = 100, 2000  # rows of which principal components are taken
BETTER = 0.02  # of the variance

logger = logging.getLogger("twostep")


def comment_reconstructions(results: dict[str, dict[str, Result]], splits: Splits, latent_dim: int | None) -> None:
    """Note in the results what as many principal components explain, and what may help where that is more.

    Warn where reconstructions explain almost nothing.
    """
    spec, advice = splits.spec, "train longer (max_epochs, max_steps, max_minutes), or raise lr or latent_dim"
    if not spec.is_image and spec.table is None:
        advice += ", or set whitening_transform=True"
    linear = (
        linear_share(splits, latent_dim) if any("explained_variance" in found for found in results.values()) else None
    )
    for name, found in results.items():
        share = found.get("explained_variance")
        if share is None:
            continue
        note = ""
        if linear is not None:
            note = f"{latent_dim} principal components explain {linear:.1%} of the variance"
        if share.value < EXPLAINS_NOTHING:
            note = f"reconstructions explain {max(share.value, 0):.1%} of the variance: embeddings say little"
            if name != "two_step":
                logger.warning("%s: %s; %s", name, note, advice)
        if share.value < EXPLAINS_NOTHING or (linear is not None and share.value < linear - BETTER):
            note += f"; {advice}"
        found["explained_variance"] = replace(share, note=note)


def linear_share(splits: Splits, d: int | None) -> float | None:
    """Return the share of the variance of test rows that d principal components of training rows explain.

    None for tables with words or gaps, few rows, or as many components as coordinates.
    """
    train, test = (subsample(rows, MOST).float().flatten(1) for rows in (splits.train, splits.test))
    if splits.spec.table is not None or d is None or d >= min(train.shape) or len(train) < LEAST or len(test) < 2:
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        axes = torch.svd_lowrank(train - train.mean(0), min(d + 10, *train.shape))[2][:, :d]
    centred, variance = test - train.mean(0), (test - test.mean(0)).square().sum()
    left = (centred - centred @ axes @ axes.T).square().sum()
    return float(1 - left / variance) if variance > 0 else None
