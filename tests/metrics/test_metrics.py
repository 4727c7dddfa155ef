"""Metrics against NumPy by hand: means over rows, errors of means, what is left out, who is refused."""

import math
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from helpers import known_models as known
from twostep.core.schema import DataSpec, UserError
from twostep.data.batches import Batches
from twostep.metrics import METRICS, Result, check_metrics, evaluate
from twostep.metrics.base import RowMean
from twostep.models import MODELS
from twostep.models.base import Objective
from twostep.models.two_step import TwoStep, latent_spec

VECTORS = DataSpec(name="vectors", shape=(3,), size=23, low=-5, high=5)
PIXELS = DataSpec(name="pixels", shape=(1, 2, 3), size=23, low=0, high=255, discrete=True)
SMALL = {"latent_dim": 2, "encoder_hidden_dims": (6,), "decoder_hidden_dims": (6,)}


def alone(values):
    """Stand for the sum over ranks in one process."""
    return values


def build(name, role, spec=VECTORS, seed=0, **overrides):
    torch.manual_seed(seed)
    keys = {"flow": {"hidden_units": 5, "num_layers": 1, "num_blocks_per_layer": 1}}.get(name, SMALL)
    model = MODELS[name].for_data(spec, role, **keys, **overrides).build(spec)
    model.fit_transform([points(spec)])
    return model


def points(spec=VECTORS, n=23, seed=1):
    generator = torch.Generator().manual_seed(seed)
    if spec.discrete:
        return torch.randint(0, 256, (n, *spec.shape), generator=generator).float()
    return torch.randn(n, *spec.shape, generator=generator)


def measure(name, model, batches, seed=0):
    return evaluate([name], model, batches, alone, seed)


class Given(known.Given):
    """One with a loss, too."""

    def objectives(self):
        return (Objective("loss", lambda x: x[:, 0].mean(), ()),)


def given():
    return Given(MODELS["flow"].for_data(VECTORS, "de", whitening_transform=False), VECTORS)


# ---- moments


@pytest.mark.parametrize("size", [1, 5, 11, 22, 23, 100])
def test_moments_are_numpys_whatever_the_batches(size):
    values = points()[:, 0].double()
    moments = RowMean.of(values.split(size), alone)
    assert moments.mean == pytest.approx(np.mean(values.numpy()), abs=1e-12)
    assert moments.standard_error == pytest.approx(np.std(values.numpy(), ddof=1) / math.sqrt(23), rel=1e-9)
    assert (moments.n, moments.left_out) == (23, 0)


def test_moments_survive_a_large_mean_and_single_precision():
    values = (1e4 + points(n=1000)[:, 0]).float()
    moments = RowMean.of(values.split(64), alone)
    exact = values.double().numpy()
    assert moments.mean == pytest.approx(exact.mean(), rel=1e-12)
    assert moments.standard_error == pytest.approx(exact.std(ddof=1) / math.sqrt(1000), rel=1e-5)


def test_equal_values_have_no_error_and_one_value_has_none_defined():
    assert RowMean.of([torch.full((5,), 0.1)], alone).standard_error == pytest.approx(0, abs=1e-8)
    assert RowMean.of([torch.tensor([2.5])], alone) == RowMean(2.5, None, 1, 0)


@pytest.mark.parametrize("shares", [(slice(0, None, 2), slice(1, None, 2)), (slice(0, None), None)])
def test_moments_add_up_over_ranks(shares):
    """Two threads stand for two ranks: each waits for the other's part of every sum; one may have no rows."""
    values = points()[:, 0]
    parts = [{}, {}]
    barrier = Barrier(2, timeout=20)

    def rank(number):
        def add(mine):
            parts[number] = mine
            barrier.wait()
            total = parts[0] + parts[1]
            barrier.wait()
            return total

        return RowMean.of([] if shares[number] is None else [values[shares[number]]], add)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(rank, range(2))
    assert first == second
    assert first.n == 23
    exact = values.double().numpy()
    assert first.mean == pytest.approx(exact.mean(), abs=1e-12)
    assert first.standard_error == pytest.approx(exact.std(ddof=1) / math.sqrt(23), rel=1e-12)


def test_only_the_value_that_is_named_is_left_out():
    values = torch.tensor([1.0, math.inf, 3.0, math.inf])
    assert RowMean.of([values], alone, leave_out=math.inf) == RowMean(2.0, 1.0, 2, 2)
    assert RowMean.of([values], alone) == RowMean(math.inf, None, 4, 0)
    assert RowMean.of([-values], alone, leave_out=math.inf).mean == -math.inf


def test_nan_stays_nan_and_has_no_error():
    moments = RowMean.of([torch.tensor([1.0, math.nan, 2.0])], alone)
    assert math.isnan(moments.mean)
    assert moments.standard_error is None


def test_everything_left_out_is_no_number():
    moments = RowMean.of([torch.full((3,), math.inf)], alone, leave_out=math.inf)
    assert math.isnan(moments.mean)
    assert (moments.n, moments.left_out) == (0, 3)


# ---- reconstruction


@pytest.mark.parametrize("spec", [VECTORS, PIXELS], ids=lambda spec: spec.name)
@pytest.mark.parametrize("size", [1, 11, 23])
def test_reconstruction_error_is_the_squared_distance(spec, size):
    model, x = build("ae", "gae", spec), points(spec)
    with torch.no_grad():
        gaps = (x - model.decode(model.encode(x))).double().numpy().reshape(23, -1)
    squares = (gaps**2).sum(1)
    result = measure("l2_reconstruction_error", model, Batches(x, size))["l2_reconstruction_error"]
    assert result.value == pytest.approx(squares.mean(), rel=1e-5)
    assert result.standard_error == pytest.approx(squares.std(ddof=1) / math.sqrt(23), rel=1e-4)
    assert (result.n, result.unit, result.kind) == (23, "squared data units", "")


# ---- loss


@pytest.mark.parametrize(("name", "role"), [("ae", "gae"), ("flow", "de")])
@pytest.mark.parametrize("size", [4, 11, 22])
def test_loss_of_uneven_batches_is_that_of_all_rows(name, role, size):
    model, x = build(name, role), points()
    (objective,) = model.objectives()
    with torch.no_grad():
        whole = objective.loss(x).item()
    result = measure("loss", model, Batches(x, size))["loss"]
    assert result.value == pytest.approx(whole, rel=1e-5)
    assert result.n == 23
    plain = np.mean([objective.loss(part).item() for part in x.split(size)])
    assert abs(plain - whole) > 1e-4 * abs(whole), "an unweighted mean of batches would be seen"


def test_the_loss_of_a_noisy_model_is_drawn_from_the_seed():
    model, x = build("vae", "gae"), points()
    first, again, other = (measure("loss", model, Batches(x, 9), seed)["loss"].value for seed in (0, 0, 1))
    assert first == again != other


def test_the_loss_of_a_dequantised_model_sees_noise_and_stays_near_its_log_likelihood():
    model, x = build("flow", "de", PIXELS, dequantize=True), points(PIXELS)
    scores = evaluate(["loss", "log_likelihood"], model, Batches(x, 23), alone, 3)
    log_det = model.transform.log_abs_det_jacobian(x).mean().item()
    assert scores["loss"].value == pytest.approx(-scores["log_likelihood"].value + log_det, rel=1e-5)
    plain = build("flow", "de", PIXELS, dequantize=False)
    plain.load_state_dict(model.state_dict())
    assert measure("loss", plain, Batches(x, 23), 3)["loss"].value != scores["loss"].value


def test_an_infinite_loss_is_not_hidden():
    model = given()
    x = points()
    x[20, 0] = math.inf
    result = measure("loss", model, Batches(x, 8))["loss"]
    assert (result.value, result.n) == (math.inf, 23)


# ---- log-likelihood


def standard_flow(spec, std, dequantize=False):
    """Return a flow that is a Gaussian of known std: splines of zero parameters are the identity."""
    model = build("flow", "de", spec, dequantize=dequantize)
    with torch.no_grad():
        for layer in model.layers.layers:
            layer.lower_upper.copy_(torch.eye(spec.dim))
            for parameter in layer.conditioner.parameters():
                parameter.zero_()
    (whiten,) = [part for part in model.transform if hasattr(part, "std")]
    whiten.mean.fill_(100.0)
    whiten.std.fill_(std)
    return model


@pytest.mark.parametrize("size", [1, 22, 23])
def test_log_likelihood_of_a_known_gaussian(size):
    model, x = standard_flow(VECTORS, std=4.0), 100 + 40 * points()
    y = (x.double().numpy() - 100) / 4
    logs = -0.5 * (y**2).sum(1) - 1.5 * math.log(2 * math.pi) - 3 * math.log(4)
    result = measure("log_likelihood", model, Batches(x, size))["log_likelihood"]
    assert (result.kind, result.measure, result.unit, result.n) == ("exact", "Lebesgue on R^3", "nats", 23)
    assert result.value == pytest.approx(logs.mean(), rel=1e-4)
    assert result.standard_error == pytest.approx(logs.std(ddof=1) / math.sqrt(23), rel=1e-3)


def test_bits_per_dimension_by_hand():
    model, x = standard_flow(PIXELS, std=50.0, dequantize=True), points(PIXELS)
    scores = measure("log_likelihood", model, Batches(x, 10), seed=5)
    torch.manual_seed(5)
    y = np.concatenate([model.noise.dequantize(part).numpy().reshape(len(part), -1) for part in x.split(10)])
    assert (np.floor(y) == x.flatten(1).numpy()).all(), "noise stays inside its bin"
    logs = -0.5 * (((y - 100) / 50) ** 2).sum(1) - 3 * math.log(2 * math.pi) - 6 * math.log(50)
    bits = -logs / (6 * math.log(2))
    assert scores["log_likelihood"].value == pytest.approx(logs.mean(), rel=1e-4)
    assert scores["bits_per_dim"].value == pytest.approx(bits.mean(), rel=1e-4)
    assert scores["bits_per_dim"].standard_error == pytest.approx(bits.std(ddof=1) / math.sqrt(23), rel=1e-3)
    assert (scores["bits_per_dim"].kind, scores["bits_per_dim"].unit) == ("bound", "bits/dim")


@pytest.mark.parametrize(("name", "spec"), [("flow", VECTORS), ("flow", PIXELS), ("vae", PIXELS)])
def test_bits_per_dimension_are_for_dequantised_models_only(name, spec):
    model = build(name, "de", spec, dequantize=False)
    assert measure("log_likelihood", model, Batches(points(spec), 9)).keys() == {"log_likelihood"}


def test_the_bound_of_a_vae_says_that_it_is_one():
    assert measure("log_likelihood", build("vae", "de"), Batches(points(), 9))["log_likelihood"].kind == "bound"


def test_a_point_of_density_zero_makes_the_mean_minus_infinity():
    model, x = given(), points()
    x[3, 0] = -math.inf
    result = measure("log_likelihood", model, Batches(x, 4))["log_likelihood"]
    assert (result.value, result.n, result.standard_error, result.note) == (-math.inf, 23, None, "")


class Pinched(nn.Module):
    """A decoder network that is singular where the first coordinate is negative."""

    def forward(self, z):
        return torch.cat([z[:, :1].relu(), z], 1) * (z[:, :1] > 0)


def test_singular_points_are_counted_and_left_out_with_a_note():
    gae = build("ae", "gae", scale_data=False)
    gae.encoder, gae.decoder = nn.Flatten(), Pinched()
    gae.encoder.forward = lambda x: x[:, :2]
    model = TwoStep(gae, build("flow", "de", latent_spec(VECTORS, 2)))
    x = points()
    regular = x[:, 0] > 0
    with torch.no_grad():
        logs = model.log_prob(x[regular]).double().numpy()
    result = measure("log_likelihood", model, Batches(x, 7))["log_likelihood"]
    singular = int((~regular).sum())
    assert 0 < singular < 23
    assert result.note.startswith(f"{singular} points ")
    assert "rank below 2" in result.note
    assert result.n == 23 - singular
    assert result.value == pytest.approx(logs.mean(), rel=1e-5)
    assert result.measure == "volume of the learned manifold"
    assert result.note in result.line("log_likelihood")


# ---- evaluate


def test_evaluation_is_in_eval_mode_without_graph_and_puts_the_mode_back():
    model = build("ae", "gae")
    seen = []
    encode = model.encode
    model.encode = lambda x: (seen.append((model.training, torch.is_grad_enabled())), encode(x))[1]
    model.train()
    measure("l2_reconstruction_error", model, Batches(points(), 9))
    assert set(seen) == {(False, False)}
    assert model.training


def test_each_metric_draws_the_same_numbers_alone_or_in_company():
    model, x = build("vae", "de"), points()
    alone_ = measure("log_likelihood", model, Batches(x, 9), 2)["log_likelihood"]
    names = ["loss", "l2_reconstruction_error", "log_likelihood", "loss"]
    together = evaluate(names, model, Batches(x, 9), alone, 2)
    in_order = ["loss", "l2_reconstruction_error", "explained_variance", "log_likelihood"]
    assert list(together) == in_order, "in the order asked for, each once"
    assert together["log_likelihood"] == alone_


def test_every_metric_is_filed_under_its_name_and_has_a_direction():
    for name in METRICS:
        assert METRICS[name].name == name
        assert METRICS[name].summary
    assert {name for name in METRICS if not METRICS[name].lower_is_better} == {
        "likelihood_ood_acc",
        "likelihood_ood_acc_low_dim",
        "log_likelihood",
        "precision_recall_density_coverage",
    }


def test_a_result_says_what_it_is():
    result = Result(-1.23456789, "nats", 1234, 0.0123, "bound", "Lebesgue on R^2")
    assert result.line("log_likelihood") == ("log_likelihood -1.23457 ± 0.012 nats (n = 1,234; bound; Lebesgue on R^2)")
    assert Result(2.0, "nats", 1).line("loss") == "loss 2 nats (n = 1)"
    assert Result(math.nan, "nats", 1).line("loss") == "loss not a number nats (n = 1)"
    assert Result(-math.inf, "nats", 1).shown == "-inf"


@pytest.mark.parametrize("key", ["reference", "null"])
def test_results_of_older_files_are_read(key):
    values = {"value": "nan", "unit": "", "n": 3, "interval": [0, 1], key: 2.0}
    found = TypeAdapter(Result).validate_python(values)
    assert (found.reference, found.interval) == (2.0, (0.0, 1.0))
    assert math.isnan(found.value)


# ---- names and refusals


def test_names_of_metrics():
    assert sorted(METRICS) == [
        "c2st",
        "column_errors",
        "fd",
        "fd_infinity",
        "fd_reconstruction",
        "fid",
        "kid",
        "l2_reconstruction_error",
        "likelihood_ood_acc",
        "likelihood_ood_acc_low_dim",
        "log_likelihood",
        "loss",
        "memorisation",
        "mmd",
        "nearer_to_training",
        "precision_recall_density_coverage",
        "sliced_wasserstein",
    ]


class TwoLosses(Given):
    def objectives(self):
        loss = {"discriminator": torch.min, "reconstruction": torch.max}
        one, two = (Objective(name, of, ()) for name, of in loss.items())
        return one, two


def test_the_loss_of_a_model_with_a_discriminator_is_that_of_its_opponent():
    x = torch.arange(6.0).view(2, 3)
    model = TwoLosses(MODELS["flow"].for_data(VECTORS, "de"), VECTORS)
    assert measure("loss", model, Batches(x, 2))["loss"].value == 5


def test_a_metric_that_a_model_lacks_is_refused_with_the_reason():
    two_step = TwoStep(build("ae", "gae"), build("flow", "de", latent_spec(VECTORS, 2)))
    cases = [
        (build("ae", "gae"), "log_likelihood", "it has no density"),
        (build("flow", "de"), "l2_reconstruction_error", "it does not reconstruct"),
        (two_step, "loss", "its two components have one each"),
    ]
    for model, metric, reason in cases:
        with pytest.raises(UserError) as caught:
            check_metrics([metric], model, "mine")
        assert str(caught.value) == f"{metric}: mine has no such metric: {reason}"
    check_metrics(["log_likelihood", "l2_reconstruction_error"], two_step, "mine")
    check_metrics(["log_likelihood", "l2_reconstruction_error", "loss"], build("vae", "de"), "mine")


def test_an_unknown_metric_gets_its_nearest_neighbour():
    with pytest.raises(UserError) as caught:
        check_metrics(["log_likelyhood"], build("flow", "de"), "flow")
    assert str(caught.value) == "log_likelyhood: no such metric; did you mean log_likelihood?"


def test_explained_variance_is_that_of_scikit_learn_and_unmoved_by_a_shift():
    from sklearn.decomposition import PCA
    from torch import nn

    from twostep.models import Autoencoder

    x = torch.randn(200, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([5.0, 3.0, 1.0, 0.5, 0.1])
    pca = PCA(2).fit(x.numpy())
    axes = torch.as_tensor(pca.components_)
    to, back = nn.Linear(5, 2, bias=False), nn.Linear(2, 5, bias=False)
    to.weight.data, back.weight.data = axes, axes.T.contiguous()
    centred = x - x.mean(0)
    model = Autoencoder(to, back, latent_dim=2)
    found = measure("l2_reconstruction_error", model, Batches(centred, 64))["explained_variance"]
    assert found.value == pytest.approx(pca.explained_variance_ratio_.sum(), abs=1e-5)
    assert found.unit == "share of the variance"
