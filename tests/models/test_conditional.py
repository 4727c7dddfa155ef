"""Densities conditioned on labels: closed forms, mixtures, samples, guidance; and none of it without labels."""

import copy
import itertools
import math

import pytest
import torch
from torch.distributions import Independent, Normal

import twostep
from twostep.core.schema import DataSpec, UserError
from twostep.metrics.ood.scores import scores_of
from twostep.models import MODELS, Autoencoder, TwoStep
from twostep.models.base import evaluating
from twostep.models.parts.conditional import OfBestLabel
from twostep.nn import ode
from twostep.nn.velocity import TimedMLP

NAMES = ("b", "a", "c")
MEANS = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 5.0]])
STDS = torch.tensor([[0.5, 1.0], [1.0, 0.5], [0.7, 0.7]])
SHARES = torch.tensor([0.5, 0.3, 0.2])
SPEC = DataSpec(name="rows", shape=(2,), size=4000, low=-9, high=9, labels=NAMES)
SMALL = {
    "gmm": {},
    "flow": {"hidden_units": 32, "num_layers": 2, "num_blocks_per_layer": 1},
    "nsf": {"transform": "nsf", "hidden_units": 32, "num_layers": 2, "num_blocks_per_layer": 1},
    "fm": {"hidden_units": 48, "num_layers": 2},
}
KINDS = sorted(SMALL)


def truth(y):
    return Independent(Normal(MEANS[y], STDS[y]), 1)


def labelled(n, seed):
    """Draw points of a Gaussian for each label, and the labels."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.multinomial(SHARES, n, True, generator=generator)
    return MEANS[y] + STDS[y] * torch.randn(n, 2, generator=generator), y


def untrained(kind, **keys):
    torch.manual_seed(0)
    return MODELS["flow" if kind == "nsf" else kind].for_data(SPEC, "de", **SMALL[kind], **keys).build(SPEC)


@pytest.fixture(scope="module", params=["flow", "fm", "gmm"])
def model(request):
    x, y = labelled(4000, 0)
    keys = {} if request.param == "gmm" else {"lr": 4e-3, "use_lr_scheduler": True, "max_steps": 200, "valid": None}
    return twostep.fit(untrained(request.param, condition="label"), x, y=y, batch_size=256, **keys)


def test_it_has_the_density_of_each_label_and_of_all(model):
    x, y = labelled(300, 1)
    with evaluating(model):
        each = torch.stack([model.log_prob(x, k) for k in range(3)], 1)
        given, whole = model.log_prob(x, y), model.log_prob(x)
    torch.testing.assert_close(given, each[torch.arange(len(x)), y], atol=1e-5, rtol=1e-5)
    shares = torch.bincount(labelled(4000, 0)[1]) / 4000
    torch.testing.assert_close(whole, (each + shares.log()).logsumexp(1), atol=1e-5, rtol=1e-5)
    assert float((truth(y).log_prob(x) - given).mean()) < 0.1  # KL of the truth to the model
    assert float((each.argmax(1) == y).float().mean()) > 0.95


def test_a_rare_label_does_not_hide_a_frequent_one(model, monkeypatch):
    x = torch.cartesian_prod(torch.linspace(-3, 7, 15), torch.linspace(-3, 7, 15))
    monkeypatch.setattr("twostep.models.fm.NEGLIGIBLE", 3.0)
    model = copy.deepcopy(model)
    model.log_shares = torch.tensor([1 - 2e-9, 1e-9, 1e-9]).log()
    with evaluating(model):
        each = torch.stack([model.log_prob(x, k) for k in range(3)], 1)
        torch.testing.assert_close(model.log_prob(x), (each + model.log_shares).logsumexp(1), atol=0.1, rtol=1e-5)


def test_its_integral_is_one_for_each_label(model):
    side = torch.linspace(-5, 9, 43)
    points = torch.cartesian_prod(side, side)
    with evaluating(model):
        for k in range(3):
            integral = float(model.log_prob(points, k).double().exp().sum()) * float(side[1] - side[0]) ** 2
            assert integral == pytest.approx(1, abs=0.01)


def test_samples_have_their_label(model):
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(3).repeat_interleave(500)
    with evaluating(model):
        x, every = model.sample(1500, generator, y), model.sample(2000, generator)
        label = model.best_label(every)[1]
    for k in range(3):
        torch.testing.assert_close(x[y == k].mean(0), MEANS[k], atol=0.25, rtol=0)
        assert float((label == k).float().mean()) == pytest.approx(float(SHARES[k]), abs=0.05)


def test_a_point_is_as_unusual_as_for_its_best_label(model):
    x, _ = labelled(100, 2)
    with evaluating(model):
        each = torch.stack([model.log_prob(x, k) for k in range(3)], 1)
        torch.testing.assert_close(OfBestLabel(model).log_prob(x), each.amax(1), atol=1e-5, rtol=1e-5)
        (score,) = scores_of(model)
        assert score.of is not None
        torch.testing.assert_close(score.of(x), each.amax(1), atol=1e-5, rtol=1e-5)


def test_what_is_no_label_is_refused(model):
    x, _ = labelled(4, 0)
    for y in (3, -1, 0.5, torch.tensor([0, 1, 2, 7]), torch.tensor([0, 1])):
        with pytest.raises(UserError, match="label"):
            model.log_prob(x, y)
        with pytest.raises(UserError, match="label"):
            model.sample(4, y=y)


def test_a_two_step_model_is_conditional_too(model):
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]])
    encoder, decoder = torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        encoder.weight.copy_(turn)
        decoder.weight.copy_(2 * turn.T)  # which doubles lengths
    whole = TwoStep(Autoencoder(encoder, decoder, latent_dim=2), model)
    x, y = labelled(50, 3)
    x = x @ turn  # whose embeddings are the points
    with evaluating(whole):
        for label in (y, 1):
            expected = model.log_prob(x @ turn.T, label)
            torch.testing.assert_close(whole.log_prob_latent(x, label), expected, atol=1e-4, rtol=1e-5)
            torch.testing.assert_close(whole.log_prob(x, label), expected - math.log(4), atol=1e-4, rtol=1e-5)
        drawn = whole.sample(500, torch.Generator().manual_seed(0), 1)
        torch.testing.assert_close(drawn.mean(0) @ turn.T / 2, MEANS[1], atol=0.25, rtol=0)
        scores = {score.name: score.of for score in scores_of(whole)}
        best = model.best_label(x @ turn.T)[0]
        torch.testing.assert_close(scores["log_prob_latent"](x), best, atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(scores["log_prob"](x), best - math.log(4), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("kind", ["flow", "nsf"])
@pytest.mark.parametrize("dim", [1, 3])
def test_a_flow_has_an_inverse_for_each_label(kind, dim):
    spec = SPEC.model_copy(update={"shape": (dim,)})
    torch.manual_seed(0)
    model = MODELS["flow"].for_data(spec, "de", condition="label", **SMALL[kind]).build(spec).double()
    for weight in model.parameters():
        weight.data.add_(0.1 * torch.randn_like(weight))
    u, y = torch.randn(30, dim).double(), torch.arange(30) % 3
    c = model.code(y, u)
    x = model.layers.inverse(u, c)
    torch.testing.assert_close(model.layers(x, c)[0], u, atol=1e-4, rtol=0)
    assert not torch.allclose(model.layers(x, model.code((y + 1) % 3, u))[0], u, atol=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_without_labels_nothing_changes(kind):
    plain, conditional = untrained(kind), untrained(kind, condition="label")
    assert plain.labels == 0
    assert "log_shares" not in plain.state_dict()
    assert "log_shares" in conditional.state_dict()
    if kind != "gmm":
        assert plain.state_dict().keys() <= conditional.state_dict().keys()
    for call in (lambda: plain.log_prob(torch.zeros(2, 2), 0), lambda: TwoStep(_identity(), plain).sample(2, y=0)):
        with pytest.raises(UserError, match="condition=label"):
            call()


def _identity():
    return Autoencoder(torch.nn.Identity(), torch.nn.Identity(), latent_dim=2)


def test_data_without_labels_are_refused():
    spec, images = SPEC.model_copy(update={"labels": ()}), SPEC.model_copy(update={"shape": (1, 4, 4)})
    for name, one in itertools.product(("gmm", "flow", "fm"), (spec, images)):
        with pytest.raises(UserError, match="condition=label"):
            MODELS[name].for_data(one, "de", condition="label").build(one)
    with pytest.raises(UserError, match="condition"):
        MODELS["flow"].for_data(SPEC, "de", condition="x")
    for name in ("arm", "ebm", "vae", "avb", "kde"):
        with pytest.raises(UserError, match="condition"):
            MODELS[name].for_data(SPEC, "de", condition="label")


def test_a_rare_label_shares_the_mixture_of_all_and_an_unseen_one_has_no_share(caplog):
    x, y = labelled(500, 0)
    y = torch.where(y == 2, 0, y)
    y[:3] = 1
    x, y = x[(y == 0) | (torch.arange(500) < 3)], y[(y == 0) | (torch.arange(500) < 3)]
    model = twostep.fit(untrained("gmm", condition="label"), x, y=y)
    assert "fewer than 20" in caplog.text
    torch.testing.assert_close(model.mixtures[1].means, model.mixtures[2].means)
    assert model.log_shares[2] == -math.inf
    assert model.log_prob(x).isfinite().all()
    with pytest.raises(UserError, match="label 2"):
        model.sample(3, y=2)


def test_guidance_goes_from_no_label_to_beyond_the_label():
    x, y = labelled(4000, 0)
    keys = {"lr": 4e-3, "use_lr_scheduler": True, "max_steps": 300, "valid": None}
    model = twostep.fit(untrained("fm", condition="label"), x, y=y, batch_size=256, **keys)
    drawn = {}
    for model.guidance in (0.0, 0.999999, 1.0, 3.0):
        drawn[model.guidance] = model.sample(400, torch.Generator().manual_seed(0), 1)
    u = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    times = torch.linspace(0, 1, model.steps + 1)
    with torch.no_grad():
        for w, c in ((0.0, None), (1.0, model.code(torch.ones(400).long(), u))):
            end = ode.integrate(lambda s, y, c=c: model.velocity(s, y, c), u, times)
            assert torch.equal(drawn[w], model.transform.inverse(end))
    torch.testing.assert_close(drawn[1.0], drawn[0.999999], atol=1e-3, rtol=0)
    beyond = drawn[3.0].mean(0) - drawn[1.0].mean(0)
    assert float(beyond @ (MEANS[1] - (SHARES @ MEANS))) > 0  # further from all than the label is


def test_a_network_of_rows_without_a_label_is_that_of_no_condition():
    torch.manual_seed(0)
    network = TimedMLP(3, 16, 2, conditions=4).double()
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    t, y = torch.rand(5).double(), torch.randn(5, 3).double()
    assert torch.equal(network(t, y), network(t, y, torch.zeros(5, 4).double()))
    assert not torch.allclose(network(t, y), network(t, y, torch.eye(4)[[0, 1, 2, 3, 0]].double()))
    alone = TimedMLP(3, 16, 2).double()
    alone.load_state_dict({name: one for name, one in network.state_dict().items() if "condition" not in name})
    assert torch.equal(alone(t, y), network(t, y))
