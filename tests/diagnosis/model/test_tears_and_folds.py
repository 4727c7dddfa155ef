"""Tears and folds: found where they are, and nowhere else."""

import math

import numpy as np
import pytest
import torch

from helpers.charts import angle, globe, half_circle, linear, rows
from helpers.distributions import gaussian
from twostep.core.schema import DataSpec
from twostep.diagnosis.model.jacobian_spectrum import decoder_spectrum
from twostep.diagnosis.model.tears_and_folds import tears_and_folds
from twostep.models.ae import AutoencoderConfig
from twostep.nn.jacobian import tangents


def of(gae, x):
    z = gae.encode(x)
    return tears_and_folds(gae, x, z, decoder_spectrum(gae, z).metric)


def test_a_circle_is_torn_where_its_angle_jumps():
    x = rows("von-mises-circle", 1000, 0)
    found = of(angle(), x)
    angles = torch.atan2(x[:, 1], x[:, 0])
    assert 2 <= found.torn.sum() <= 10
    assert (angles[found.torn].abs() > math.pi - 0.2).all()
    one, other = found.widest
    assert angles[one] * angles[other] < 0, "on both sides of the discontinuity"
    assert not found.folded.any()


def test_an_arc_is_not_torn():
    x = rows("von-mises-circle", 1000, 0)
    found = of(angle(), x[x[:, 0] > -0.8])
    assert not found.torn.any()
    assert not found.folded.any()
    assert found.widest is None
    assert found.continuity == found.trustworthiness == 1


def test_a_sphere_is_torn_along_its_meridian():
    x = rows("uniform_sphere", 1500, 0)
    found = of(globe(), x)
    torn = x[found.torn].double()
    assert len(torn) > 20
    beside = torch.where(torn[:, 0] < 0, torn[:, 1].abs(), torn[:, :2].norm(dim=1))
    assert float(beside.max()) < 0.3, "near the half circle of longitude π"


def test_overlapping_halves_are_folded():
    x = rows("von-mises-circle", 1000, 0)
    found = of(half_circle(), x)
    assert found.folded.double().mean() > 0.5
    assert found.trustworthiness < 0.9
    assert not found.torn.any()


@pytest.mark.parametrize("d", [2, 20])
def test_linear_charts_keep_neighbours_however_they_stretch(d):
    W = gaussian(40, d, dtype=torch.float32) * torch.logspace(0, 2, d)
    found = of(linear(W), gaussian(500, d, seed=1, dtype=torch.float32) @ W.T)
    assert not found.torn.any()
    assert not found.folded.any()
    assert min(found.continuity, found.trustworthiness) > 0.9999


def test_trustworthiness_is_that_of_scikit_learn():
    from sklearn.manifold import trustworthiness

    x, W = gaussian(300, 6), torch.eye(6)[:, :2]
    gae = linear(W)
    z = gae.encode(x.float())
    found = tears_and_folds(gae, x.float(), z, torch.eye(2, dtype=torch.double))
    table, latents = x.float().numpy().astype(np.float64), z.numpy().astype(np.float64)
    assert found.trustworthiness == pytest.approx(trustworthiness(table, latents, n_neighbors=5), abs=1e-12)
    assert found.continuity == pytest.approx(trustworthiness(latents, table, n_neighbors=5), abs=1e-12)


@pytest.mark.cmd
def test_paths_through_convolutions_are_those_of_the_images_in_any_memory_format():
    torch.manual_seed(0)
    spec = DataSpec(name="images", shape=(2, 6, 5), size=50, low=0, high=1)
    nets = {f"{net}_net": "cnn" for net in ("encoder", "decoder")}
    gae = AutoencoderConfig.for_data(spec, "gae", latent_dim=3, **nets).build(spec).double().eval()
    x = torch.rand(50, *spec.shape).double()
    with torch.no_grad():
        z = gae.encode(x)
        spectrum = decoder_spectrum(gae, z)
        found = tears_and_folds(gae, x, z, spectrum.metric)
        plain = torch.linalg.svdvals(tangents(gae.decode, z).movedim(0, 2))
    assert bool((found.detours < 1).any()), "an untrained decoder hardly moves from one image to its neighbour"
    assert torch.allclose(spectrum.plain, plain, atol=1e-10)
