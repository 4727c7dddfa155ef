"""Validation loss by epoch of `vae` and `avb` over where the decoder's single std σ comes from, in nats.

| name | σ |
|---|---|
| parameter | a free parameter log σ that starts at 0 and is moved by Adam |
| spread | the same, started at the root mean square of the transformed data about their mean |
| errors, d | closed form: σ² is a running mean of the squared error, with decay d (0: that of the batch) |
| decoder | an output of the decoder for each latent, as in the reference |
| calibrated | that times a number in closed form, the default |

Everything else is as by default: the network, Adam, the batch of 128, the noise. The figure is the mean negative
evidence bound of validation rows in the space of the transformed data: one draw for `vae`, the importance bound of one
draw of the fitted Gaussian for `avb`. "embeddings" are those of a `vae` with defaults, trained for as many epochs on
the same rows.

    TWOSTEP_DATA=... python benchmarks/sigma.py [--rows 10000] [--epochs 10] [--models vae avb] [--only digits-gae]
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from twostep.core.schema import DataSpec
from twostep.data.load import load_data
from twostep.models import MODELS
from twostep.models.base import Model, ModelConfig, Role, evaluating
from twostep.models.parts.gaussian_decoder import GaussianDecoder
from twostep.models.two_step import latent_spec
from twostep.nn.distributions import normal_log_prob
from twostep.training.optim import build_optimizer, clip, cosine, set_rate

BATCH = 128
SHOWN = (1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 50)
CANDIDATES = ("parameter", "spread", "errors, 0", "errors, 0.9", "errors, 0.99", "decoder", "calibrated")


class Errors:
    """A running mean of squared errors as σ², in place of a model's own σ."""

    def __init__(self, model: GaussianDecoder, decay: float) -> None:
        self.model, self.decay = model, decay
        self.total, self.weight, self.seen = torch.zeros(()), torch.zeros(()), torch.ones(())
        model.log_likelihood = self.log_likelihood

    def log_likelihood(self, y: Tensor, z: Tensor) -> Tensor:
        squares = (y - self.model.decoder(z)).square()
        if self.model.training:
            self.seen = squares.detach().mean()
            if not self.decay:
                return normal_log_prob(squares, 0.5 * squares.mean().log())
        variance = self.total / self.weight if self.weight else torch.ones(())
        return normal_log_prob(squares, 0.5 * variance.log())

    def step(self) -> None:
        kept = self.decay or 0.99
        self.total = kept * self.total + (1 - kept) * self.seen
        self.weight = kept * self.weight + (1 - kept)


def built(
    name: str, spec: DataSpec, role: Role, train: Tensor, candidate: str, **keys: Any
) -> tuple[Model, Errors | None]:
    torch.manual_seed(0)
    source = candidate if candidate in ("decoder", "calibrated") else "parameter"
    config = MODELS[name].for_data(spec, role, single_sigma=True, sigma_from=source, **keys)
    model = config.build(spec)
    model.config = config
    model.fit_transform(train.float().split(1000))
    if candidate.startswith("errors"):
        return model, Errors(model, float(candidate.split(", ")[1]))
    if candidate == "spread":
        y = model.transform(train.float()).flatten(1)
        nn.init.constant_(model.log_sigma, 0.5 * math.log(float((y - y.mean(0)).square().mean())))
    return model, None


def trained(model: Model, errors: Errors | None, train: Tensor, epochs: int) -> Iterator[None]:
    """Train, and stop after every epoch."""
    config: ModelConfig = model.config
    rates, objectives = config.optimizers(), model.objectives()
    optimizers = [build_optimizer(config.optimizer, one.parameters, rates[one.name]) for one in objectives]
    generator = torch.Generator().manual_seed(1)
    step, steps = 0, epochs * -(-len(train) // BATCH)
    for _ in range(epochs):
        model.train()
        for rows in torch.randperm(len(train), generator=generator).split(BATCH):
            for objective, optimizer in zip(objectives, optimizers, strict=True):
                if step % objective.every:
                    continue
                set_rate(optimizer, cosine(rates[objective.name], step / steps))
                optimizer.zero_grad()
                objective.loss(train[rows].float()).backward(inputs=list(objective.parameters))
                clip(objective.parameters, config.max_grad_norm or math.inf)
                optimizer.step()
                if objective.after:
                    objective.after(lambda rows: rows)
            if errors:
                errors.step()
            step += 1
        yield


def figure(model: GaussianDecoder, valid: Tensor) -> float:
    with evaluating(model):
        torch.manual_seed(2)
        x = model.noise.dequantize(valid.float())
        bound = torch.cat([model.log_prob(part) for part in x.split(1000)])
        return float((model.transform.log_abs_det_jacobian(x) - bound).mean())


def embeddings(train: Tensor, valid: Tensor, spec: DataSpec, epochs: int) -> tuple[Tensor, Tensor, DataSpec]:
    model, errors = built("vae", spec, "gae", train, "calibrated")
    for _ in trained(model, errors, train, epochs):
        pass
    with evaluating(model):
        codes = [torch.cat([model.encode(part.float()) for part in rows.split(1000)]) for rows in (train, valid)]
    return codes[0], codes[1], latent_spec(spec, 20)


def cases(rows: int, epochs: int | None, wanted: Callable[[str], bool]) -> Iterator[tuple[Any, ...]]:
    for dataset, usual in (("digits", 50), ("fashion-mnist", 10)):
        if not any(wanted(f"{dataset}-{what}") for what in ("gae", "alone", "embeddings")):
            continue
        splits, count = load_data(dataset), epochs or usual
        train, valid = splits.train[: rows or None], splits.valid[:5000]
        spec = splits.spec.model_copy(update={"size": len(train)})
        for what, role in (("gae", "gae"), ("alone", "de"), ("embeddings", "de")):
            if wanted(f"{dataset}-{what}"):
                data = embeddings(train, valid, spec, count) if what == "embeddings" else (train, valid, spec)
                yield f"{dataset}, {what}", count, role, *data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000, help="training rows; 0: all")
    parser.add_argument("--epochs", type=int, help="of fashion-mnist 10, of digits 50 by default")
    parser.add_argument("--models", nargs="+", default=["vae", "avb"], choices=["vae", "avb"])
    parser.add_argument("--only", nargs="+", help="like digits-gae, fashion-mnist-alone, digits-embeddings")
    parser.add_argument("--candidates", nargs="+", default=CANDIDATES, choices=CANDIDATES)
    given = parser.parse_args()
    for title, epochs, role, train, valid, spec in cases(
        given.rows, given.epochs, lambda case: given.only is None or case in given.only
    ):
        shown = sorted({epoch for epoch in SHOWN if epoch < epochs} | {epochs})
        for name in given.models:
            print(f"\n{name}, {title}, {len(train):,} rows\n| σ | " + " | ".join(map(str, shown)) + " |", flush=True)
            for candidate in given.candidates:
                model, errors = built(name, spec, role, train, candidate)
                passed = [figure(model, valid) for _ in trained(model, errors, train, epochs)]
                print(
                    f"| {candidate} | " + " | ".join(f"{passed[epoch - 1]:.2f}" for epoch in shown) + " |", flush=True
                )


if __name__ == "__main__":
    main()
