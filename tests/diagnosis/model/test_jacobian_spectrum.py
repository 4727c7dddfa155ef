"""Dimension by a trained model: spectra of decoders in closed form, units that are not active."""

import torch

from helpers.charts import angle, globe, linear
from helpers.distributions import gaussian
from twostep.diagnosis.model.jacobian_spectrum import decoder_spectrum


def matrix(dim, d, seed=0):
    return gaussian(dim, d, seed=seed, dtype=torch.float32)


def test_the_spectrum_of_a_linear_decoder_is_that_of_its_matrix():
    W, z = matrix(6, 3), gaussian(400, 3, seed=1, dtype=torch.float32)
    found = decoder_spectrum(linear(W), z)
    assert torch.allclose(found.plain, torch.linalg.svdvals(W.double()).expand(400, 3), rtol=1e-5)
    expected = torch.linalg.svdvals(W.double() @ torch.linalg.cholesky(z.double().T.cov()))
    assert torch.allclose(found.values, expected.expand(400, 3), rtol=1e-5)
    assert torch.allclose(found.metric, W.double().T @ W.double(), rtol=1e-5)
    assert found.dimension == 3
    assert not found.singular.any()


def test_a_linear_map_of_the_embeddings_changes_nothing():
    W, z, A = matrix(6, 3), gaussian(400, 3, seed=1, dtype=torch.float32), torch.diag(torch.tensor([1.0, 50.0, 2000.0]))
    one, other = decoder_spectrum(linear(W), z), decoder_spectrum(linear(W @ A.inverse()), z @ A)
    assert torch.allclose(one.values, other.values, rtol=1e-3)
    assert other.plain[0, 0] / other.plain[0, -1] > 100


def test_directions_that_data_do_not_use_do_not_count():
    z = gaussian(400, 4, seed=1, dtype=torch.float32)
    z[:, 2:] *= torch.tensor([1e-4, 0.0])
    found = decoder_spectrum(linear(matrix(9, 4)), z)
    assert found.dimension == 2
    assert not found.singular.any(), "the decoder itself has full rank"


def test_a_decoder_of_lower_rank_is_singular():
    W = matrix(5, 3)
    W[:, 2] = W[:, 0] + W[:, 1]
    found = decoder_spectrum(linear(W), gaussian(200, 3, seed=1, dtype=torch.float32))
    assert found.singular.all()
    assert found.dimension == 2


def test_more_embeddings_than_coordinates_are_of_lower_rank():
    found = decoder_spectrum(linear(matrix(2, 3)), gaussian(200, 3, seed=1, dtype=torch.float32))
    assert found.dimension == 2
    assert (found.values[:, 2] == 0).all()
    assert found.conditions.isinf().all()


def test_curved_decoders_have_their_own_spectrum_at_each_point():
    z = torch.linspace(-3, 3, 50)[:, None]
    assert torch.allclose(decoder_spectrum(angle(), z).plain, torch.ones(50, 1, dtype=torch.double))
    z = torch.rand(100, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = decoder_spectrum(globe(), z).plain
    assert torch.allclose(found[:, 0], torch.ones(100, dtype=torch.double))
    assert torch.allclose(found[:, 1], z[:, 1].cos().double(), atol=1e-6)
