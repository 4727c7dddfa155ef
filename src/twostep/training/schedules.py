"""In which order the two steps are trained: each schedule is a function over two trainers.

A frozen autoencoder has no trainer.
"""

from __future__ import annotations

from collections.abc import Callable

from twostep.data.batches import Batches
from twostep.training.trainer import Trainer


def sequential(gae: Trainer | None, de: Trainer, embed: Callable[[], tuple[Batches, Batches | None]]) -> None:
    """Train the autoencoder fully, then the density on its embeddings.

    Args:
        gae: trainer of the autoencoder; None if it is frozen.
        de: trainer of the density.
        embed: gives training and validation embeddings by the autoencoder as it is when called.
    """
    if gae is not None:
        gae.fit()
    de.use(*embed(), version=0 if gae is None else gae.steps_done)
    de.fit()
