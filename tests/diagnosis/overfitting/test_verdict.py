"""Verdicts: right where the truth is known, undecided rather than wrong, and with a scale where they depend on one."""

import pytest
import torch
from torch.nn.functional import normalize

from helpers.distributions import gaussian
from twostep.core.estimate import Estimate
from twostep.data.synthetic import distribution
from twostep.diagnosis import diagnose
from twostep.diagnosis.overfitting import denoiser
from twostep.diagnosis.overfitting.contrast import Contrast, contrast

N = 800


def drawn(name, n=N, **keys):
    return distribution(name, keys).sample(n, torch.Generator().manual_seed(0))


def cube(dim, n=N):
    return torch.rand(n, dim, generator=torch.Generator().manual_seed(0), dtype=torch.double)


def clusters(dim, distance=3.0):
    kinds = torch.randint(0, 5, (N,), generator=torch.Generator().manual_seed(1))
    return gaussian(N, dim) + distance * gaussian(5, dim, seed=2)[kinds]


MANIFOLDS = {
    "circle": drawn("von-mises-circle"),
    "circle with noise": drawn("von-mises-circle", noise=1e-3),
    "circle with noise in R^20": drawn("von-mises-circle", noise=1e-3, ambient_dim=20),
    "torus": drawn("torus"),
    "Klein bottle": drawn("klein"),
    "swiss roll": drawn("swiss_roll"),
    "affine": drawn("affine"),
    "affine with noise": drawn("affine", noise=1e-3),
    "plane repeated": drawn("repeated"),
    "S^3": drawn("uniform_sphere", manifold_dim=3),
    "S^5": drawn("uniform_sphere", manifold_dim=5),
    "S^10": drawn("uniform_sphere", manifold_dim=10),
    "network": drawn("network_manifold", manifold_dim=5, ambient_dim=20),
}
FULL = {
    "Gaussian 2": gaussian(N, 2),
    "Gaussian 10": gaussian(N, 10),
    "Gaussian 20": gaussian(N, 20),
    "stretched": gaussian(N, 12) * torch.logspace(0, -2, 12, dtype=torch.double),
    "stretched plane": gaussian(N, 2) * torch.tensor([1, 0.01]),
    "cube 2": cube(2),
    "cube 4": cube(4),
    "cube 12": cube(12),
    "ball 8": normalize(gaussian(N, 8)) * cube(1) ** (1 / 8),
    "Student-t": gaussian(N, 5) / (gaussian(N, 3, seed=1).square().sum(1, keepdim=True) / 3).sqrt(),
    "Student-t in many dimensions": gaussian(N, 12) / (gaussian(N, 3, seed=1).square().sum(1, keepdim=True) / 3).sqrt(),
    "clusters 2": clusters(2),
    "clusters 12": clusters(12),
    "tight clusters": clusters(2, distance=300.0),
    "one coordinate": gaussian(N, 1),
}


def surface_of_a_cube(dim, n=N):
    """Draw from the boundary of [0, 1]^dim."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, dim, generator=generator, dtype=torch.double)
    faces = torch.randint(dim, (n,), generator=generator)
    x[torch.arange(n), faces] = torch.randint(2, (n,), generator=generator).double()
    return x


SKEWED = -cube(11).log()
UNEQUAL = torch.cat([gaussian(N // 2, 12) @ gaussian(12, 12, seed=seed) + 3 * seed for seed in (1, 2)])


@pytest.mark.parametrize("name", MANIFOLDS)
def test_manifolds_overfit(name):
    found = diagnose(MANIFOLDS[name])
    assert found.overfitting.verdict == "yes"
    assert found.latent_dim < MANIFOLDS[name].shape[1]
    assert found.overfitting.at_most >= found.latent_dim


@pytest.mark.parametrize("name", FULL)
def test_full_dimensional_data_do_not_overfit(name):
    found = diagnose(FULL[name])
    assert found.overfitting.verdict == "no"
    assert found.latent_dim == FULL[name].shape[1]


@pytest.mark.parametrize("x", [SKEWED, UNEQUAL, gaussian(60, 20)], ids=["skewed", "unequal clusters", "60 rows"])
def test_what_few_points_cannot_decide_is_undecided(x):
    found = diagnose(x)
    assert found.overfitting.verdict == "undecided"
    assert found.latent_dim <= x.shape[1]


def test_a_thorough_diagnosis_trains_only_where_it_has_to_and_then_decides(monkeypatch):
    monkeypatch.setattr(denoiser, "STEPS", 100)
    assert diagnose(drawn("von-mises-circle"), thorough=True).overfitting.trained is None
    monkeypatch.setattr(Contrast, "is_manifold", None)
    found = diagnose(clusters(8), thorough=True).overfitting
    assert found.verdict == "no"
    assert found.trained is not None
    assert "denoiser" in found.evidence


def test_a_network_that_misses_a_manifold_does_not_make_a_no(monkeypatch):
    monkeypatch.setattr(denoiser, "STEPS", 1)
    monkeypatch.setattr("twostep.diagnosis.overfitting.verdict.enough_rows", lambda n, dim: False)
    monkeypatch.setattr(Contrast, "is_manifold", None)
    found = diagnose(drawn("torus"), thorough=True).overfitting
    assert found.verdict == "undecided"


@pytest.mark.parametrize("name", ["von-mises-circle", "uniform_sphere"])
def test_a_thick_manifold_is_reported_with_its_thickness(name):
    found = diagnose(drawn(name, 2000, noise=0.1)).overfitting
    assert found.verdict == "no"
    assert found.thickness == pytest.approx(0.1, rel=0.3)
    assert f"{found.thickness:.2g}" in found.line()


@pytest.mark.parametrize("noise", [0.003, 0.03])
@pytest.mark.cmd
def test_noise_in_many_directions_hides_no_manifold_above_its_scale(noise):
    found = diagnose(drawn("uniform_sphere", 1000, ambient_dim=20, noise=noise))
    assert found.dimension.recommended == 2
    assert any("17 directions" in reason for reason in found.dimension.reasons)
    if found.overfitting.verdict == "yes":
        assert found.latent_dim == 2
    else:
        assert found.overfitting.thickness == pytest.approx(noise, rel=0.15)


def test_a_swiss_roll_in_noise_has_its_dimension_if_that_is_noise():
    found = diagnose(drawn("swiss_roll", 1000, ambient_dim=20, noise=0.1))
    assert found.overfitting.line().startswith("no (below a scale of 0.1")
    assert found.latent_dim == 20
    assert found.lines()[2].startswith("recommended latent_dim: 20 (")


def test_noise_in_flat_directions_is_reported_with_its_scale():
    found = diagnose(10 * drawn("affine", noise=1e-3))
    assert found.overfitting.thickness == pytest.approx(1e-2, rel=0.1)
    assert found.dimension.recommended == 2
    finest = found.noise_scales.resolved[0]
    assert finest.value - found.dim == pytest.approx(-3, abs=0.25)


def test_positions_between_references_decide():
    def of(value, full=1.98, reduced=1.0, lowest=1.9, dim=2):
        estimate = Estimate.normal(value, 0.03)
        return Contrast(estimate, full, reduced, lowest, "distributions", k=20, dim=dim).is_manifold

    assert [of(value) for value in (0.9, 1.1, 1.5, 1.9, 2.2)] == [True, True, None, False, False]
    assert of(1.1, lowest=1.15) is None
    assert [of(value, 7.1, 6.4, 6.6, dim=8) for value in (4.8, 5.1, 6.4, 6.8, 7.05)] == [True, None, None, None, False]


@pytest.mark.cmd
def test_a_wavy_graph_in_many_dimensions_is_not_called_full():
    z = gaussian(1000, 9)
    directions = torch.linalg.qr(gaussian(9, 9, seed=1)).Q
    height = torch.sin(2 * z @ directions).sum(1, keepdim=True) * (2 / 9) ** 0.5
    found = diagnose(torch.cat([z, height], 1)).overfitting
    assert found.verdict != "no"


def test_clusters_are_compared_with_clusters():
    x = clusters(12)
    found = contrast((x - x.mean(0)) / x.std(0))
    assert found.estimate.value < 0.85 * contrast(gaussian(N, 12)).estimate.value
    assert found.position > 0.9


def test_the_surface_of_a_cube_is_not_said_to_fill_its_space():
    """A fiftieth of the rows lies on each face: neighbours find them like the cube."""
    assert diagnose(surface_of_a_cube(11)).overfitting.verdict == "undecided"


@pytest.mark.cmd
def test_there_is_no_no_where_rows_are_too_few_for_quadrics():
    """Neighbours find 40 curved dimensions in R^60 like a full-dimensional distribution."""
    x = torch.tanh(gaussian(1200, 40) @ gaussian(40, 60, seed=1) / 40**0.5)
    found = diagnose(x).overfitting
    assert found.verdict == "undecided"
    assert "quadrics" in found.evidence
