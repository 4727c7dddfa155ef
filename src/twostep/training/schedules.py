"""The order in which the two steps are trained.

`sequential` is the method of the paper. The two others alternate, as its code offers too: the density is then fitted to
non-stationary embeddings. Its standardisation follows them, and it starts so late that both models end together.
"""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from twostep.data.batches import Batches, embed, subsample
from twostep.models.base import evaluating
from twostep.models.two_step import TwoStep
from twostep.training.budget import LEAST, gae_share
from twostep.training.callbacks import Callback
from twostep.training.trainer import Trainer

Schedule = Literal["sequential", "by_epoch", "by_iteration"]

ALTERNATING = (
    "the two steps are trained alternately, %s each (alternate_by_epoch=False, the default of the paper's code: on a "
    "batch): the density is fitted to non-stationary embeddings, so its losses of different epochs can't be compared; "
    "sequential_training=True trains it on the final ones"
)

SCALE_ROWS = 10_000  # whose embeddings the scale of an encoder that is not trained follows from

logger = logging.getLogger("twostep")


class TwoStepTrainer:
    """Trains an autoencoder, unless it is frozen (`gae=None`), and a density on its embeddings.

    Embeddings carry the number of steps of their autoencoder. When it changes, the density is standardised again and
    continues from its best weights. Both are trained in `max_seconds`, if they are limited: the autoencoder in its
    share, the density in what is left.
    """

    def __init__(
        self,
        model: TwoStep,
        gae: Trainer | None,
        de: Trainer,
        schedule: Schedule,
        max_seconds: float | None = None,
    ) -> None:
        self.model, self.gae, self.de, self.schedule, self.max_seconds = model, gae, de, schedule, max_seconds

    @property
    def trainers(self) -> tuple[Trainer, ...]:
        """The trainers of the models that are trained."""
        return (self.de,) if self.gae is None else (self.gae, self.de)

    def fit(self, train: Batches, valid: Batches | None = None, callbacks: Sequence[Callback] = ()) -> None:
        """Train both models on the data; raises what `Trainer.fit` does."""
        for trainer in self.trainers:
            trainer.callbacks = callbacks
        if not self.model.gae.objectives() and not self.de.steps_done:  # it has statistics, and nothing that is trained
            self.model.gae.fit_transform(replace(train, data=subsample(train.data, SCALE_ROWS), rank=0, world_size=1))
        if self.max_seconds is not None:
            self._share(self.max_seconds, train)
        if self.gae is not None:
            self.gae.set_data(train, valid)
        if self.gae is not None and self.schedule != "sequential":
            self._alternate(self.gae, train, valid)
            return
        if self.gae is not None:
            self.gae.run()
        if self.schedule == "sequential" and self.de.steps_done and self._version != self.de.data_version:
            if self.de.had_all_epochs:
                self._warn_of_stale_density()
            else:
                logger.info("de: continues from its weights on new embeddings: the autoencoder was trained further")
        if self.max_seconds is not None and self.gae is not None:
            self.de.max_seconds = max(self.max_seconds - self.gae.seconds_done, 0.0)
        self._set_embeddings(train, valid, self._version)
        self._leave_time_for_density()
        self.de.run()

    def _leave_time_for_density(self) -> None:
        """Give an untrained density a fifth of the time at least, also where encoding the data took it all."""
        if self.max_seconds is None or self.de.max_seconds is None or self.de.steps_done:
            return
        least = self.de.seconds_done + LEAST * self.max_seconds
        if least > self.de.max_seconds:
            logger.warning(
                "encoding the data took %.2g of %.2g minutes (max_minutes): the density is trained for %.2g more",
                *(self.de.seconds_done / 60, self.max_seconds / 60, LEAST * self.max_seconds / 60),
            )
            self.de.max_seconds = least

    def _share(self, seconds: float, train: Batches) -> None:
        """Give each step its share of the time, which a resumed run keeps."""
        self.de.max_seconds = seconds
        if self.gae is None:
            return
        if self.gae.time_share is None:
            self.gae.time_share = gae_share(self.gae, self.de, train)
        self.gae.max_seconds = seconds * self.gae.time_share
        self.de.max_seconds = seconds - self.gae.max_seconds

    def embed(self, data: Batches) -> Batches:
        """Return batches of embeddings: by iteration, encoded when they are taken; else, encoded now, with labels."""

        def encode(x: Tensor) -> Tensor:
            with evaluating(self.model.gae):
                if self.model.gae.columns is None:
                    return self.model.gae.encode(x)
                # rows of a table: the same draws for the same batch, so that a resumed run is the same
                generator = torch.Generator(x.device).manual_seed(zlib.crc32(x.cpu().numpy().tobytes()))
                return self.model.gae.latents(x, generator)

        if self.schedule == "by_iteration":
            return replace(data, encode=encode)
        return replace(data, data=embed(encode, data.data, data.device)).labelled()

    def _set_embeddings(self, train: Batches, valid: Batches | None, version: int) -> None:
        began = time.monotonic()
        self.de.set_data(self.embed(train), None if valid is None else self.embed(valid), version)
        self.de.spend(began)

    def _alternate(self, gae: Trainer, train: Batches, valid: Batches | None) -> None:
        """Give each turn to the model that has had fewer, the autoencoder first.

        An autoencoder with more epochs than the density takes the difference first, alone: else the density would be
        one of embeddings that no longer exist. The embeddings are new when an epoch of the density begins, never
        inside of one that a resumed run finishes; at the end they are those of the final autoencoder.
        """
        de, by_epoch = self.de, self.schedule == "by_epoch"
        logger.warning(ALTERNATING, "for an epoch" if by_epoch else "on a batch")
        if not gae.finished and de.had_all_epochs:
            self._warn_of_stale_density()
        if gae.finished:
            gae.use_best()
        self._set_embeddings(train, valid, de.data_version)
        first = max(0, gae.max_epochs - gae.first_epoch - de.max_epochs)
        while not (gae.finished and de.finished and de.data_version == self._version):
            epochs, batches = self._turns(gae)
            if not gae.finished and (de.finished or (epochs - first, batches) <= self._turns(de)):
                gae.run_epoch() if by_epoch else gae.advance()
                continue
            if de.batches_done == 0:
                self._set_embeddings(train, valid, self._version)
            elif de.data_version != self._version:
                de.refit_transform()
            if not de.finished:
                de.run_epoch() if by_epoch else de.advance()
        de.use_best()

    def _turns(self, trainer: Trainer) -> tuple[int, int]:
        """Epochs of this run and, by iteration, batches; an epoch's last batch counts when the epoch has ended."""
        batches = 0 if self.schedule == "by_epoch" else min(trainer.batches_done, len(trainer.data) - 1)
        return trainer.epochs_done - trainer.first_epoch, batches

    @property
    def _version(self) -> int:
        """Number that identifies a state of the autoencoder."""
        return 0 if self.gae is None else self.gae.steps_done

    def _warn_of_stale_density(self) -> None:
        logger.warning(
            "de: has had its %d epochs, on embeddings from before the autoencoder was trained further: "
            "raise --max-epochs-loaded-de too",
            self.de.epochs_done,
        )
