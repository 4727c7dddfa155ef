"""Knees of reconstruction error where the truth is known, and of pictures: curves, knees, seconds of CPU.

Each set has at most 5,000 rows. An autoencoder of every size around the intrinsic dimension is trained for itself, one
small network each: where such a network learns a manifold badly (`network_manifold`), it shows no knee. Expected: d for
what is open or flat, d + 1 for what is closed or d where a cut costs nearly nothing, none for what fills its space.

    TWOSTEP_DATA=<folder of data sets> python benchmarks/knee.py [--only NAME ...] [--n 5000]
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor

from twostep.data.batches import subsample
from twostep.data.load import training_rows
from twostep.data.synthetic import distribution
from twostep.diagnosis.trained.reconstruction_curve import coordinates_of, reconstruction_curve, sizes_around

LAWS = {
    "von-mises-circle": (1, {}, "2, or 1 with a cut"),
    "uniform_sphere": (2, {"manifold_dim": 2, "ambient_dim": 10}, "3, or 2 with a cut"),
    "swiss_roll": (2, {}, "2"),
    "network_manifold": (5, {"manifold_dim": 5, "ambient_dim": 20}, "5"),
    "affine": (4, {"manifold_dim": 4, "ambient_dim": 19}, "4"),
}
FULL = {"gaussian": 10, "cube": 5}
PICTURES = {"digits": 10, "fashion-mnist": 12}
"""Dimensions that `twostep diagnose` tells, about."""


def case(name: str, n: int) -> tuple[Tensor, int, str]:
    """Return points `(n, D)`, the dimension that sizes are taken around, and the knee that is expected."""
    generator = torch.Generator().manual_seed(0)
    if name in LAWS:
        d, keys, expected = LAWS[name]
        return distribution(name, keys).sample(n, generator), d, expected
    if name in FULL:
        draw = torch.randn if name == "gaussian" else torch.rand
        return draw(n, FULL[name], generator=generator), FULL[name], "none"
    return subsample(training_rows(name, {}), n).flatten(1), PICTURES[name], "not known"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[*LAWS, *FULL, *PICTURES], default=[*LAWS, *FULL, *PICTURES])
    parser.add_argument("--n", type=int, default=5000)
    asked = parser.parse_args()
    for name in asked.only:
        x, d, expected = case(name, asked.n)
        began = time.process_time()
        found = reconstruction_curve(x, sizes_around(d, coordinates_of(*x.shape)))
        seconds = time.process_time() - began
        knee = "none" if found.knee is None else found.knee
        held = f"{found.coordinates} coordinates hold {found.held:.1%}"
        print(f"\n{name}: knee {knee} (expected: {expected}), {held}, {found.n} held-out rows, {seconds:.0f} s")
        print("  size " + "".join(f"{point.size:16}" for point in found.points))
        print("  left " + "".join(f"{point.value:8.2%} ±{point.high - point.value:6.2%}" for point in found.points))
        print("  PCA  " + "".join(f"{point.linear:16.2%}" for point in found.points), flush=True)


if __name__ == "__main__":
    main()
