"""Models made of any networks, without a config: used, trained and saved as they are."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from twostep.models import ARM, AVB, EBM, VAE, WAE, Autoencoder, BiGAN, Flow, TwoStep
from twostep.models.base import evaluating
from twostep.models.parts.coupling import ConstantConditioner, Couplings, FlowLayer, Multiscale, Stack
from twostep.models.parts.langevin import Langevin
from twostep.nn.mlp import MLP, JoinedNet
from twostep.nn.principal import Principal
from twostep.nn.transforms import Chain, Flatten, Noise, Scale, Whiten

DIM, LATENT = 3, 2


class Encoder(nn.Module):
    def __init__(self, outputs=LATENT):
        super().__init__()
        self.weight = nn.Parameter(0.3 * torch.randn(DIM, outputs))

    def forward(self, y):
        return torch.tanh(y @ self.weight)


class Decoder(nn.Module):
    def __init__(self, outputs=DIM):
        super().__init__()
        self.weight = nn.Parameter(0.5 * torch.randn(LATENT, outputs))

    def forward(self, z):
        return (z + z.sin()) @ self.weight


class Wrapped(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, z):
        return self.net(z)


class Pairs(nn.Module):
    """A critic of its own kind, of a point and a code."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(DIM + LATENT, 1)

    def forward(self, y, z):
        return self.net(torch.cat([y, z], 1)).square()


class Energy(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.7))

    def forward(self, y):
        return self.scale * y.square().sum(1)


def layer(dim):
    return FlowLayer(ConstantConditioner(8), torch.arange(dim).flip(0), bins=3, bound=2.0)


def avb():
    return AVB(
        JoinedNet(nn.Sequential(nn.Linear(DIM, 8), nn.ELU(), nn.Linear(8, LATENT)), 4),
        Decoder(),
        JoinedNet(MLP(DIM, (8,), 1, "relu"), LATENT),
        LATENT,
        adaptive_contrast=True,
    )


MAKE = {
    "ae": lambda: Autoencoder(Encoder(), Decoder(), LATENT),
    "vae": lambda: VAE(Encoder(2 * LATENT), Decoder(), LATENT, k=3),
    "vae, sigma of the decoder": lambda: VAE(Encoder(2 * LATENT), Decoder(DIM + 1), LATENT, sigma_from="calibrated"),
    "vae, a sigma each": lambda: VAE(Encoder(2 * LATENT), Decoder(2 * DIM), LATENT, single_sigma=False),
    "wae": lambda: WAE(Encoder(), Decoder(), nn.Linear(LATENT, 1), LATENT, sigma=2.0, penalty_weight=0.5),
    "bigan": lambda: BiGAN(Encoder(), Decoder(), Pairs(), LATENT, gradient_penalty=False),
    "avb": avb,
    "arm": lambda: ARM((DIM,), hidden_size=5, k_mixture=2),
    "ebm": lambda: EBM(Energy(), (DIM,), langevin=Langevin(0.1, 0.4, (-5.0, 5.0)), ld_steps=5, max_length_buffer=64),
    "flow": lambda: Flow(Stack([FlowLayer(MLP(1, (4,), 2 * 8, "tanh"), torch.randperm(DIM), 3, 2.0)]), (DIM,)),
}


def build(name, seed=0):
    torch.manual_seed(seed)
    return MAKE[name]()


def points(n=64, seed=1):
    return torch.randn(n, DIM, generator=torch.Generator().manual_seed(seed))


def answers(model, x):
    said = {}
    with evaluating(model):
        torch.manual_seed(0)
        for name in ("encode", "reconstruction_error", "log_prob"):
            if hasattr(model, name):
                said[name] = getattr(model, name)(x)
        if hasattr(model, "sample"):
            said["sample"] = model.sample(4, torch.Generator().manual_seed(2))
    return said


def trained(model, x, steps=20):
    optimizers = [(one, torch.optim.Adam(one.parameters, lr=1e-2)) for one in model.objectives()]
    losses = []
    for step in range(steps):
        for objective, optimizer in optimizers:
            torch.manual_seed(step)
            optimizer.zero_grad()
            loss = objective.loss(x)
            loss.backward(inputs=list(objective.parameters))
            optimizer.step()
            if objective.after:
                objective.after(lambda rows: rows)
            losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("name", MAKE)
def test_a_model_of_own_networks_answers_trains_and_is_saved_by_its_state(name, tmp_path):
    model, x = build(name), points()
    assert model.event_shape == (DIM,)
    model.fit_transform([x])
    losses = trained(model, x)
    assert all(math.isfinite(loss) for loss in losses)
    said = answers(model, x)
    assert {len(answer) for key, answer in said.items() if key != "sample"} <= {len(x)}
    assert all(torch.isfinite(answer).all() for answer in said.values())
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    fresh = build(name, seed=1)
    fresh.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    again = answers(fresh, x)
    assert all(torch.equal(said[key], again[key]) for key in said)


def test_an_own_autoencoder_learns_by_its_objective():
    model, x = build("ae"), points() @ torch.tensor([[1.0, 0, 1], [0, 1, 1], [0, 0, 0.01]])
    losses = trained(model, x, 300)
    assert losses[-1] < 0.5 * losses[0]


def test_transform_noise_and_range_are_arguments():
    torch.manual_seed(0)
    shape = (1, 1, DIM)
    transform = Chain([Flatten(shape), Scale(dequantized=True), Whiten((DIM,))])
    model = VAE(
        Encoder(2 * LATENT), Decoder(), LATENT, transform=transform, noise=Noise(dequantize=True), sample_range=(0, 255)
    )
    x = torch.randint(0, 256, (40, *shape)).float()
    model.fit_transform([x])
    assert (model.event_shape, model.dim) == (shape, DIM)
    samples = model.sample(200, torch.Generator().manual_seed(0))
    assert samples.shape == (200, *shape)
    samples = samples.detach()
    assert 0 <= float(samples.min()) <= float(samples.max()) <= 255
    torch.manual_seed(0)
    first = model.log_prob(x)
    assert not torch.equal(first, model.log_prob(x)), "integers are dequantised inside"


@pytest.mark.parametrize("name", ["ae", "vae", "vae, sigma of the decoder", "wae", "bigan", "avb"])
@pytest.mark.parametrize("affine", [True, False])
def test_the_volume_of_an_own_decoder_is_that_of_autograds_jacobian(name, affine):
    model = build(name).double().eval()
    if affine:
        model.transform = Chain([Whiten((DIM,))]).double()
        model.transform.fit([2 * points().double() + 1])
    z = torch.randn(5, LATENT, dtype=torch.float64)
    for point, value in zip(z, model.log_volume(z).detach(), strict=True):
        J = torch.autograd.functional.jacobian(lambda z: model.decode(z[None]).flatten(), point)
        assert float(value) == pytest.approx(float(torch.linalg.slogdet(J.T @ J).logabsdet / 2), abs=1e-10)


def test_a_decoder_of_known_layers_has_the_volume_of_the_general_route():
    torch.manual_seed(0)
    known = MLP(LATENT, (7,), DIM, "tanh")
    z = torch.randn(6, LATENT, dtype=torch.float64)
    one, other = (Autoencoder(Encoder(), net, LATENT).double().log_volume(z) for net in (known, Wrapped(known)))
    assert torch.allclose(one, other, atol=1e-12)


def test_a_flow_of_linear_layers_has_the_density_of_its_gaussian():
    """A spline of equal numbers is the identity, so each layer is its linear map after its permutation."""
    torch.manual_seed(0)
    flow = Flow(Stack([layer(2), layer(2)]), (2,), transform=Whiten((2,))).double()
    total = torch.eye(2, dtype=torch.float64)
    for one in flow.layers.layers:
        one.lower_upper.data = torch.eye(2).double() + 0.3 * torch.randn(2, 2).double()
        total = one.lower_upper.tril() @ (one.lower_upper.triu(1) + torch.eye(2)) @ total[[1, 0]]
    x = points()[:, :2].double() * 3 + 1
    flow.transform.fit([x])
    y = (x - x.mean(0)) / x.std(0, correction=0)
    inverse = torch.linalg.inv(total.detach())
    expected = MultivariateNormal(torch.zeros(2).double(), inverse @ inverse.T).log_prob(y)
    expected = expected - x.std(0, correction=0).log().sum()
    assert torch.allclose(flow.log_prob(x).detach(), expected, atol=1e-9)


def test_a_flow_on_the_embeddings_of_an_own_autoencoder():
    gae, x = build("ae").double(), points().double()
    z = gae.encode(x).detach()
    de = Flow(Stack([layer(LATENT)]), (LATENT,), transform=Whiten((LATENT,))).double()
    de.fit_transform([z])
    model = TwoStep(gae, de)
    got = model.log_prob(x[:4]).detach()
    for point, value in zip(z[:4], got, strict=True):
        J = torch.autograd.functional.jacobian(lambda z: gae.decode(z[None]).flatten(), point)
        expected = de.log_prob(point[None])[0] - torch.linalg.slogdet(J.T @ J).logabsdet / 2
        assert float(value) == pytest.approx(float(expected.detach()), abs=1e-9)
    assert model.event_shape == (DIM,)
    assert model.sample(5).shape == (5, DIM)


def test_a_multiscale_flow_takes_images():
    torch.manual_seed(0)
    couplings = Couplings(num_layers=1, hidden_units=3, num_blocks_per_layer=1, num_bins=2)
    flow = Flow(Multiscale((1, 4, 4), couplings), (1, 4, 4))
    assert flow.sample(3).shape == (3, 1, 4, 4)
    assert flow.log_prob(torch.randn(5, 1, 4, 4)).shape == (5,)


def test_an_own_energy_on_a_gaussian_base():
    """With energy 0 the density is the Gaussian of the data."""

    class Nothing(nn.Module):
        def forward(self, y: Tensor) -> Tensor:
            return 0 * y.sum(1)

    axes = Principal(DIM, power=1.0)
    model = EBM(Nothing(), (DIM,), transform=axes, axes=axes).double()
    x = (points() @ torch.tensor([[2.0, 0, 0], [1, 1, 0], [0, 0, 0.5]])).double()
    model.fit_transform([x])
    expected = MultivariateNormal(x.mean(0), x.T.cov(correction=0)).log_prob(x)
    assert torch.allclose(model.log_prob(x), expected, atol=1e-9)
