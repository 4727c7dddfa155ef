"""Distances in blocks against plain differences: where float32 cancels, where rows repeat, at the seams of blocks."""

import pytest
import torch

from helpers.distributions import gaussian
from twostep.core import neighbours
from twostep.core.neighbours import count_within, k_nearest, nearest, radii


def plain(x, y):
    return (x.double()[:, None] - y.double()).square().sum(2)


def plain_radii(x, k):
    return plain(x, x).fill_diagonal_(torch.inf).kthvalue(k).values


def grid(n, dim, seed):
    return torch.randint(0, 3, (n, dim), generator=torch.Generator().manual_seed(seed)).float()


SETS = {
    "plane": (gaussian(150, 2), gaussian(120, 2, 0.5, seed=1)),
    "wide": (gaussian(150, 300, dtype=torch.float32), gaussian(120, 300, 0.1, seed=1, dtype=torch.float32)),
    "far off": (gaussian(150, 5, 1e6), gaussian(120, 5, 1e6, seed=1)),
    "two far clusters": (
        torch.cat([gaussian(70, 5), gaussian(80, 5, 1e5, seed=2)]),
        torch.cat([gaussian(60, 5, seed=3), gaussian(60, 5, 1e5, seed=4)]),
    ),
    "an outlier": (torch.cat([gaussian(149, 5), torch.full((1, 5), 1e7).double()]), gaussian(120, 5, seed=1)),
    "many ties": (grid(150, 3, 0), grid(120, 3, 1)),
    "one point": (gaussian(150, 5), gaussian(1, 5, seed=1).expand(120, 5)),
    "equal sets": (gaussian(150, 40), gaussian(150, 40)),
}


@pytest.fixture(params=[2**22, 2**12])
def block(request, monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK", request.param)


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("name", SETS)
def test_distances_and_counts_are_those_of_plain_differences(name):
    x, y = SETS[name]
    d = plain(x, y)
    for points in (x, y):
        for k in (1, 5):
            torch.testing.assert_close(radii(points, k), plain_radii(points, k), rtol=1e-12, atol=0)
        found, columns = k_nearest(points, 30)
        all_distances = plain(points, points).fill_diagonal_(torch.inf)
        torch.testing.assert_close(found, all_distances.sort(1).values[:, :30], rtol=1e-12, atol=0)
        torch.testing.assert_close(found, all_distances.gather(1, columns), rtol=1e-12, atol=0)
        assert bool((columns.sort(1).values.diff() > 0).all())
    torch.testing.assert_close(nearest(x, y), d.amin(1), rtol=1e-12, atol=0)
    torch.testing.assert_close(nearest(y, x), d.amin(0), rtol=1e-12, atol=0)
    for scale in (1.0, 2.0):  # both more balls than ties
        rx, ry = radii(x, 5) * scale, radii(y, 5) * scale
        of_x, of_y = count_within(x, rx, y, ry)
        in_x, in_y = near(d, rx[:, None]), near(d, ry[None])
        between(of_x.of_balls, in_x, 1)
        between(of_x.of_points, in_x, 0)
        between(of_y.of_balls, in_y, 0)
        between(of_y.of_points, in_y, 1)


def near(d, limits):
    """Return what is within the limits for sure, and what may be, by the rounding of float64."""
    return d <= limits * (1 - 1e-12), d <= limits * (1 + 1e-12)


def between(counts, sure_and_maybe, dim):
    sure, maybe = (hits.sum(dim) for hits in sure_and_maybe)
    assert bool((sure <= counts).all())
    assert bool((counts <= maybe).all())


@pytest.mark.parametrize("dim", [1, 3, 17, 64, 257, 2048])
def test_balls_are_closed(dim):
    x = gaussian(60, dim, dtype=torch.float32)
    counts, _ = count_within(x, radii(x, 5), x, radii(x, 5))
    assert bool((counts.of_balls == 6).all())  # five neighbours, one of them on the boundary, and the point itself


def test_expanded_float32_distances_would_be_wrong():
    x, y = SETS["two far clusters"]
    squares = x.float().square().sum(1)[:, None] + y.float().square().sum(1) - 2 * x.float() @ y.float().T
    assert float((squares.amin(1) - nearest(x, y)).abs().max()) > 100
