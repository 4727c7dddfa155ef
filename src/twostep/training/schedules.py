"""In which order the two steps are trained: each schedule is a function over two trainers.

`sequential` is the method of the paper. The two others train both steps in turn, as its code offers too: the density
then chases embeddings that move. Its standardisation follows them, and it begins so late that its last epochs are the
autoencoder's.

A frozen autoencoder has no trainer.
"""

from __future__ import annotations

from collections.abc import Callable

from twostep.data.batches import Batches
from twostep.training.trainer import Trainer

Embed = Callable[[], tuple[Batches, Batches | None]]
Schedule = Callable[[Trainer | None, Trainer, Embed], None]


def sequential(gae: Trainer | None, de: Trainer, embed: Embed) -> None:
    """Train the autoencoder fully, then the density on its embeddings.

    Args:
        gae: trainer of the autoencoder; None if it is frozen.
        de: trainer of the density.
        embed: gives training and validation embeddings by the autoencoder as it is when called.
    """
    if gae is not None:
        gae.fit()
    de.use(*embed(), version=_version(gae))
    de.fit()


def by_epoch(gae: Trainer | None, de: Trainer, embed: Embed) -> None:
    """Train each for an epoch in turn, the density on embeddings that are made anew for each of its epochs.

    Args:
        gae: as in `sequential`.
        de: as in `sequential`.
        embed: as in `sequential`.
    """
    _take_turns(gae, de, embed, lambda trainer: (trainer.turns[0], 0), Trainer.run_epoch)


def by_iteration(gae: Trainer | None, de: Trainer, embed: Embed) -> None:
    """Train each on a batch in turn, the density on embeddings of its batch that are made when it comes.

    Args:
        gae: as in `sequential`.
        de: as in `sequential`.
        embed: gives batches that the autoencoder encodes, as it then is, when they are taken.
    """
    _take_turns(gae, de, embed, lambda trainer: trainer.turns, Trainer.advance)


def _take_turns(
    gae: Trainer | None,
    de: Trainer,
    embed: Embed,
    had: Callable[[Trainer], tuple[int, int]],
    take_turn: Callable[[Trainer], None],
) -> None:
    """Let whoever has had fewer turns take the next, the autoencoder first.

    An autoencoder that has more epochs than the density takes those alone, before: a density that is trained no more
    would be one of embeddings that are gone. The density's data are new when an epoch of it begins, never inside of one
    that a resumed run finishes; at the end they are those of the autoencoder as it then is.
    """
    if gae is None:
        sequential(gae, de, embed)
        return
    if gae.finished:
        gae.use_best()
    de.use(*embed(), version=de.data_version)
    alone = max(0, gae.max_epochs - gae.first_epoch - de.max_epochs)
    while not (gae.finished and de.finished and de.data_version == _version(gae)):
        epochs, batches = had(gae)
        if not gae.finished and (de.finished or (epochs - alone, batches) <= had(de)):
            take_turn(gae)
            continue
        if de.batches_done == 0:
            de.use(*embed(), version=_version(gae))
        elif de.data_version != _version(gae):
            de.follow()
        if not de.finished:
            take_turn(de)
    de.use_best()


def _version(gae: Trainer | None) -> int:
    """Number that tells one state of an autoencoder from another."""
    return 0 if gae is None else gae.steps_done


SCHEDULES: dict[str, Schedule] = {"sequential": sequential, "by_epoch": by_epoch, "by_iteration": by_iteration}
