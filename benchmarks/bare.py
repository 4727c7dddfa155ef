"""Plain steps to time ours against: the same networks and losses, eager, gone through in full, with default Adam."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from twostep.core.schema import DataSpec
from twostep.models import MODELS
from twostep.models.two_step import latent_spec

Step = Callable[[], None]


def mlp(*sizes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def log_likelihood(x: Tensor, decoded: Tensor, log_sigma: Tensor | None) -> Tensor:
    mean, log_std = decoded.chunk(2, dim=1) if log_sigma is None else (decoded, log_sigma)
    return torch.distributions.Normal(mean, log_std.exp()).log_prob(x).sum(1)


class BareVAE(nn.Module):
    """With one deviation for images, and one for each coordinate, from two larger layers, for embeddings."""

    def __init__(self, dim: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.encoder = mlp(dim, *hidden, 40)
        self.decoder = mlp(20, *hidden, dim if dim > 20 else 2 * dim)
        self.log_sigma = nn.Parameter(torch.zeros(())) if dim > 20 else None

    def forward(self, x: Tensor) -> Tensor:
        mean, log_std = self.encoder(x).chunk(2, dim=1)
        z = mean + log_std.exp() * torch.randn_like(mean)
        kl = 0.5 * (mean**2 + (2 * log_std).exp() - 1 - 2 * log_std).sum(1)
        return (kl - log_likelihood(x, self.decoder(z), self.log_sigma)).mean()


class BareAE(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = mlp(784, 256, 20), mlp(20, 256, 784)

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
        self.critic = mlp(20, 256, 256, 1)

    def critic_loss(self, x: Tensor) -> Tensor:
        z = self.encoder(x)
        return (softplus(-self.critic(torch.randn_like(z))) + softplus(self.critic(z))).mean()

    def loss(self, x: Tensor) -> Tensor:
        z = self.encoder(x)
        return ((x - self.decoder(z)) ** 2).flatten(1).sum(1).mean() + 10 * softplus(-self.critic(z)).mean()


class BareBiGAN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder, self.critic = mlp(784, 256, 20), mlp(20, 256, 784), mlp(804, 256, 256, 1)

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

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder, self.critic = mlp(784 + 256, 256, 20), mlp(20, 256, 784), mlp(804, 256, 256, 1)
        self.decoder.register_parameter("log_sigma", nn.Parameter(torch.zeros(())))

    def encode(self, x: Tensor) -> Tensor:
        return self.encoder(torch.cat([x, 3 * torch.randn(len(x), 256)], 1))

    def critic_loss(self, x: Tensor) -> Tensor:
        z = self.encode(x)
        drawn = self.critic(torch.cat([x, torch.randn_like(z)], 1))
        return (softplus(-self.critic(torch.cat([x, z], 1))) + softplus(drawn)).mean()

    def loss(self, x: Tensor) -> Tensor:
        z = self.encode(x)
        log_prob = log_likelihood(x, self.decoder(z), self.decoder.log_sigma)
        return (self.critic(torch.cat([x, z], 1)).squeeze(1) - log_prob).mean()


class BareContrast(nn.Module):
    """The same on embeddings, with adaptive contrast: the critic sees draws standardised by a batch's covariance."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder, self.critic = mlp(20 + 128, 512, 20), mlp(20, 512, 512, 20), mlp(40, 256, 256, 1)
        self.decoder.register_parameter("log_sigma", nn.Parameter(torch.zeros(())))

    def contrasted(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        noise = 3 * torch.randn(2, len(x), 128)
        z, one, other = (self.encoder(torch.cat([x, side], 1)) for side in (noise[0], noise[1], -noise[1]))
        mean = (one + other) / 2
        covariance = torch.cat([one - mean, other - mean]).T.cov(correction=0)
        distribution = torch.distributions.MultivariateNormal(mean, covariance + 1e-3 * covariance.diagonal().diag())
        prior = torch.distributions.MultivariateNormal(torch.zeros(20), torch.eye(20))
        factor = distribution.scale_tril[0]
        seen = torch.linalg.solve_triangular(factor, (z - mean).T, upper=False).T
        return z, seen, torch.distributions.kl_divergence(distribution, prior)

    def critic_loss(self, x: Tensor) -> Tensor:
        _, seen, _ = self.contrasted(x)
        drawn = self.critic(torch.cat([x, torch.randn_like(seen)], 1))
        return (softplus(-self.critic(torch.cat([x, seen], 1))) + softplus(drawn)).mean()

    def loss(self, x: Tensor) -> Tensor:
        z, seen, kl = self.contrasted(x)
        log_ratio = self.critic(torch.cat([x, seen], 1)).squeeze(1)
        return (log_ratio + kl - log_likelihood(x, self.decoder(z), self.decoder.log_sigma)).mean()


class BareARM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, 128, batch_first=True)
        self.linear = nn.Linear(128, 30)

    def forward(self, x: Tensor) -> Tensor:
        before = torch.cat([torch.zeros(len(x), 1), x[:, :-1]], 1)
        weights, means, spreads = self.linear(self.lstm(before[:, :, None])[0]).chunk(3, dim=2)
        distribution = torch.distributions.Normal(means, softplus(spreads) + 1e-4)
        log_probs = distribution.log_prob(x[:, :, None]) + weights.log_softmax(2)
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


def bare_game(module: BareWAE | BareBiGAN | BareAVB | BareContrast, x: Tensor, every: int) -> Step:
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
    """Return a step of a model on one batch: of images `(B, 1, 28, 28)` in [0, 1], or of embeddings `(B, 20)`."""
    on_images: dict[str, Callable[[], Step]] = {
        "ae": lambda: bare_step(BareAE(), x.flatten(1)),
        "vae": lambda: bare_step(BareVAE(784, (256,)), x.flatten(1)),
        "wae": lambda: bare_game(BareWAE(), x, every=1),
        "bigan": lambda: bare_game(BareBiGAN(), x.flatten(1), every=2),
        "avb": lambda: bare_game(BareAVB(), x.flatten(1), every=1),
    }
    on_embeddings: dict[str, Callable[[], Step]] = {
        "flow": lambda: bare_flow(x),
        "arm": lambda: bare_step(BareARM(), x),
        "ebm": lambda: bare_step(BareEBM(), x),
        "vae": lambda: bare_step(BareVAE(20, (512, 512)), x),
        "avb": lambda: bare_game(BareContrast(), x, every=2),
    }
    return (on_images if x.ndim == 4 else on_embeddings)[name]()


def bare_flow(x: Tensor) -> Step:
    """Return a plain step of our own flow: there is no plainer one of the same network."""
    spec = latent_spec(DataSpec(name="data", shape=(784,), size=len(x), low=0, high=1), 20)
    flow = MODELS["flow"].for_data(spec, "de").build(spec)
    (objective,) = flow.objectives()
    return bare_step(flow, x, objective.loss)
