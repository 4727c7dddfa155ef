"""Plain steps of densities of images, to time ours against: as in `bare`, with their networks of images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bare import BareARM, BareVAE, Step, bare_step
from twostep.core.schema import DataSpec
from twostep.models import MODELS


class BarePixelARM(BareARM):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, 256, 2, batch_first=True)
        self.linear = nn.Linear(256, 30)


class BareEnergy(nn.Module):
    """Twelve Langevin steps by autograd from a buffer, down an energy that is added to a Gaussian's."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(784, 512), nn.SiLU(), nn.Linear(512, 256), nn.SiLU(), nn.Linear(256, 1))
        self.buffer = torch.randn(1024, 784)

    def energy(self, y: Tensor) -> Tensor:
        return self.net(y).squeeze(1) + y.square().sum(1) / 2

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.randint(1024, (len(x),))
        y = self.buffer[rows]
        for _ in range(12):
            y.requires_grad_()
            (slope,) = torch.autograd.grad(self.energy(y).sum(), y)
            y = (y.detach() - 0.1 * slope + 0.2**0.5 * torch.randn_like(y)).clamp(-100, 100)
        self.buffer[rows] = y
        penalty = self.net(x).square().mean() + self.net(y).square().mean()
        return (self.energy(x) - self.energy(y)).mean() + 3e-4 * penalty


def bare_alone(name: str, x: Tensor) -> Step:
    """Return a step of a density on one batch of images `(B, 1, 28, 28)` in [0, 1]."""
    if name == "flow":  # ours: there is no plainer one of the same network
        spec = DataSpec(name="images", shape=(1, 28, 28), size=len(x), low=0, high=1)
        flow = MODELS["flow"].for_data(spec, "de").build(spec)
        return bare_step(flow, x, flow.objectives()[0].loss)
    module = {"vae": lambda: BareVAE(784, (256,)), "ebm": BareEnergy, "arm": BarePixelARM}[name]()
    return bare_step(module, x.flatten(1))
