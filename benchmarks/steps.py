"""Time of a whole epoch here, per batch, against a bare loop of the same network and loss.

The bare step is forward, backward, gradient clipping and `torch.optim.Adam` with its default options, eager, on one
fixed batch. Ours is everything that a run does: data, noise, checks, logs, validation, checkpoint. Both are timed in
turn, in one process; the ratio is the median of the ratios of neighbours, since the machine's speed drifts.

    TWOSTEP_DATA=<folder of data sets> python benchmarks/steps.py [--rounds 9]
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from twostep.data.batches import Batches
from twostep.experiment import Experiment
from twostep.launch import start
from twostep.models import MODELS
from twostep.models.two_step import latent_spec
from twostep.request import Request

BATCH = 128
LIMITS = {"ae": 0.95, "vae": 0.95, "flow on embeddings": 1.0, "wae": 0.8, "bigan": 1.0}


class BareVAE(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 40))
        self.decoder = nn.Sequential(nn.Linear(20, 256), nn.ReLU(), nn.Linear(256, 784))
        self.log_sigma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        mean, log_std = self.encoder(x).chunk(2, dim=1)
        z = mean + log_std.exp() * torch.randn_like(mean)
        kl = 0.5 * (mean**2 + (2 * log_std).exp() - 1 - 2 * log_std).sum(1)
        log_prob = torch.distributions.Normal(self.decoder(z), self.log_sigma.exp()).log_prob(x).sum(1)
        return (kl - log_prob).mean()


class BareAE(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 20))
        self.decoder = nn.Sequential(nn.Linear(20, 256), nn.ReLU(), nn.Linear(256, 784))

    def forward(self, x: Tensor) -> Tensor:
        return ((x - self.decoder(self.encoder(x))) ** 2).sum(1).mean()


class BareWAE(nn.Module):
    """Convolutions of stride 2, as by default."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in pairwise((1, 64, 64, 32, 32)):
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.ReLU()]
        self.encoder = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128, 20))
        layers = [nn.Linear(20, 128), nn.Unflatten(1, (32, 2, 2))]
        for (before, after), even in zip(pairwise((32, 32, 64, 64, 1)), (1, 0, 1, 1), strict=True):
            layers += [nn.ReLU(), nn.ConvTranspose2d(before, after, 3, 2, 1, even)]
        self.decoder = nn.Sequential(*layers)
        self.critic = nn.Sequential(nn.Linear(20, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 1))

    def critic_loss(self, x: Tensor) -> Tensor:
        z = self.encoder(x)
        return (softplus(-self.critic(torch.randn_like(z))) + softplus(self.critic(z))).mean()

    def loss(self, x: Tensor) -> Tensor:
        z = self.encoder(x)
        return ((x - self.decoder(z)) ** 2).flatten(1).sum(1).mean() + 10 * softplus(-self.critic(z)).mean()


class BareBiGAN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 20))
        self.decoder = nn.Sequential(nn.Linear(20, 256), nn.ReLU(), nn.Linear(256, 784))
        self.critic = nn.Sequential(nn.Linear(804, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 1))

    def pairs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = 2 * torch.rand(len(x), 20) - 1
        return torch.cat([x, self.encoder(x)], 1), torch.cat([self.decoder(z), z], 1)

    def critic_loss(self, x: Tensor) -> Tensor:
        data, drawn = self.pairs(x)
        share = torch.rand(len(x), 1)
        between = (share * data.detach() + (1 - share) * drawn.detach()).requires_grad_()
        (slope,) = torch.autograd.grad(self.critic(between).sum(), between, create_graph=True)
        return (self.critic(drawn) - self.critic(data)).mean() + 10 * ((slope.norm(dim=1) - 1) ** 2).mean()

    def loss(self, x: Tensor) -> Tensor:
        data, drawn = self.pairs(x)
        error = ((x - self.decoder(self.encoder(x))) ** 2).sum(1).mean()
        return (self.critic(data) - self.critic(drawn)).mean() + error


def bare_game(module: BareWAE | BareBiGAN, x: Tensor, every: int) -> Callable[[], None]:
    """Return steps of the critic, with one of the others after every n-th; each loss's whole graph is gone through."""
    judge, players = [*module.critic.parameters()], [*module.encoder.parameters(), *module.decoder.parameters()]
    steps = [(module.critic_loss, judge, torch.optim.Adam(judge)), (module.loss, players, torch.optim.Adam(players))]
    taken = itertools.count(1)

    def step() -> None:
        turns = steps if next(taken) % every == 0 else steps[:1]
        for loss, parameters, optimizer in turns:
            module.zero_grad()
            loss(x).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 10.0)
            optimizer.step()

    return step


def bare_step(module: nn.Module, loss: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        loss(x).backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 10.0)
        optimizer.step()

    return step


def seconds_a_batch(step: Callable[[], None], steps: int) -> float:
    began = time.perf_counter()
    for _ in range(steps):
        step()
    return (time.perf_counter() - began) / steps


def epoch(experiment: Experiment, part: str, train: Batches, valid: Batches | None) -> Callable[[], None]:
    trainer = experiment.trainers[part]
    trainer.use(train, valid)
    return trainer.run_epoch


def prepare(folder: str, name: str) -> tuple[Experiment, Callable[[], None], Callable[[], None], int]:
    """Return the run, a whole epoch of it, a bare step, and the number of batches of that epoch."""
    run = {"dataset": "fashion-mnist", "logdir_root": folder}
    if name != "flow on embeddings":
        experiment = start(Request({"model": name}, {"run": run}, is_gae=True))
        train = experiment.batches(experiment.splits.train, BATCH)
        assert experiment.splits.valid is not None
        ours = epoch(experiment, "model", train, experiment.batches(experiment.splits.valid, BATCH))
        x = next(iter(train)) / 255
        if name == "wae":
            return experiment, ours, bare_game(BareWAE(), x, every=1), len(train)
        x = x.flatten(1)
        if name == "bigan":
            return experiment, ours, bare_game(BareBiGAN(), x, every=2), len(train)
        bare = {"ae": BareAE, "vae": BareVAE}[name]()
        return experiment, ours, bare_step(bare, bare, x), len(train)
    experiment = start(Request({"gae": "ae", "de": "flow"}, {"run": run}))
    latents = torch.randn(len(experiment.splits.train), 20)
    train = experiment.batches(latents, BATCH)
    ours = epoch(experiment, "de", train, experiment.batches(latents[:6000], BATCH))
    spec = latent_spec(experiment.splits.spec, 20)
    flow = MODELS["flow"].for_data(spec, "de").build(spec)
    (objective,) = flow.objectives()
    return experiment, ours, bare_step(flow, objective.loss, next(iter(train))), len(train)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rows", nargs="*", default=list(LIMITS))
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, batch {BATCH}")
    print(f"{'work':22}{'bare step, ms':>15}{'whole epoch, ms a batch':>26}{'ratio':>8}{'limit':>8}")
    for name in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            experiment, ours, bare, batches = prepare(folder, name)
            seconds_a_batch(bare, 20)
            seconds_a_batch(ours, 1)
            bare_times, our_times = [], []
            for _ in range(options.rounds):
                bare_times.append(seconds_a_batch(bare, batches))
                our_times.append(seconds_a_batch(ours, 1) / batches)
            experiment.run.close()
            ratio = statistics.median(our / bare for our, bare in zip(our_times, bare_times, strict=True))
            bare_ms, our_ms = (1000 * statistics.median(times) for times in (bare_times, our_times))
            print(f"{name:22}{bare_ms:15.2f}{our_ms:26.2f}{ratio:8.2f}{LIMITS[name]:8.2f}", flush=True)


if __name__ == "__main__":
    main()
