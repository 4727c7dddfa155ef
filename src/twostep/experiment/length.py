"""Was a model trained for long enough, or too long? By its validation metric over epochs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from twostep.core.result import Result
from twostep.training.trainer import Trainer

LEAST = 10  # epochs
IMPROVING = 0.03  # of the gain of all epochs, which the second half of them still brought
WORSE = 0.1  # of that gain, which the last epochs lost again

logger = logging.getLogger("twostep")

Verdict = Literal["undertrained", "overfitted"]

ADVICE: dict[Verdict, str] = {
    "undertrained": "undertrained: {metric} of validation rows was still improving at the last of {epochs} epochs; "
    "raise max_epochs, max_steps or max_minutes",
    "overfitted": "overfitted: {metric} of validation rows was best after epoch {best} of {epochs} and is worse now; "
    "set early_stopping_metric={metric}, or train for fewer epochs",
}


def judge(values: Sequence[float], keeps_best: bool) -> Verdict | None:
    """Judge the values of a metric by epoch, the lower the better; None: long enough, or too few epochs.

    Args:
        keeps_best: whether the weights of the best epoch are kept, so that later ones do no harm.
    """
    n = len(values)
    if n < LEAST:
        return None
    best = min(range(n), key=values.__getitem__)
    gain = values[0] - values[best]
    if not gain > 0:
        return None
    if not keeps_best and values[-1] - values[best] > WORSE * gain:
        return "overfitted"
    if best >= n - max(1, n // 10) and values[n // 2] - values[best] > IMPROVING * gain:
        return "undertrained"
    return None


def comment_lengths(results: Mapping[str, dict[str, Result]], trainers: Sequence[Trainer]) -> None:
    """Warn where a training was too short or too long, and note it in the first result of its model."""
    for trainer in trainers:
        text, found = _comment(trainer), results[trainer.name]
        if text:
            logger.warning("%s: %s", trainer.label, text)
            for name in [*found][:1]:
                found[name] = replace(found[name], note="; ".join(filter(None, (found[name].note, text))))


def _comment(trainer: Trainer) -> str:
    """Return what is to be said; nothing of an energy-based model, whose loss does not measure its fit."""
    metric = trainer.keys.early_stopping_metric
    if trainer.stopped_early or (metric is None and getattr(trainer.model, "likelihood", "") == "unnormalised"):
        return ""
    name, sign = metric or "loss", 1 if trainer.lower_is_better else -1
    values = [sign * epoch["valid"][name] for epoch in trainer.history if name in epoch["valid"]]
    found = judge(values, keeps_best=metric is not None)
    if found is None:
        return ""
    best = 1 + min(range(len(values)), key=values.__getitem__)
    return ADVICE[found].format(metric=name, epochs=len(values), best=best)
