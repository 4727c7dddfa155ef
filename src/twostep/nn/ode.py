"""Ordinary differential equations dy/dt = v(t, y) on 0 <= t <= 1, and how their flow changes volumes.

    d/dt log p_t(y_t) = -div v(t, y_t),   so   log p_1(y_1) = log p_0(y_0) - ∫ div v(t, y_t) dt

The path is integrated by the classical Runge-Kutta method of fourth order, the divergence by quadrature on that path:
it costs d times what the velocity does, and needs few nodes where it is smooth in t. Gauss-Legendre nodes, which are
dense near 0 and 1, where a flow has no more to do than between, are moved apart by the first terms of an arcsine.

Sources: Neural Ordinary Differential Equations (Chen et al., 2018, arXiv 1806.07366); New Quadrature Formulas from
Conformal Maps (Hale & Trefethen, 2008), equation 3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import jvp, vmap

from twostep.nn import jacobian

Velocity = Callable[[Tensor, Tensor], Tensor]
"""Maps a time `()` and points `(B, d)` to velocities `(B, d)`."""

WithDivergence = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Maps a time `()` and points `(B, d)` to velocities `(B, d)` and divergences `(B,)`, or estimates of them `(k, B)`."""

FIRST_NODES, MOST_NODES = 16, 128
GAIN = 10  # by which all nodes are more exact than every other one, or more (benchmarks/flow_matching.py)
APART = np.polynomial.Polynomial([0, 40320, 0, 6720, 0, 3024, 0, 1800, 0, 1225]) / 53089


def runge_kutta(velocity: Velocity, y: Tensor, start: Tensor, end: Tensor, one: Tensor | None = None) -> Tensor:
    """Return the points `(B, d)` at time `end` of those at `start`, by one step; `one` is the velocity at its start."""
    h = end - start
    middle = start + h / 2
    one = velocity(start, y) if one is None else one
    two = velocity(middle, y + h / 2 * one)
    three = velocity(middle, y + h / 2 * two)
    four = velocity(end, y + h * three)
    return y + h / 6 * (one + 2 * two + 2 * three + four)


def integrate(velocity: Velocity, y: Tensor, times: Iterable[Tensor]) -> Tensor:
    """Return the points `(B, d)` at the last of the times of those at the first, by a step between each two."""
    for start, end in pairwise(times):
        y = runge_kutta(velocity, y, start, end)
    return y


def divergence(velocity: Velocity, t: Tensor, y: Tensor, probes: Tensor | None = None) -> Tensor:
    """Return `div v` at points `(B, d)`, `(B,)`; with probes `(k, B, d)` of ±1, Hutchinson's estimates `(k, B)`.

    Source: FFJORD (Grathwohl et al., 2019, arXiv 1810.01367).
    """

    def at(y: Tensor) -> Tensor:
        return velocity(t, y)

    if probes is None:
        return jacobian.tangents(at, y).diagonal(dim1=0, dim2=2).sum(1)

    def product(probe: Tensor) -> Tensor:
        return (probe * jvp(at, (y,), (probe,))[1]).sum(1)

    return vmap(product)(probes)


def with_divergence(velocity: Velocity, probes: Tensor | None = None) -> WithDivergence:
    """Return a velocity with its `divergence`, where a network has no faster way."""
    return lambda t, y: (velocity(t, y), divergence(velocity, t, y, probes))


def to_start(velocity: Velocity, both: WithDivergence, y: Tensor, nodes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return where points at time 1 were at time 0, `(B, d)`, and the integral of the divergence on the way, `(B,)`.

    The third result, `(B,)`, is what every other node alone gives for that integral. Of k estimates of a divergence
    there are k integrals, `(k, B)`.

    Args:
        velocity: where no divergence is needed.
        both: the same velocity with its divergence, at the nodes.
        y: points `(B, d)`.
        nodes: of the quadrature, between which the path takes one step.
    """
    places, weights = np.polynomial.legendre.leggauss(nodes)
    times, half = y.new_tensor((1 - APART(places)) / 2), np.zeros(nodes)  # times run from 1 to 0
    half[::2] = _weights(places[::2])
    stretch = APART.deriv()(places) / 2
    total, rough, before, v = y.new_zeros(len(y)), y.new_zeros(len(y)), y.new_ones(()), None
    for t, weight, other in zip(times, weights * stretch, half * stretch, strict=True):
        y = runge_kutta(velocity, y, before, t, v)
        v, found = both(t, y)
        total, rough, before = total + weight * found, rough + other * found, t
    return runge_kutta(velocity, y, before, torch.zeros_like(before), v), total, rough


def _weights(places: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the weights that make a quadrature on [-1, 1] with n nodes exact for polynomials of degree n - 1."""
    moments = np.zeros(len(places))
    moments[0] = 2.0
    return np.linalg.solve(np.polynomial.legendre.legvander(places, len(places) - 1).T, moments)


def until_exact(
    of: Callable[[Tensor, int], tuple[Tensor, Tensor]], rows: int, tolerance: float, device: torch.device
) -> Tensor:
    """Return what a function gives for rows, with the nodes doubled until its error is `tolerance` at most.

    Each row has its own number of nodes, so that its value does not depend on the others; `MOST_NODES` end it.

    Args:
        of: maps indices of rows `(n,)` and a number of nodes to values `(n,)` and what every other node gives for them.
        rows: their number.
    """
    left, nodes = torch.arange(rows, device=device), FIRST_NODES
    found, rough = of(left, nodes)
    while True:
        left = left[~((found[left] - rough).abs() <= GAIN * tolerance)]
        nodes *= 2
        if not len(left) or nodes > MOST_NODES:
            return found
        finer, rough = of(left, nodes)
        found = found.index_put((left,), finer)
