"""`twostep.fit`: any model, on an array, without a config or a run directory."""

import time

import numpy as np
import pytest
import torch
from torch import nn

import twostep
from helpers.toys import SPEC, build, data, same, weights
from twostep.core.schema import UserError
from twostep.models import Autoencoder, Couplings, Flow, vector_layers
from twostep.models.two_step import latent_spec


@pytest.fixture(autouse=True)
def _nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_it_trains_and_returns_the_model_in_eval_mode_and_writes_nothing(tmp_path, capfd):
    model = build("ae")
    before = weights(model)
    rows = data(200)
    assert twostep.fit(model, rows, max_epochs=20, lr=0.01, batch_size=16, device="cpu") is model
    assert not model.training
    assert not same(weights(model), before)
    assert model.reconstruction_error(rows).mean() < rows.square().sum(1).mean()
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_the_same_seed_gives_the_same_weights():
    fitted = [twostep.fit(build("vae"), data(60), max_epochs=2, seed=seed, device="cpu") for seed in (1, 1, 2)]
    assert same(weights(fitted[0]), weights(fitted[1]))
    assert not same(weights(fitted[0]), weights(fitted[2]))


def test_arrays_validation_rows_and_rates_may_be_given():
    model = build("toy")
    rows = data(40).double().numpy()
    twostep.fit(model, rows, valid=np.float32(rows[:9]), lr={"fit": 0.1, "penalty": 0.02}, max_epochs=3, device="cpu")
    assert "penalty" in model.taken


def test_time_may_be_limited():
    began = time.monotonic()
    twostep.fit(build("vae"), data(200), max_epochs=10**6, max_minutes=0.002, early_stopping_metric=None, device="cpu")
    assert time.monotonic() - began < 10


def test_the_best_weights_are_returned():
    """With a rate that is too large the loss climbs at once."""
    torch.manual_seed(0)
    rows, valid = data(40), data(20, seed=3)

    def loss(**keys):
        model = twostep.fit(build("ae"), rows, valid=valid, lr=0.3, max_epochs=8, device="cpu", **keys)
        with torch.no_grad():
            return float(model.objectives()[0].loss(valid))

    assert loss(max_bad_valid_epochs=8) <= loss(early_stopping_metric=None)


class Encoder(nn.Linear):
    """An own encoder: the data on two fixed coordinates, and what it learns."""

    def forward(self, x):
        return super().forward(x) + x[:, :2]


def test_an_own_encoder_and_decoder_and_a_flow_on_their_embeddings():
    """log p(x) = log p(z) - ½ log det AᵀA of the affine decoder g(z) = A z + b, with z = f(x)."""
    torch.manual_seed(0)
    rows = data(120)
    gae = twostep.fit(Autoencoder(Encoder(3, 2), nn.Linear(2, 3), 2), rows, max_epochs=5, device="cpu")
    with torch.no_grad():
        z = gae.encode(rows)
    flow = Flow(vector_layers(2, Couplings(num_layers=1, hidden_units=4, num_blocks_per_layer=1)), (2,))
    de = twostep.fit(flow, z, lr=5e-4, max_epochs=3, device="cpu")
    with torch.no_grad():
        a = gae.decoder.weight
        expected = de.log_prob(z) - 0.5 * torch.logdet(a.T @ a)
        model = twostep.TwoStep(gae, de).eval()
        torch.testing.assert_close(model.log_prob(rows), expected, rtol=1e-4, atol=1e-4)
        assert model.sample(5).shape == (5, 3)


def test_a_density_is_fitted_to_embeddings():
    rows = data(80)
    gae = twostep.fit(build("ae"), rows, max_epochs=2, device="cpu")
    with torch.no_grad():
        z = gae.encode(rows)
    de = twostep.fit(build("flow", spec=latent_spec(SPEC, 2)), z, lr=5e-4, max_epochs=2, device="cpu")
    with torch.no_grad():
        expected = de.log_prob(z) - gae.log_volume(z)
        torch.testing.assert_close(twostep.TwoStep(gae, de).log_prob(rows), expected)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"max_epoch": 3}, "max_epoch: no such key of fit; did you mean max_epochs"),
        ({"max_epochs": 0}, "max_epochs = 0"),
        ({"valid": 1.5}, "valid=1.5"),
        ({"valid": None, "early_stopping_metric": "loss"}, "early_stopping_metric=loss"),
        ({"early_stopping_metric": "fd"}, "early_stopping_metric=fd"),
        ({"lr": -1.0}, "lr"),
        ({"lr": {"los": 1.0}}, "lr"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"max_minutes": 0}, "max_minutes=0"),
        ({"valid": torch.zeros(3, 4)}, "rows must have the shape"),
    ],
)
def test_mistakes_are_one_line(keys, says):
    with pytest.raises(UserError) as caught:
        twostep.fit(build("ae"), data(), device="cpu", **keys)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rows_that_are_not_finite_are_refused():
    rows = data()
    rows[3, 1] = torch.nan
    with pytest.raises(UserError, match="not finite"):
        twostep.fit(build("ae"), rows, device="cpu")
