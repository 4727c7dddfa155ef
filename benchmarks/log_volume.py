"""Log-volumes of decoders of default size: ours against whole Jacobians, J^T J and a determinant, all points at once.

The plain route is how the paper's code goes: forward-mode Jacobians of a batch, squared, a small number on the
diagonal, and a determinant. Seconds are the least of some rounds in which the two take turns, wall time and that of
all cores; memory is how far the process's largest size grows, so ours runs first.

    python benchmarks/log_volume.py
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import jacfwd, vmap

from twostep.core.schema import DataSpec
from twostep.models.ae import AutoencoderConfig
from twostep.models.base import GeneralizedAutoencoder, evaluating

ROUNDS = 3


@dataclass(frozen=True)
class Case:
    """A decoder, how many points it is tried on, how many of them go at once, and the time that is aimed at."""

    shape: tuple[int, ...]
    points: int
    batch: int
    seconds: float

    def model(self) -> GeneralizedAutoencoder:
        spec = DataSpec(name="images", shape=self.shape, size=1000, low=0, high=255, discrete=True)
        torch.manual_seed(0)
        return AutoencoderConfig.for_data(spec, "gae", preset="reference").build(spec)


CASES = {
    "fully connected 20-256-784": Case((1, 28, 28), 10_000, 1_000, 0.8),
    "convolutional 20 -> 3x32x32": Case((3, 32, 32), 256, 256, 256 * 0.008),
}


def plain(model: GeneralizedAutoencoder, z: Tensor) -> Tensor:
    """Return `1/2 log det (J^T J + 1e-9 I)`, `(B,)`."""
    J = vmap(jacfwd(lambda point: model.decode(point[None])[0].flatten()))(z)
    return torch.linalg.slogdet(J.mT @ J + 1e-9 * torch.eye(z.shape[1])).logabsdet / 2


def timed(route: Callable[[Tensor], Tensor], batches: tuple[Tensor, ...]) -> tuple[float, float, Tensor]:
    wall, cores = time.perf_counter(), time.process_time()
    values = torch.cat([route(z) for z in batches])
    return time.perf_counter() - wall, time.process_time() - cores, values


def compare(name: str, case: Case) -> None:
    model = case.model()
    batches = torch.randn(case.points, 20, generator=torch.Generator().manual_seed(1)).split(case.batch)
    routes = {"ours": model.log_volume, "plain": lambda z: plain(model, z)}
    taken: dict[str, list[tuple[float, float, Tensor]]] = {route: [] for route in routes}
    grown: dict[str, float] = {}
    with evaluating(model):
        for _ in range(ROUNDS):
            for route, function in routes.items():
                before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                taken[route].append(timed(function, batches))
                grown.setdefault(route, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
    print(f"{name}, {case.points:,} points, aim {case.seconds:.1f} s")
    for route, rounds in taken.items():
        wall, cores = (min(figure) for figure in list(zip(*rounds, strict=True))[:2])
        print(f"  {route}: {wall:.2f} s, {cores:.2f} s of all cores, +{grown[route]:.0f} MB", flush=True)
    best = {route: min(cores for _, cores, _ in rounds) for route, rounds in taken.items()}
    apart = float((taken["ours"][0][2] - taken["plain"][0][2]).abs().max())
    print(f"  plain / ours: {best['plain'] / best['ours']:.1f}; largest difference {apart:.1g} nats")


def main() -> None:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for name, case in CASES.items():
        compare(name, case)


if __name__ == "__main__":
    main()
