"""What our defaults gain over those of the paper's code: the figures that the model files give, on validation rows.

The ARM's rows are short runs of a small network, one seed each. Needs fashion-mnist and cifar10 (TWOSTEP_DATA).

    python benchmarks/defaults.py
"""

from __future__ import annotations

import itertools
import math
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from twostep.data.load import load_data
from twostep.experiment.experiment import Experiment
from twostep.experiment.prepare import start
from twostep.models.base import evaluating
from twostep.models.bigan import BiGAN
from twostep.models.wae import WAE
from twostep.runs.overrides import Request

ROWS = 10_000
SECONDS = 120
NETS, SIZES = ("encoder", "decoder"), ("kernel_size", "stride")


def trained(
    folder: str,
    dataset: str,
    models: dict[str, str],
    run: dict[str, Any] | None = None,
    is_gae: bool = False,
    **keys: Any,
):
    overrides = {"run": {"dataset": dataset, "logdir_root": folder, **(run or {})}, **keys}
    experiment = start(Request(models, overrides, is_gae))
    experiment.fit()
    experiment.run.close()
    return experiment


def valid_losses(experiment: Experiment, part: str) -> list[float]:
    (trainer,) = (one for one in experiment.trainers if one.name == part)
    return [epoch["valid"]["loss"] for epoch in trainer.history]


def flow_on_embeddings(folder: str) -> None:
    for keys in ({}, {"tail_bound": 1.0}):
        stays = {"early_stopping_metric": None, "max_epochs": 60, **keys}
        experiment = trained(folder, "digits", {"gae": "vae", "de": "flow"}, de=stays)
        losses = valid_losses(experiment, "de")
        print(f"flow on a VAE's embeddings of digits, {keys or 'our defaults'}: validation loss", end=" ")
        print(
            f"{min(losses):.1f} at its best (epoch {losses.index(min(losses)) + 1}), {losses[-1]:.1f} after 60 epochs",
            flush=True,
        )


def arm_on_digits(folder: str) -> None:
    def bits(epochs: int, size: int, **keys: Any) -> float:
        small = {"hidden_size": 128, "num_layers": 1, "max_epochs": epochs, "early_stopping_metric": None}
        experiment = trained(folder, "digits", {"model": "arm"}, {"train_batch_size": size}, model={**small, **keys})
        valid, model = experiment.splits.valid, experiment.module
        assert valid is not None
        with evaluating(model):
            torch.manual_seed(0)
            nats = model.log_prob(valid.float()).mean().item()  # type: ignore[operator]
        return -nats / model.dim / math.log(2)

    for rate in (1e-3, 3e-3):
        found = bits(48, 64, lr=rate)
        print(f"arm on digits, about 1,000 steps of 64, lr={rate:g}: {found:.2f} bits/dim", flush=True)
    for keys in ({"whitening_transform": True}, {"whitening_transform": False, "scale_data": True}):
        found = bits(27, 128, lr=1e-3, **keys)
        print(f"arm on digits, about 300 steps of 128, lr=0.001, {keys}: {found:.2f} bits/dim", flush=True)


def arm_on_images(folder: str) -> None:
    splits = load_data("mnist", make_valid=False)
    halved = (avg_pool2d(part.float(), 2).round().byte() for part in (splits.train[:6000], splits.test[:1000]))
    rows = Path(folder) / "halved.npz"
    np.savez(rows, **dict(zip(("train", "test"), (part.squeeze(1).numpy() for part in halved), strict=True)))
    for context in (0, 2):
        keys = {"hidden_size": 128, "num_layers": 1, "max_epochs": 8, "context": context}
        loss = valid_losses(trained(folder, str(rows), {"model": "arm"}, model=keys), "model")[-1]
        print(f"arm on mnist at 14 x 14, 6,000 rows, 8 epochs, context={context}: loss {loss:.0f} nats", flush=True)


def rows_in(folder: str, name: str) -> Path:
    rows = Path(folder) / f"{name}.npz"
    if not rows.exists():
        splits = load_data(name)
        parts = {"train": splits.train[:ROWS], "test": splits.test[:2000]}
        np.savez(rows, **{split: data.movedim(1, -1).squeeze(-1).numpy() for split, data in parts.items()})
    return rows


def densities_on_embeddings(folder: str) -> None:
    clothes = rows_in(folder, "fashion-mnist")
    gae = {"max_epochs": 15}
    for rate in (1e-3, 3e-3):
        keys = {"max_epochs": 17, "lr": rate, "early_stopping_metric": None}
        experiment = trained(folder, str(clothes), {"gae": "vae", "de": "arm"}, gae=gae, de=keys)
        loss = valid_losses(experiment, "de")[-1]
        print(f"arm on a VAE's embeddings of clothes, about 1,200 steps, lr={rate:g}: loss {loss:.1f} nats", flush=True)
    samples_on_embeddings(folder, "digits", {"gae": "vae", "de": "avb"}, {})
    pairs = (("ae", "vae"), ("vae", "avb"), ("ae", "ebm"), ("vae", "ebm"))
    for models in ({"gae": gae_name, "de": de_name} for gae_name, de_name in pairs):
        samples_on_embeddings(folder, str(clothes), models, gae)


def samples_on_embeddings(folder: str, dataset: str, models: dict[str, str], gae: dict[str, Any]) -> None:
    """Compare samples with validation embeddings, beside those of one full Gaussian and training embeddings."""
    for preset in ("twostep", "reference"):
        experiment = trained(folder, dataset, models, gae=gae, de={"preset": preset})
        gae_model, de = experiment.module.gae, experiment.module.de  # type: ignore[union-attr]
        assert experiment.splits.valid is not None
        with evaluating(gae_model, de):
            z, known = (gae_model.encode(rows.float()) for rows in (experiment.splits.valid, experiment.splits.train))
            samples = de.sample(4000, torch.Generator().manual_seed(0))
        torch.manual_seed(0)
        gaussian = torch.distributions.MultivariateNormal(known.mean(0), known.T.cov()).sample((4000,))
        distances = [energy_distance(z / z.std(0), points / z.std(0)) for points in (samples, gaussian, known[:4000])]
        print(f"{models['de']} on the {models['gae']}'s embeddings of {Path(dataset).stem}, preset={preset}:", end=" ")
        print(
            "energy distance {:.4f}, of a full Gaussian {:.4f}, of training rows {:.4f}".format(*distances), flush=True
        )


def ebm_on_images(folder: str) -> None:
    """Compare samples with images: the energy distance, and the distance to the nearest training image."""
    for preset in ("twostep", "reference"):
        experiment = trained(folder, "digits", {"model": "ebm"}, model={"preset": preset})
        train, test = (rows.flatten(1).float() / 16 for rows in (experiment.splits.train, experiment.splits.test))
        model = experiment.module
        with evaluating(model):
            samples = model.sample(1000, torch.Generator().manual_seed(0)).flatten(1).clamp(0, 16) / 16  # type: ignore[operator]
        near = [float(torch.cdist(points, train).min(1).values.median()) for points in (samples, test)]
        print(f"ebm on digits, preset={preset}: energy distance {energy_distance(test, samples):.3f};", end=" ")
        print("median distance to the training set {:.2f}, of test rows {:.2f}".format(*near), flush=True)


def strides(folder: str) -> None:
    sets = (("wae", rows_in(folder, "fashion-mnist")), ("ae", rows_in(folder, "cifar10")))
    for (name, rows), (kernel, stride) in itertools.product(sets, ((3, 1), (3, 2), (4, 2))):
        run = {"dataset": str(rows), "logdir_root": folder}
        keys = {f"{net}_{key}": kernel if key == "kernel_size" else stride for net in NETS for key in SIZES}
        experiment = start(Request({"model": name}, {"run": run, "model": keys}, is_gae=True))
        trainer, valid = experiment.trainer, experiment.splits.valid
        assert valid is not None
        trainer.set_data(
            experiment.evaluator.batches(experiment.splits.train, 128), experiment.evaluator.batches(valid, 128)
        )
        began = time.process_time()
        while time.process_time() - began < SECONDS:
            trainer.advance()
        experiment.run.close()
        with evaluating(trainer.model):
            errors = torch.cat([trainer.model.reconstruction_error(rows.float()) for rows in valid.split(128)])  # type: ignore[operator]
        print(f"{name} on {rows.stem}, kernel {kernel}, stride {stride}: error {errors.mean() / 255**2:.2f}", end=" ")
        print(f"after {SECONDS} s of CPU time ({trainer.steps_done} steps)", flush=True)


def adversaries_on_small_sets(folder: str) -> None:
    def share(errors: Tensor, x: Tensor) -> float:
        return float(errors.mean() / x.var(0).sum())

    for dataset, epochs in (("two_moons", 40), ("digits", 200)):
        for preset in ("twostep", "reference"):
            keys = {"preset": preset, "max_epochs": epochs, "early_stopping_metric": None}
            experiment = trained(folder, dataset, {"model": "bigan"}, is_gae=True, model=keys)
            model, valid = cast(BiGAN, experiment.module), cast(Tensor, experiment.splits.valid).float()
            z = 2 * torch.rand(1000, model.latent_dim, generator=torch.Generator().manual_seed(0)) - 1
            with evaluating(model):
                codes = share((model.encode(model.decode(z)) - z).square().sum(1), z)
                points = share(model.reconstruction_error(valid), valid)
            print(f"bigan on {dataset}, {epochs} epochs, preset={preset}: errors as shares of the variance:", end=" ")
            print(f"{points:.3f} of g(f(x)), {codes:.3f} of f(g(z))", flush=True)
    for weight in (10 * 64 / 784, 10.0):
        keys = {"penalty_weight": weight, "max_epochs": 50, "early_stopping_metric": None}
        experiment = trained(folder, "digits", {"model": "wae"}, is_gae=True, model=keys)
        model, valid = cast(WAE, experiment.module), cast(Tensor, experiment.splits.valid).float()
        with evaluating(model):
            z, points = model.encode(valid), share(model.reconstruction_error(valid), valid)
        torch.manual_seed(0)
        print(f"wae on digits, 50 epochs, penalty_weight={weight:.2g}: error {points:.3f} of the variance,", end=" ")
        print(f"energy distance of embeddings to the prior {energy_distance(z, torch.randn_like(z)):.3f}", flush=True)


def energy_distance(one: Tensor, other: Tensor) -> float:
    def inside(points: Tensor) -> Tensor:
        return torch.cdist(points, points).sum() / len(points) / (len(points) - 1)

    return float(2 * torch.cdist(one, other).mean() - inside(one) - inside(other))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        flow_on_embeddings(folder)
        arm_on_digits(folder)
        arm_on_images(folder)
        densities_on_embeddings(folder)
        strides(folder)
        adversaries_on_small_sets(folder)
        ebm_on_images(folder)


if __name__ == "__main__":
    main()
