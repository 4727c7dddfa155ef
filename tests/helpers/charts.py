"""Autoencoders in closed form, and small trained ones."""

import math

import torch

from twostep.core.schema import DataSpec
from twostep.data.synthetic import distribution
from twostep.models.ae import AutoencoderConfig
from twostep.models.base import GeneralizedAutoencoder


def rows(name, n, seed, **keys):
    """Draw `(n, D)` points of a synthetic dataset, as floats."""
    return distribution(name, keys).sample(n, torch.Generator().manual_seed(seed)).float()


class Known(GeneralizedAutoencoder):
    """An autoencoder of two given maps."""

    def __init__(self, dim, latent_dim, encode, decode):
        super().__init__((dim,))
        self.latent_dim, self.maps = latent_dim, (encode, decode)
        self.unused = torch.nn.Parameter(torch.zeros(()))  # says on which device and of which type it is

    def encode(self, x):
        return self.maps[0](x)

    def decode(self, z):
        return self.maps[1](z)

    def objectives(self):
        return ()


def linear(W):
    """Return the autoencoder with decoder `z -> W z`, W `(D, d)`, and its pseudo-inverse as encoder."""
    return Known(*W.shape, lambda x: x @ torch.linalg.pinv(W).T, lambda z: z @ W.T)


def angle():
    """Return the chart of the circle by its angle, discontinuous at (-1, 0)."""
    return Known(2, 1, lambda x: torch.atan2(x[:, 1:], x[:, :1]), lambda z: torch.cat([z.cos(), z.sin()], 1))


def globe():
    """Return the chart of the sphere by longitude and latitude, discontinuous at longitude π."""

    def encode(x):
        return torch.stack([torch.atan2(x[:, 1], x[:, 0]), x[:, 2].clamp(-1, 1).asin()], 1)

    def decode(z):
        across, up = z.unbind(1)
        return torch.stack([up.cos() * across.cos(), up.cos() * across.sin(), up.sin()], 1)

    return Known(3, 2, encode, decode)


def half_circle():
    """Return an autoencoder that encodes the first coordinate of a circle and decodes to its upper half."""
    return Known(2, 1, lambda x: x[:, :1], lambda z: torch.cat([z, (1 - z.square()).clamp(min=0).sqrt()], 1))


def trained(x, latent_dim, hidden=(32, 32), steps=500):
    """Return an autoencoder trained for a second."""
    torch.manual_seed(0)
    spec = DataSpec(name="rows", shape=tuple(x.shape[1:]), size=len(x), low=float(x.min()), high=float(x.max()))
    nets = {f"{net}_{key}": value for net in ("encoder", "decoder") for key, value in _net(hidden).items()}
    model = AutoencoderConfig.for_data(spec, "gae", latent_dim=latent_dim, **nets).build(spec)
    model.fit_transform([x])
    (objective,) = model.objectives()
    optimizer = torch.optim.Adam(objective.parameters, lr=5e-3)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: math.cos(math.pi / 2 * step / steps))
    for _ in range(steps):
        optimizer.zero_grad()
        objective.loss(x[torch.randint(len(x), (128,))]).backward()
        optimizer.step()
        decay.step()
    return model


def _net(hidden):
    return {"hidden_dims": hidden, "activation": "swish"}
