"""Estimates of dimension compared with those of scikit-dimension, on its 24 benchmark manifolds of 1,000 points.

It is not a dependency: it writes points and its own estimates in another environment, ours come from this one:

    python -m venv other && other/bin/pip install scikit-dimension pandas matplotlib
    other/bin/python benchmarks/scikit_dimension.py --write points.npz
    python benchmarks/scikit_dimension.py --read points.npz
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

K = 20


def write(path: Path) -> None:
    import skdim

    manifolds: Any = skdim.datasets.BenchmarkManifolds(random_state=0)
    kept: dict[str, Any] = {}
    for name, points in manifolds.generate(n=1000, noise=0).items():
        true = manifolds.truth.loc[name, "Intrinsic Dimension"]
        theirs = skdim.id.MLE(K=K).fit(points).dimension_, skdim.id.TwoNN().fit(points).dimension_
        kept |= {name: points, f"{name} figures": np.array([true, *theirs])}
    np.savez(path, **kept)


def read(path: Path) -> None:
    import torch

    from twostep.diagnosis import dimension_of
    from twostep.diagnosis.dimension.estimators import maximum_likelihood, two_nn
    from twostep.diagnosis.dimension.neighbourhoods import neighbourhoods

    print(f"{'':18}{'d':>4}{'ML':>8}{'theirs':>8}{'TwoNN':>8}{'theirs':>8}  recommended")
    stored = np.load(path)
    found: list[tuple[float, ...]] = []
    for name in (name for name in stored if not name.endswith(" figures")):
        points = torch.from_numpy(stored[name])
        true, ml, twonn = stored[f"{name} figures"].tolist()
        near, ours = neighbourhoods(points, k=K), dimension_of(points)
        figures = maximum_likelihood(near, K).value, ml, two_nn(near).value, twonn
        found.append((true, *figures, ours.recommended, ours.low, ours.high))
        numbers = "".join(f"{figure:8.2f}" for figure in figures)
        print(f"{name:18}{true:4.0f}{numbers}  {ours.recommended} ({ours.low}-{ours.high})", flush=True)
    true, ml, their_ml, nn, their_nn, recommended, low, high = np.array(found).T
    largest = [float(np.abs(a / b - 1).max()) for a, b in ((ml, their_ml), (nn, their_nn))]
    counts = [int(hits.sum()) for hits in (recommended == true, abs(recommended - true) <= 1)]
    inside = int(((low <= true) & (true <= high)).sum())
    print(f"largest difference: ML {largest[0]:.1%}, TwoNN {largest[1]:.1%}")
    print(
        f"of {len(found)}: recommended = d {counts[0]} times, within 1 {counts[1]} times, d in the range {inside} times"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--read", type=Path)
    given = parser.parse_args()
    if given.write:
        write(given.write)
    if given.read:
        read(given.read)


if __name__ == "__main__":
    main()
