"""Plain steps to time ours against: the same networks and losses, eager, gone through in full, with default Adam."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from twostep.models import MODELS
from twostep.models.two_step import latent_spec
from twostep.schema import DataSpec

Step = Callable[[], None]


class BareVAE(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(dim, 256), nn.ReLU(), nn.Linear(256, 40))
        self.decoder = nn.Sequential(nn.Linear(20, 256), nn.ReLU(), nn.Linear(256, dim))
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


class BareAVB(nn.Module):
    """An encoder of (x, noise) side by side, and a critic of (x, z) side by side."""

    def __init__(self, dim: int, noise_dim: int) -> None:
        super().__init__()
        self.noise_dim = noise_dim
        self.encoder = nn.Sequential(nn.Linear(dim + noise_dim, 256), nn.ReLU(), nn.Linear(256, 20))
        self.decoder = nn.Sequential(nn.Linear(20, 256), nn.ReLU(), nn.Linear(256, dim))
        self.decoder.register_parameter("log_sigma", nn.Parameter(torch.zeros(())))
        wide = dim + 20
        self.critic = nn.Sequential(nn.Linear(wide, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 1))

    def encode(self, x: Tensor) -> Tensor:
        return self.encoder(torch.cat([x, 3 * torch.randn(len(x), self.noise_dim)], 1))

    def critic_loss(self, x: Tensor) -> Tensor:
        z = self.encode(x)
        drawn = self.critic(torch.cat([x, torch.randn_like(z)], 1))
        return (softplus(-self.critic(torch.cat([x, z], 1))) + softplus(drawn)).mean()

    def loss(self, x: Tensor) -> Tensor:
        z = self.encode(x)
        law = torch.distributions.Normal(self.decoder(z), self.decoder.log_sigma.exp())
        return (self.critic(torch.cat([x, z], 1)).squeeze(1) - law.log_prob(x).sum(1)).mean()


class BareARM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, 128, batch_first=True)
        self.linear = nn.Linear(128, 30)

    def forward(self, x: Tensor) -> Tensor:
        before = torch.cat([torch.zeros(len(x), 1), x[:, :-1]], 1)
        weights, means, spreads = self.linear(self.lstm(before[:, :, None])[0]).chunk(3, dim=2)
        law = torch.distributions.Normal(means, softplus(spreads) + 1e-4)
        log_probs = law.log_prob(x[:, :, None]) + weights.log_softmax(2)
        return -log_probs.logsumexp(2).sum(1).mean()


class BareEBM(nn.Module):
    """Sixty Langevin steps by autograd from a buffer, then contrastive divergence."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(20, 64), nn.SiLU(), nn.Linear(64, 32), nn.SiLU(), nn.Linear(32, 1))
        self.buffer = 2 * torch.rand(8192, 20) - 1

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.randint(8192, (len(x),))
        y = self.buffer[rows]
        for _ in range(60):
            y.requires_grad_()
            (slope,) = torch.autograd.grad(self.net(y).sum(), y)
            noise = 0.005 * torch.randn_like(y)
            y = (y.detach() - 10 * slope.clamp(-0.03, 0.03) + noise).clamp(-1, 1)
        self.buffer[rows] = y
        data, drawn = self.net(x), self.net(y)
        return (data - drawn + 0.1 * (data**2 + drawn**2)).mean()


def bare_game(module: BareWAE | BareBiGAN | BareAVB, x: Tensor, every: int) -> Step:
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


def bare_step(module: nn.Module, x: Tensor, loss: Callable[[Tensor], Tensor] | None = None) -> Step:
    """Return steps of a module that gives its loss when called, if no other loss is named."""
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        (loss or module)(x).backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 10.0)
        optimizer.step()

    return step


def bare(name: str, x: Tensor) -> Step:
    """Return a step of a model on one batch: of pictures `(B, 1, 28, 28)` in [0, 1], or of embeddings `(B, 20)`."""
    on_pictures: dict[str, Callable[[], Step]] = {
        "ae": lambda: bare_step(BareAE(), x.flatten(1)),
        "vae": lambda: bare_step(BareVAE(784), x.flatten(1)),
        "wae": lambda: bare_game(BareWAE(), x, every=1),
        "bigan": lambda: bare_game(BareBiGAN(), x.flatten(1), every=2),
        "avb": lambda: bare_game(BareAVB(784, 256), x.flatten(1), every=1),
    }
    on_embeddings: dict[str, Callable[[], Step]] = {
        "flow": lambda: bare_flow(x),
        "arm": lambda: bare_step(BareARM(), x),
        "ebm": lambda: bare_step(BareEBM(), x),
        "vae": lambda: bare_step(BareVAE(20), x),
        "avb": lambda: bare_game(BareAVB(20, 128), x, every=1),
    }
    return (on_pictures if x.ndim == 4 else on_embeddings)[name]()


def bare_flow(x: Tensor) -> Step:
    """Return a plain step of our own flow: there is no plainer one of the same network."""
    spec = latent_spec(DataSpec(name="data", shape=(784,), size=len(x), low=0, high=1), 20)
    flow = MODELS["flow"].for_data(spec, "de").build(spec)
    (objective,) = flow.objectives()
    return bare_step(flow, x, objective.loss)
