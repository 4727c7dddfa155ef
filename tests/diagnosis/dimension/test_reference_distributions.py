"""Full-dimensional references: tails drawn in without moving a manifold, clusters, edges and radii reproduced."""

import pytest
import torch
from torch.nn.functional import normalize

from helpers.distributions import gaussian
from twostep.diagnosis.dimension.reference_distributions import fitted_distributions, tamed, whitened

N, DIM = 1000, 4


def generator():
    return torch.Generator().manual_seed(0)


def student(n=N, dim=DIM):
    return whitened(gaussian(n, dim) / (gaussian(n, 3, seed=1).square().sum(1, keepdim=True) / 3).sqrt())


def cube(n=N, dim=DIM):
    return whitened(torch.rand(n, dim, generator=generator(), dtype=torch.double))


def fitted(points):
    return {found.name: found for found in fitted_distributions(points, seed=0)}


def weight_of_tails(x):
    squares = x.square().sum(1)
    return float(squares.square().mean() / squares.mean() ** 2)


def fourth_moments(x):
    return x.pow(4).mean(0) / x.square().mean(0) ** 2


def test_whitened_points_have_unit_covariance():
    x = whitened(gaussian(N, DIM) @ gaussian(DIM, DIM, seed=3) + 5)
    assert x.T @ x / N == pytest.approx(torch.eye(DIM).numpy(), abs=1e-9)


def test_heavy_tails_become_a_gaussians_and_light_ones_stay():
    x = student()
    assert weight_of_tails(x) > 2 * (DIM + 2) / DIM
    assert weight_of_tails(tamed(x)) == pytest.approx((DIM + 2) / DIM, rel=0.15)
    assert torch.equal(tamed(cube()), cube())


def test_taming_keeps_points_of_a_curved_surface_on_one():
    x, y = student(2000, 2).T
    surface = whitened(torch.stack([x, y, x * y], 1))
    near = surface.norm(dim=1).argsort()[:40]
    there = tamed(surface)[near]
    stds = torch.linalg.svdvals(there - there.mean(0))
    assert not torch.equal(tamed(surface), surface)
    assert stds[2] < 0.1 * stds[1]


def test_shuffled_components_find_a_turned_cube():
    turned = cube() @ torch.linalg.qr(gaussian(DIM, DIM, seed=2)).Q
    assert fourth_moments(turned).mean() > 2.1
    found = fitted(turned)["independent components"]
    sample = found.draw(generator())
    assert fourth_moments(sample) == pytest.approx(torch.full((DIM,), 1.8).numpy(), abs=0.1)
    assert found.without(sample).shape == (N, DIM - 1)


def test_components_are_those_of_the_data_in_any_order_of_the_rows():
    moments = [
        fourth_moments(fitted(cube()[order])["independent components"].draw(generator())).sort().values
        for order in (torch.arange(N), torch.randperm(N, generator=generator()))
    ]
    assert moments[0].numpy() == pytest.approx(moments[1].numpy(), abs=1e-3)


def test_clusters_keep_their_places_when_a_dimension_goes():
    kinds = torch.randint(0, 2, (N, 1), generator=generator())
    x = whitened(gaussian(N, DIM) + 12 * kinds * torch.tensor([1.0, 0, 0, 0]))
    found = fitted(x)["clusters of one shape"]
    sample = found.draw(generator())
    assert sample.T.cov() == pytest.approx(torch.eye(DIM).numpy(), abs=0.15)
    flat = found.without(sample)
    assert torch.linalg.matrix_rank(flat.T.cov(), rtol=1e-9) == DIM - 1
    between = x[kinds[:, 0] == 1].mean(0) - x[kinds[:, 0] == 0].mean(0)
    assert fourth_moments((flat @ between)[:, None]) < 1.3


def test_isotropic_samples_keep_the_distances_and_are_left_out_for_a_sphere():
    found = fitted(cube())["isotropic distributions"]
    sample = found.draw(generator())
    assert sample.norm(dim=1).numpy() == pytest.approx(cube().norm(dim=1).numpy())
    assert sample.mean(0).abs().max() < 0.15
    assert "isotropic distributions" not in fitted(whitened(normalize(gaussian(N, DIM))))
