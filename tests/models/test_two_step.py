"""The two-step model against closed forms, and where its density is not finite."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from twostep.core.schema import DataSpec
from twostep.models.ae import AutoencoderConfig
from twostep.models.base import evaluating
from twostep.models.flow import FlowConfig
from twostep.models.two_step import TwoStep, latent_spec
from twostep.models.vae import VAEConfig

DIM, LATENT = 6, 2
VECTORS = DataSpec(name="vectors", shape=(DIM,), size=100, low=-3, high=3)
IMAGES = DataSpec(name="images", shape=(1, 4, 5), size=100, low=0, high=255, discrete=True)


def gaussian_flow(spec, **keys):
    """Return a flow that is a Gaussian: its splines are the identity, its linear maps are not."""
    torch.manual_seed(0)
    model = FlowConfig(num_layers=2, hidden_units=4, num_blocks_per_layer=1, **keys).build(spec).double()
    with torch.no_grad():
        for layer in model.layers.layers:
            for parameter in layer.conditioner.parameters():
                parameter.zero_()
            layer.lower_upper.copy_(torch.tensor([[1.5, 0.4], [-0.3, 0.8]]))
    return model


def linear_two_step(scale=1.0):
    """Return a linear autoencoder of `scale` times some data with a Gaussian flow, its decoder's matrix, the data."""
    generator = torch.Generator().manual_seed(3)
    W = torch.randn(DIM, LATENT, generator=generator, dtype=torch.float64)
    b = torch.randn(DIM, generator=generator, dtype=torch.float64)
    x = scale * (torch.randn(300, LATENT, generator=generator, dtype=torch.float64) @ W.T + b)
    config = AutoencoderConfig(latent_dim=LATENT, encoder_hidden_dims=(), decoder_hidden_dims=(), scale_data=True)
    gae = config.build(VECTORS).double()
    gae.fit_transform([x])
    unit = float(x.abs().max())
    inner, origin = W / 7, scale * b / unit
    with torch.no_grad():
        gae.decoder[0].weight.copy_(inner)
        gae.decoder[0].bias.copy_(origin)
        gae.encoder[0].weight.copy_(torch.linalg.pinv(inner))
        gae.encoder[0].bias.copy_(-torch.linalg.pinv(inner) @ origin)
    de = gaussian_flow(latent_spec(VECTORS, LATENT), whitening_transform=True)
    with torch.no_grad():
        de.fit_transform([gae.encode(x)])
    model = TwoStep(gae, de).eval().requires_grad_(False)
    return model, unit * inner, x


def latent_distribution(de):
    """Return the Gaussian that a flow of linear maps is."""
    origin = de.transform.inverse(torch.zeros(1, LATENT).double())[0]

    def to_noise(z):
        h = de.transform(z[None])
        for layer in de.layers.layers:
            h, _ = layer(h)
        return h[0]

    inverse = torch.linalg.inv(torch.autograd.functional.jacobian(to_noise, origin))
    return MultivariateNormal(origin, inverse @ inverse.T)


def test_a_linear_decoder_with_a_gaussian_in_closed_form():
    model, W, _ = linear_two_step()
    distribution = latent_distribution(model.de)
    z = distribution.sample((50,))
    x = model.decode(z)
    on_the_plane = distribution.log_prob(z) - torch.linalg.slogdet(W.T @ W).logabsdet / 2
    assert torch.allclose(model.encode(x), z, atol=1e-9)
    assert torch.allclose(model.log_prob(x), on_the_plane, rtol=0, atol=1e-8)
    assert torch.allclose(model.log_prob_latent(x), distribution.log_prob(z), rtol=0, atol=1e-8)


def test_the_density_on_the_plane_is_that_of_the_degenerate_gaussian():
    """The distribution of x = W z + c in an orthonormal basis of its plane, found without the decoder's volume."""
    model, W, _ = linear_two_step()
    distribution = latent_distribution(model.de)
    x = model.decode(distribution.sample((50,)))
    basis = torch.linalg.qr(W).Q
    centre = model.decode(distribution.mean[None])[0]
    flat = MultivariateNormal(torch.zeros(LATENT).double(), basis.T @ W @ distribution.covariance_matrix @ W.T @ basis)
    assert torch.allclose(model.log_prob(x), flat.log_prob((x - centre) @ basis), rtol=0, atol=1e-8)


def test_a_change_of_units_moves_the_density_by_the_latent_dimension():
    """Area on a d-dimensional manifold grows with the d-th power of the unit, whatever D is."""
    (model, _, x), (other, _, scaled) = linear_two_step(), linear_two_step(25.0)
    assert torch.allclose(scaled, 25 * x)
    assert torch.allclose(other.log_prob_latent(scaled), model.log_prob_latent(x), rtol=0, atol=1e-8)
    assert torch.allclose(other.log_prob(scaled), model.log_prob(x) - LATENT * math.log(25), rtol=0, atol=1e-8)


def test_off_the_plane_a_point_has_the_density_of_its_projection_and_its_distance_tells():
    model, W, x = linear_two_step()
    normal = torch.linalg.svd(W).U[:, -1]
    assert torch.allclose(model.log_prob(x + 4 * normal), model.log_prob(x), rtol=0, atol=1e-8)
    assert torch.allclose(model.reconstruction_error(x + 4 * normal), torch.full((300,), 16.0).double(), atol=1e-8)
    assert torch.allclose(model.reconstruction_error(x), torch.zeros(300).double(), atol=1e-8)


@pytest.mark.parametrize(
    "keys",
    [{}, {"scale_data": True}, {"whitening_transform": True}, {"scale_data": True, "logit_transform": True}],
    ids=lambda keys: "+".join(keys) or "plain",
)
def test_the_density_on_a_curve_integrates_to_one(keys):
    """Mass along the decoder's curve: the sum of density times length over its pieces."""
    torch.manual_seed(0)
    spec = DataSpec(name="curve", shape=(3,), size=100, low=0, high=9)
    sizes = {"encoder_hidden_dims": (8,), "decoder_hidden_dims": (16,), "decoder_activation": "tanh"}
    gae = AutoencoderConfig(latent_dim=1, **sizes, **keys).build(spec).double().requires_grad_(False)
    gae.fit_transform([9 * torch.rand(100, 3, dtype=torch.float64) * torch.tensor([1.0, 0.5, 0.1])])
    de = FlowConfig(num_layers=2, whitening_transform=True).build(latent_spec(spec, 1)).double().requires_grad_(False)
    for layer in de.layers.layers:
        layer.conditioner.values.normal_()
    de.fit_transform([torch.randn(200, 1, dtype=torch.float64)])
    z = torch.linspace(-12, 12, 20_001, dtype=torch.float64)[:, None]
    density = (de.log_prob(z) - gae.log_volume(z)).exp()
    lengths = (gae.decode(z)[1:] - gae.decode(z)[:-1]).norm(dim=1)
    assert float(((density[1:] + density[:-1]) / 2 * lengths).sum()) == pytest.approx(1, abs=0.01)


def test_the_density_is_infinite_exactly_where_the_decoder_is_singular():
    model, _, x = linear_two_step()
    with torch.no_grad():
        model.gae.decoder[0].weight[:, 1] = 2 * model.gae.decoder[0].weight[:, 0]
    assert model.log_prob(x[:4]).tolist() == [math.inf] * 4
    assert torch.isfinite(model.log_prob_latent(x[:4])).all()


def test_a_bound_on_the_embeddings_is_a_bound_on_the_data():
    gae = AutoencoderConfig(latent_dim=LATENT).build(VECTORS)
    spec = latent_spec(VECTORS, LATENT)
    assert TwoStep(gae, FlowConfig().build(spec)).likelihood == "exact"
    assert TwoStep(gae, VAEConfig.for_data(spec, "de").build(spec)).likelihood == "bound"


@pytest.mark.parametrize("clamp", [True, False])
def test_samples_lie_on_the_manifold_and_are_clamped_if_asked(clamp):
    torch.manual_seed(0)
    config = VAEConfig.for_data(IMAGES, "gae", latent_dim=3, clamp_samples=clamp)
    gae = config.build(IMAGES)
    de = FlowConfig.for_data(latent_spec(IMAGES, 3), "de").build(latent_spec(IMAGES, 3))
    gae.fit_transform([torch.full((2, 1, 4, 5), 255.0)])
    de.fit_transform([4 * torch.randn(50, 3)])
    model = TwoStep(gae, de)
    with evaluating(model):
        x = model.sample(30, torch.Generator().manual_seed(1))
        on_manifold = gae.decode(de.sample(30, torch.Generator().manual_seed(1)))
    assert x.shape == (30, 1, 4, 5)
    assert torch.equal(x, on_manifold.clamp(0, 255) if clamp else on_manifold)
    assert bool((on_manifold < 0).any())


def test_each_method_is_that_of_its_part_and_the_facts_are_the_datas():
    model, _, x = linear_two_step()
    assert model.event_shape == VECTORS.shape
    assert torch.equal(model.encode(x), model.gae.encode(x))
    assert torch.equal(model.decode(model.encode(x)), model.gae.decode(model.gae.encode(x)))
    assert torch.equal(model.log_prob_latent(x), model.de.log_prob(model.gae.encode(x)))


def test_embeddings_have_no_range_and_no_bins():
    spec = latent_spec(IMAGES, 7)
    assert (spec.shape, spec.size, spec.low, spec.high, spec.discrete) == ((7,), 100, -math.inf, math.inf, False)
    assert not spec.is_image


def test_a_stochastic_bound_is_computed_at_one_embedding():
    """Encoder and decoder volume must see the same z, or the density is that of no point."""
    model, _, x = linear_two_step()
    seen = []
    plain = model.gae.log_volume
    model.gae.log_volume = lambda z: seen.append(z) or plain(z)
    prob = model.de.log_prob
    model.de.log_prob = lambda z: seen.append(z) or prob(z)
    model.log_prob(x)
    assert seen[0] is seen[1]
