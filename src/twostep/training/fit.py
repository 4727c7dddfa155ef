"""`twostep.fit`: train a model on an array, without a config or a run directory.

gae = twostep.fit(Autoencoder(encoder, decoder, latent_dim=2), x, max_epochs=50)
de = twostep.fit(Flow(layers, (2,)), gae.encode(x), lr=5e-4)
TwoStep(gae, de).log_prob(x)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor

from twostep.core.keys import FitKeys, with_epochs_for_steps
from twostep.core.schema import UserError
from twostep.core.seeds import derive
from twostep.data.batches import EMBED_ROWS, Batches
from twostep.models.base import DensityEstimator, Model, OptimizerConfig, evaluating
from twostep.training.callbacks import Callback
from twostep.training.engine import Device, Engine
from twostep.training.trainer import Trainer

AnyModel = TypeVar("AnyModel", bound=Model)
Data = Tensor | NDArray[Any]


def fit(
    model: AnyModel,
    data: Data,
    *,
    y: Data | None = None,
    valid: Data | float | None = 0.1,
    lr: float | Mapping[str, float] = 1e-3,
    use_lr_scheduler: bool = False,
    batch_size: int = 128,
    max_minutes: float | None = None,
    seed: int = 0,
    device: Device = "auto",
    callbacks: Sequence[Callback] = (),
    **keys: Any,
) -> AnyModel:
    """Train a model on rows of data, and return it in eval mode.

    Where there are validation rows, training stops early and returns the weights with the lowest validation loss
    (`early_stopping_metric=None` turns that off). A density without a loss, as `GaussianMixture`, is fitted to all rows
    at once.

    Args:
        model: an autoencoder or a density.
        data: training rows, `(N, *S)`.
        y: numbers of their labels, `(N,)`, for a density that is conditioned on labels.
        valid: validation rows, with labels as their last coordinate if there are any, or the share of `data` to hold
            out as such; None: none.
        lr: learning rate, or that of each objective by its name.
        use_lr_scheduler: whether rates decay to 0 over all steps by a half cosine.
        batch_size: rows of a batch.
        max_minutes: minutes of training at most; None: no limit.
        seed: of batches, noise and held-out rows.
        device: where to train; the model stays there.
        callbacks: called during training.
        **keys: of `FitKeys`: `optimizer`, `max_epochs`, `max_steps`, `max_grad_norm`, `early_stopping_metric`,
            `max_bad_valid_epochs`.

    Raises:
        UserError: for an unknown key, a value out of range, or data that can't be used.
        NonFiniteLossError: at the first step, or the first validation, whose loss is not finite.
    """
    data, shape = _with_labels(model, torch.as_tensor(data), y)
    rows, held_out = _split(data, valid, seed, shape, model.columns is not None)
    fit_keys = FitKeys.parse({"early_stopping_metric": None if held_out is None else "loss", **keys}, "fit")
    stop = fit_keys.early_stopping_metric
    if stop not in (None, "loss") or (stop is not None and held_out is None):
        raise UserError(f"early_stopping_metric={stop}: fit can stop by the loss of validation rows, or None")
    if batch_size < 1:
        raise UserError(f"batch_size={batch_size}: must be positive")
    if max_minutes is not None and not max_minutes > 0:
        raise UserError(f"max_minutes={max_minutes}: must be positive")
    names = [objective.name for objective in model.objectives()]
    if not names:
        return _fitted_at_once(model, data, Engine(device), seed)
    rates = dict(lr) if isinstance(lr, Mapping) else dict.fromkeys(names, lr)
    if set(rates) != set(names) or any(rate <= 0 for rate in rates.values()):
        raise UserError(f"lr: give a positive rate, or one for each of {', '.join(names)}")
    engine = Engine(device)
    optimizers = {name: OptimizerConfig(rate, use_lr_scheduler) for name, rate in rates.items()}

    def validate(_: Batches, batches: Batches) -> dict[str, float]:
        objective = model.objectives()[-1]
        with evaluating(model), torch.random.fork_rng([]):
            engine.seed(derive(seed, "valid"))
            total = sum(float(objective.loss(x)) * len(x) for x in batches)
        return {"loss": total / len(batches.data)}

    size = min(batch_size, len(rows))
    fit_keys = with_epochs_for_steps(fit_keys, keys, -(-len(rows) // size))
    trainer = Trainer("model", model, fit_keys, optimizers, engine, validate, seed)
    trainer.max_seconds = None if max_minutes is None else 60 * max_minutes
    train = Batches(rows, size, device=engine.device)
    trainer.fit(train, None if held_out is None else replace(train, data=held_out), callbacks)
    return model.eval()


def _with_labels(model: Model, data: Tensor, y: Data | None) -> tuple[Tensor, tuple[int, ...]]:
    """Return training rows as a model takes them, with labels if it has such, and their shape."""
    labels = model.labels if isinstance(model, DensityEstimator) else 0
    if not labels:
        if y is not None:
            raise UserError("fit: the model is not conditioned on labels: leave out y")
        return data, model.event_shape
    numbers = torch.as_tensor(y if y is not None else [])
    if numbers.shape != data.shape[:1] or data.dim() != 2 or bool(((numbers < 0) | (numbers >= labels)).any()):
        raise UserError(f"fit: give y, the number of the label of each of {len(data)} rows, from 0 to {labels - 1}")
    batches = Batches(data, EMBED_ROWS, labels=numbers).labelled()
    return batches.data[:], (model.dim + 1,)


def _fitted_at_once(model: AnyModel, rows: Tensor, engine: Engine, seed: int) -> AnyModel:
    model.to(engine.device)
    engine.seed(derive(seed, "fit"))
    model.fit_transform(Batches(rows, EMBED_ROWS, device=engine.device))
    return model.eval()


def _split(
    data: Tensor, valid: Data | float | None, seed: int, shape: tuple[int, ...], gaps: bool
) -> tuple[Tensor, Tensor | None]:
    """Return training and validation rows; `gaps`: of a table, in which values may be missing (NaN)."""
    if valid is None or not isinstance(valid, float | int):
        rows, held_out = data, None if valid is None else torch.as_tensor(valid)
    elif 0 < valid < 1:
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(derive(seed, "held out")))
        count = max(1, round(valid * len(data)))
        rows, held_out = data[order[count:].sort().values], data[order[:count].sort().values]
    else:
        raise UserError(f"valid={valid}: give a share between 0 and 1, rows, or None")
    for part in (rows, *(() if held_out is None else (held_out,))):
        if not len(part) or tuple(part.shape[1:]) != shape:
            wanted = "x".join(map(str, ("N", *shape)))
            raise UserError(f"fit: rows must have the shape {wanted}, with N > 0, not {tuple(part.shape)}")
        finite = ~part.isinf() if gaps else part.isfinite()
        if part.is_floating_point() and not finite.all():
            raise UserError("fit: the data hold numbers that are not finite")
    return rows, held_out
