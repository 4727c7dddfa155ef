"""Dimension by a flow that knows the noise, beside a denoiser and neighbours, where the truth is known; and of digits.

For each set: LIDL and FLIPD at the flow's plateau and its scale (a dash: no plateau), what a trained denoiser leaves of
all coordinates as noise goes to 0, what neighbours recommend, and the CPU seconds of the three. Rows are standardised,
those of digits and all that the denoiser sees are whitened. `--curves` prints d(s) at each scale.

    python benchmarks/noise_flow.py [circle roll ...] [--n 1500] [--curves]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import TypeVar

import torch
from sklearn.datasets import load_digits
from torch import Tensor

from twostep.data.synthetic import distribution
from twostep.diagnosis.dimension.consensus import dimension_of
from twostep.diagnosis.dimension.points import principal_coordinates
from twostep.diagnosis.overfitting.denoiser import trained_ladder
from twostep.diagnosis.trained.noise_flow import FlowLadder, flow_ladder

ROUNDING = 1e-6
SETS: dict[str, tuple[str, dict[str, object]]] = {
    "circle": ("von-mises-circle", {}),
    "roll": ("swiss_roll", {}),
    "sphere-2": ("uniform_sphere", {"manifold_dim": 2}),
    "sphere-5": ("uniform_sphere", {"manifold_dim": 5}),
    "affine": ("affine", {"manifold_dim": 4, "ambient_dim": 19}),
    "network": ("network_manifold", {"manifold_dim": 5, "ambient_dim": 20}),
}
NAMES = (*SETS, "Gaussian", "cube", "digits")
T = TypeVar("T")


def rows_of(name: str, n: int) -> tuple[str, Tensor]:
    """Return the true dimension, or a question mark, and rows `(n, D)`."""
    generator = torch.Generator().manual_seed(0)
    if name == "digits":
        pixels = torch.from_numpy(load_digits().data)
        spread = pixels[:n] + torch.rand(pixels[:n].shape, generator=generator, dtype=torch.double)
        return "?", whitened(spread - spread.mean(0))
    if name == "Gaussian":
        return "10", torch.randn(n, 10, generator=generator, dtype=torch.double)
    if name == "cube":
        return "5", standardised(torch.rand(n, 5, generator=generator, dtype=torch.double))
    made = distribution(*SETS[name])
    return str(made.intrinsic_dim), standardised(made.sample(n, generator).double())


def standardised(x: Tensor) -> Tensor:
    return (x - x.mean(0)) / x.std(0)


def whitened(x: Tensor) -> Tensor:
    points, stds = principal_coordinates(x, ROUNDING)
    return points / stds


def timed(call: Callable[[], T]) -> tuple[T, float]:
    began = time.process_time()
    return call(), time.process_time() - began


def row(name: str, n: int, curves: bool) -> str:
    truth, x = rows_of(name, n)
    ladder, first = timed(lambda: flow_ladder(x))
    white = whitened(x)
    missing, second = timed(lambda: trained_ladder(white).limit)
    near, third = timed(lambda: dimension_of(x))
    left = white.shape[1] - sum(missing) / 2
    neighbours = f"{near.recommended} ({near.low}-{near.high})"
    told = f"{name:10}{truth:>4}{x.shape[1]:4} | {plateau(ladder)} |{left:9.2f} | {neighbours:11}"
    return f"{told}|{first:5.0f}{second:5.0f}{third:5.0f}" + (curve(ladder) if curves else "")


def plateau(ladder: FlowLadder) -> str:
    rung = ladder.plateau
    if rung is None:
        return f"{'-':>6}{'-':>7}{'-':>6}"
    return f"{rung.lidl.value:6.2f}{rung.flipd.value:7.2f}{rung.scale:6.2f}"


def curve(ladder: FlowLadder) -> str:
    columns = [
        ("s", [rung.scale for rung in ladder.rungs]),
        ("LIDL", [rung.lidl.value for rung in ladder.rungs]),
        ("FLIPD", [rung.flipd.value for rung in ladder.rungs]),
        ("nats", [rung.log_density for rung in ladder.rungs]),
    ]
    return "".join(f"\n    {name:6}" + "".join(f"{value:8.2f}" for value in values) for name, values in columns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*", default=NAMES)
    parser.add_argument("--n", type=int, default=1500)
    parser.add_argument("--curves", action="store_true")
    asked = parser.parse_args()
    print(f"{'set':10}{'d':>4}{'D':>4} | {'LIDL':>6}{'FLIPD':>7}{'s':>6} | denoiser | neighbours | seconds")
    for name in asked.sets:
        print(row(name, asked.n, asked.curves), flush=True)


if __name__ == "__main__":
    main()
