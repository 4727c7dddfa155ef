"""Dimension of each row where pieces of several dimensions lie together: ours beside plain maximum likelihood.

For each dataset, by number of rows of a piece and std of added noise: the share of rows whose rounded estimate is their
piece's dimension, and the mean absolute error. Plain maximum likelihood (Levina & Bickel, 2004) is that of each row
alone, with 20 and with 100 neighbours. `2 se` is the share of rows whose error is at most two standard errors.

    python benchmarks/local_dimension.py [--rows 500 2000] [--noise 0 0.02]
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from twostep.diagnosis import local_dimension
from twostep.diagnosis.dimension.distinct_rows import as_table, distinct
from twostep.diagnosis.dimension.estimators import mean_logs
from twostep.diagnosis.dimension.neighbourhoods import neighbourhoods

PLAIN = (20, 100)


def pieces(n: int, seed: int) -> Iterator[tuple[str, list[tuple[int, Tensor]]]]:
    """Yield datasets: a name, and pieces of n points each with their dimensions."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.double)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=g, dtype=torch.double)

    line = torch.nn.functional.pad(6 * uniform(n, 1) - 3, (0, 2))
    yield "line and sphere", [(1, line), (2, normalize(normal(n, 3), dim=1))]
    a, b, c = 2 * math.pi * uniform(3, n)
    radius = 2 + 0.7 * b.cos()
    torus = torch.stack([radius * a.cos(), radius * a.sin(), 0.7 * b.sin()], 1)
    circle = torch.stack([2 + 1.5 * c.cos(), torch.zeros(n, dtype=torch.double), 1.5 * c.sin()], 1)
    yield "torus and circle", [(2, torus), (1, circle)]
    planes = {d: torch.linalg.qr(normal(10, 10)).Q[:, :d].T for d in (2, 4, 8)}
    yield "cubes of 2, 4, 8", [(d, 3 * (uniform(n, d) - 0.5) @ q + 1.5 * normal(1, 10)) for d, q in planes.items()]
    yield "Gaussians of 2, 4, 8", [(d, normal(n, d) @ q) for d, q in planes.items()]


def measured(truth: np.ndarray, values: np.ndarray) -> str:
    right = float((values.round() == truth).mean())
    return f"{right:8.3f}{np.abs(values - truth).mean():7.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=(500, 2000))
    parser.add_argument("--noise", type=float, nargs="*", default=(0.0, 0.02))
    given = parser.parse_args()
    heads = (*(f"plain, {k} nn" for k in PLAIN), "ours")
    print(f"{'':22}{'rows':>6}{'noise':>7}" + "".join(f"{head:>15}" for head in heads) + f"{'2 se':>7}{'CPU s':>7}")
    for n in given.rows:
        for noise in given.noise:
            for name, found in pieces(n, seed=0):
                x = torch.cat([points for _, points in found])
                truth = np.repeat([d for d, _ in found], n)
                x += noise * torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
                near, row = neighbourhoods(x, max(PLAIN)), distinct(as_table(x))[1]
                plain = [measured(truth, (1 / mean_logs(near, k))[row].numpy()) for k in PLAIN]
                began = time.process_time()
                local = local_dimension(x)
                seconds = time.process_time() - began
                covered = (np.abs(local.values - truth) <= 2 * local.standard_errors).mean()
                cells = "".join((*plain, measured(truth, local.values)))
                print(f"{name:22}{n:6}{noise:7}{cells}{covered:7.2f}{seconds:7.1f}", flush=True)


if __name__ == "__main__":
    main()
