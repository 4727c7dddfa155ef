"""Models of tables: bounds against known distributions, samples in the columns' own values, what each model offers."""

import itertools
import math

import numpy as np
import pandas
import pytest
import torch
from scipy import stats

from twostep.core.schema import UserError
from twostep.data.load import load_data, split_frame
from twostep.data.synthetic.mixed import REGION, Customers
from twostep.data.table.codes import to_frame
from twostep.models import MODELS
from twostep.models.base import DensityEstimator, evaluating
from twostep.models.table import build_model
from twostep.models.two_step import TwoStep, latent_spec
from twostep.training.fit import fit

SMALL = {
    "encoder_hidden_dims": (16,),
    "decoder_hidden_dims": (16,),
    "latent_dim": 2,
    "hidden_units": 8,
    "num_layers": 2,
    "hidden_size": 8,
}
QUICK = {"max_epochs": 1, "early_stopping_metric": None, "device": "cpu", "batch_size": 64}


@pytest.fixture(scope="module")
def splits():
    random = np.random.default_rng(0)
    frame = pandas.DataFrame(
        {
            "amount": random.lognormal(0, 1, 200),
            "count": random.poisson(3, 200),
            "word": random.choice(["a", "b", "c"], 200),
            "flag": random.random(200) < 0.4,
        }
    )
    frame.loc[::5, "amount"] = np.nan
    frame.loc[::7, "word"] = None
    return split_frame(frame)


@pytest.fixture(autouse=True)
def _few_draws(request, monkeypatch):
    if "slow" not in request.keywords:
        monkeypatch.setattr("twostep.models.table.DRAWS", 8)
        monkeypatch.setattr("twostep.models.table.TableDensity.draws", 8)


def built(name, role, spec):
    torch.manual_seed(0)
    keys = {key: value for key, value in SMALL.items() if key in MODELS[name].model_fields}
    return build_model(MODELS[name].for_data(spec, role, **keys), spec)


def fitted(name, role, splits):
    model = built(name, role, splits.spec)
    rate = {one.name: 1e-3 for one in model.objectives()}
    return fit(model, splits.train, valid=None, lr=rate, **QUICK)


def two_step(gae, spec):
    latents = latent_spec(spec, gae.latent_dim)
    return TwoStep(gae, MODELS["flow"].for_data(latents, "de", hidden_units=8, num_layers=2).build(latents)).eval()


def rows_are_of_the_table(samples, splits):
    frame = to_frame(splits.spec.columns, samples)
    assert set(frame["word"].dropna()) <= {"a", "b", "c"}
    assert frame.dtypes.astype(str).tolist() == ["float64", "int64", "str", "bool"]
    assert (frame["amount"].dropna() > -5).all()


@pytest.mark.parametrize("name", sorted(name for name in MODELS if "de" in MODELS[name].roles))
def test_a_density_of_rows(splits, name):
    model = fitted(name, "de", splits)
    assert model.event_shape == (4,)
    with evaluating(model):
        log_prob = model.log_prob(splits.test)
        assert log_prob.shape == (len(splits.test),)
        assert log_prob.isfinite().all()
        assert model.likelihood == ("unnormalised" if name == "ebm" else "bound")
        rows_are_of_the_table(model.sample(50, torch.Generator().manual_seed(0)), splits)


@pytest.mark.parametrize("name", ["ae", "vae", "wae", "avb", "bigan"])
def test_an_autoencoder_of_rows(splits, name):
    gae = fitted(name, "gae", splits)
    with evaluating(gae):
        z = gae.encode(splits.test)
        assert torch.equal(z, gae.encode(splits.test))
        rows_are_of_the_table(gae.decode(z), splits)
        assert (gae.reconstruction_error(splits.test) >= 0).all()
        model = two_step(gae, splits.spec)
        rows_are_of_the_table(model.sample(50, torch.Generator().manual_seed(0)), splits)
        if name == "bigan":
            assert "likelihood of rows" in model.no_volume
            with pytest.raises(UserError, match="use ae, vae"):
                model.log_prob(splits.test)
            return
        assert model.no_volume == ""
        assert model.likelihood == "bound"
        assert model.log_prob(splits.test).isfinite().all()
        with pytest.raises(UserError, match="no volume"):
            gae.log_volume(z)


def test_a_likelihood_of_rows_has_a_std_of_numbers_for_each_embedding(splits):
    gae = built("vae", "gae", splits.spec)
    gae.fit_transform([splits.train[:]])
    likelihood, (numbers, gaps, _) = gae.autoencoder.row_likelihood, gae.transform.parts
    output = torch.randn(1, 2 * gae.transform.width).expand(4000, -1)
    mean, std = output[0, :numbers], output[0, gae.transform.width :][:numbers].exp() + 0.01
    with torch.no_grad():
        drawn = likelihood.sample(output, torch.Generator().manual_seed(0))
        scores = (drawn[:, :numbers] - mean) / std
        assert torch.allclose(scores.std(0), torch.ones(numbers), atol=0.1)
        drawn[:, numbers : numbers + gaps] = 0.0  # no number is missing
        central = torch.cat([mean.expand(4000, -1), drawn[:, numbers:]], 1)
        fall = likelihood.log_prob(central, output) - likelihood.log_prob(drawn, output)
    assert torch.allclose(fall, scores.square().sum(1) / 2, atol=1e-3)


@pytest.mark.parametrize("name", ["flow", "vae", "ae"])
def test_probabilities_of_all_rows_add_up_to_one(name):
    """A bound on each row's probability adds up to less than one, and to nearly one with many draws."""
    frame = pandas.DataFrame(list(itertools.product("abc", "xyz", [True, False])) * 20, columns=["u", "v", "w"])
    frame = frame.drop(index=range(0, len(frame), 5))
    splits = split_frame(frame)
    model = fitted(name, "gae" if name == "ae" else "de", splits)
    if name != "flow":
        model = two_step(model, splits.spec)
    every = torch.tensor(list(itertools.product(range(4), range(4), range(3)))).float()
    torch.manual_seed(0)
    with evaluating(model):
        draws = model.log_prob(every.repeat(32, 1)).view(32, -1).logsumexp(0) - math.log(32)
    assert float(draws.exp().sum()) == pytest.approx(1, abs=0.05)


def test_more_draws_tighten_the_bound(splits):
    model = fitted("flow", "de", splits)
    means = []
    for draws in (1, 8):
        model.draws = draws
        torch.manual_seed(0)
        with evaluating(model):
            means.append(float(model.log_prob(splits.train).mean()))
    assert means[1] > means[0]


def test_weights_are_saved_once_and_loaded(splits):
    model = fitted("vae", "de", splits)
    state = model.state_dict()
    assert len({tensor.data_ptr() for tensor in state.values() if tensor.numel()}) == len(
        [name for name, tensor in state.items() if tensor.numel()]
    )
    other = built("vae", "de", splits.spec)
    other.load_state_dict(state)
    other.eval()
    assert isinstance(other, DensityEstimator)
    assert torch.equal(other.encode(splits.test), model.encode(splits.test))


@pytest.mark.slow
def test_the_bound_is_near_the_truth_and_samples_have_its_marginals_and_associations():
    splits = load_data("customers", kwargs={"n": 20_000})
    torch.manual_seed(0)
    model = build_model(MODELS["flow"].for_data(splits.spec, "de"), splits.spec)
    fit(model, splits.train, valid=splits.valid, batch_size=256, max_epochs=20, use_lr_scheduler=True, device="cpu")
    truth = Customers.model_validate({}).log_prob(splits.test)
    with evaluating(model):
        bound = torch.cat([model.log_prob(rows) for rows in splits.test.split(1000)])
        samples = model.sample(4000, torch.Generator().manual_seed(0))
    assert -0.1 < float(bound.mean() - truth.mean()) < 0.0
    for place, levels in ((0, 3), (1, 4)):
        counts = torch.bincount(samples[:, place].long(), minlength=levels).numpy()
        expected = torch.bincount(splits.train[:, place].long(), minlength=levels).numpy()
        assert stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue > 0.01
    for plan in range(3):
        regions = torch.bincount(samples[samples[:, 0] == plan, 1].long(), minlength=4).double()
        assert 0.5 * (regions / regions.sum() - REGION[plan]).abs().sum() < 0.06
