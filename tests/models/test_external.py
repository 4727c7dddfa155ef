"""Encoders and decoders of a user's own: scikit-learn, diffusers, functions, an encoder alone."""

import logging
import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA, KernelPCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from torch import nn

from helpers.external import alone, pair
from twostep.core.factories import allow, given
from twostep.core.schema import DataSpec, UserError
from twostep.metrics import METRICS
from twostep.metrics.ood.conformal import ConformalCalibrator
from twostep.metrics.ood.scores import scores_of
from twostep.models import MODELS, ExternalAutoencoder, Flow, TwoStep
from twostep.models.external import external
from twostep.models.parts.coupling import Couplings, vector_layers

SPEC = DataSpec(name="rows", shape=(6,), size=200, low=-9, high=9)
ROWS = np.random.default_rng(0).normal(size=(200, 3)) @ np.random.default_rng(1).normal(size=(3, 6)) + 2
X = torch.as_tensor(ROWS, dtype=torch.float64)


def fitted(coders, spec=SPEC, rows=X, **keys):
    model = external(coders, spec, **keys).to(rows).eval()
    model.fit_transform([rows])
    return model


def two_step(gae, d=3):
    torch.manual_seed(0)
    return TwoStep(gae, Flow(vector_layers(d, Couplings(num_layers=1, hidden_units=4)), (d,)).to(torch.float64)).eval()


@pytest.mark.parametrize("whiten", [False, True])
def test_pca_keeps_its_exact_volume(whiten):
    """The map back is linear with orthonormal axes, times the stds of the components where they are whitened."""
    pca = PCA(3, whiten=whiten).fit(ROWS)
    model = fitted(pca)
    z = model.encode(X).detach()
    assert torch.allclose(z.mean(0), torch.zeros(3, dtype=z.dtype), atol=1e-6)
    assert float(z.var(0, unbiased=False).mean()) == pytest.approx(1, rel=1e-5)
    assert torch.allclose(model.decode(z), torch.as_tensor(pca.inverse_transform(pca.transform(ROWS))), atol=1e-5)
    log_stretch = np.log(pca.explained_variance_).sum() / 2 if whiten else 0.0
    exact = 3 * math.log(float(model.scale)) + log_stretch
    assert model.log_volume(z).tolist() == pytest.approx([exact] * 200, abs=1e-5)
    assert model.no_volume == ""
    assert model.decodes


def test_a_density_on_pca_is_a_density_in_data_space():
    """With as many components as columns, it is the density of the rows that follows from the one of embeddings."""
    gae = fitted(PCA(6).fit(ROWS + 0.1 * np.random.default_rng(2).normal(size=ROWS.shape)))
    model = two_step(gae, 6)
    J = torch.func.vmap(torch.func.jacrev(lambda x: gae.encode(x[None])[0]))(X[:4])
    expected = model.log_prob_latent(X[:4]) + torch.linalg.slogdet(J).logabsdet
    assert torch.allclose(model.log_prob(X[:4]), expected, atol=1e-4)


def test_a_pipeline_that_scales_is_affine_and_images_are_flattened():
    spec = DataSpec(name="images", shape=(1, 2, 3), size=200, low=-9, high=9)
    images = X.reshape(-1, *spec.shape)
    model = fitted(make_pipeline(StandardScaler(), PCA(2)).fit(ROWS), spec, images)
    z = model.encode(images)
    assert z.shape == (200, 2)
    assert model.decode(z).shape == images.shape
    assert model.log_volume(z).isfinite().all()
    assert {type(part).__name__ for part in model.modules()} >= {"Linear"}


def test_numpy_functions_have_distance_and_latent_density_but_no_volume():
    model = two_step(fitted(KernelPCA(3, kernel="rbf", gamma=0.05, fit_inverse_transform=True).fit(ROWS)))
    assert model.decodes
    assert "not differentiable" in model.no_volume
    with torch.no_grad():
        assert model.sample(5, torch.Generator().manual_seed(0)).shape == (5, 6)
        scores = {one.name: one.of(X[:40]).double().numpy() for one in scores_of(model)}
    assert list(scores) == ["log_prob_latent", "reconstruction_error"]
    with pytest.raises(UserError, match="not differentiable"):
        model.log_prob(X[:2])
    assert METRICS["log_likelihood"].refusal(model)
    assert not METRICS["l2_reconstruction_error"].refusal(model)
    calibrator = ConformalCalibrator(model, scores, 0)
    assert calibrator.headline == "two_part"
    assert (calibrator.p_values(scores)["two_part"] <= 1).all()


def test_an_encoder_alone_has_a_density_and_no_more():
    model = two_step(fitted(alone(SPEC).double()))
    with torch.no_grad():
        scores = {one.name: one.of(X[:40]).numpy() for one in scores_of(model)}
    assert list(scores) == ["log_prob_latent"]
    calibrator = ConformalCalibrator(model, scores, 0)
    assert calibrator.headline == "log_prob_latent"
    assert calibrator.smallest == 2 / 41
    for refused in (
        lambda: model.sample(2),
        lambda: model.log_prob(X[:2]),
        lambda: model.reconstruction_error(X[:2]),
        lambda: model.decode(torch.zeros(2, 3, dtype=X.dtype)),
    ):
        with pytest.raises(UserError, match="an encoder alone"):
            refused()
    assert [name for name in METRICS if not METRICS[name].refusal(model)] == ["likelihood_ood_acc_low_dim"]


def test_training_lowers_the_reconstruction_error_and_frozen_ones_have_no_loss():
    import twostep

    torch.manual_seed(0)
    model = external(pair(SPEC), SPEC, trainable=True)
    x = X.float()
    before = float(model.eval().reconstruction_error(x).detach().mean())
    twostep.fit(model, x, max_epochs=15, lr=1e-2, batch_size=20, device="cpu")
    assert float(model.reconstruction_error(x).detach().mean()) < 0.5 * before
    frozen = external(pair(SPEC), SPEC)
    assert frozen.objectives() == ()
    assert not frozen.train().training


def test_the_scale_is_found_and_reported(caplog):
    caplog.set_level(logging.INFO, "twostep")
    model = fitted((lambda x: 50 * x + 7, lambda z: (z - 7) / 50))
    assert float(model.scale) == pytest.approx(50 * float(X.var(0, unbiased=False).mean().sqrt()), rel=1e-5)
    assert f"{float(model.scale):.5g}" in caplog.text
    assert torch.allclose(model.decode(model.encode(X)), X, atol=1e-5)


def test_functions_must_be_those_that_the_model_was_trained_with():
    state = fitted((lambda x: 2 * x, lambda z: z / 2)).state_dict()
    same = external((lambda x: 2 * x, lambda z: z / 2), SPEC).double()
    same.load_state_dict(state)
    with pytest.raises(UserError, match="their values differ"):
        external((lambda x: 3 * x, lambda z: z / 3), SPEC).double().load_state_dict(state)


def encoder(**keys):
    return nn.Sequential(nn.Linear(6, 3, **keys))


@pytest.mark.parametrize(
    ("coders", "says"),
    [
        (PCA(2), "is not fitted"),
        (PCA(2).fit(ROWS[:, :5]), "fitted to 5 columns"),
        ((encoder(), nn.Linear(3, 5)), "gives points of shape"),
        ((encoder(), nn.Linear(2, 6)), "decode: fails"),
        ((nn.Linear(7, 3), None), "encode: fails"),
        ((lambda x: x.numpy(), None), "must return a tensor"),
        ((lambda x: x.sum(), None), "one row for each"),
        ((lambda x: x / 0, None), "not finite"),
        ((lambda x: x + torch.randn_like(x), None), "another value at a second call"),
        ((encoder(), encoder(), encoder()), "pair"),
        (3, "not int"),
    ],
)
def test_what_does_not_fit_is_refused_when_it_is_built(coders, says):
    with pytest.raises(UserError, match=says) as caught:
        external(coders, SPEC)
    assert "\n" not in str(caught.value)


def test_no_name_is_imported_unless_it_was_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_coders.py").write_text("def make():\n    return lambda x: x, lambda z: z\nvalue = 3\n")
    config = MODELS["external"].for_data(SPEC, "gae", module="my_coders:make")
    with pytest.raises(UserError, match="--gae-module my_coders:make"):
        config.build(SPEC)
    with given("my_coders:make"):
        assert config.build(SPEC).latent_dim == 6
    with given((lambda x: x[:, :2], None)):
        assert config.build(SPEC).latent_dim == 2
    with pytest.raises(UserError):
        config.build(SPEC)
    allow("my_coders:make")
    assert config.build(SPEC).latent_dim == 6
    for name in ("my_coders", "my_coders:missing", "no_such:thing", "my_coders:value", "a b:c"):
        with given(name), pytest.raises(UserError, match=f"module={name}"):
            config.build(SPEC)


def test_keys_that_an_object_has_in_itself_are_refused():
    config = MODELS["external"].for_data(SPEC, "gae", module="x:y", scale_data=True)
    with given(external(pair(SPEC), SPEC)), pytest.raises(UserError, match="scale_data"):
        config.build(SPEC)


@pytest.mark.cmd
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["kl", "tiny"])
def test_autoencoders_of_diffusers(kind):
    """The latents are those of the posterior's mode, and the volume is that of the Jacobian, attention or not."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    channels = {"in_channels": 3, "out_channels": 3, "latent_channels": 2}
    if kind == "kl":
        blocks = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
        vae = diffusers.AutoencoderKL(**channels, **blocks, block_out_channels=(4, 4), norm_num_groups=2)
    else:
        coders = {f"{part}_block_out_channels": (4, 4) for part in ("encoder", "decoder")}
        counts = {f"num_{part}_blocks": (1, 1) for part in ("encoder", "decoder")}
        vae = diffusers.AutoencoderTiny(**channels, **coders, **counts)
    spec = DataSpec(name="images", shape=(3, 4, 4), size=20, low=0, high=255, discrete=True)
    images = (256 * torch.rand(20, *spec.shape)).floor()
    model = fitted(vae.eval(), spec, images)
    with torch.no_grad():
        seen = vae.encode(images / 127.5 - 1)
        latents = seen.latents if kind == "tiny" else seen.latent_dist.mode()
        z = model.encode(images)
        assert torch.allclose(z, (latents.flatten(1) - model.shift) / model.scale, atol=1e-4)
        assert torch.allclose(model.decode(z), (vae.decode(latents).sample + 1) * 127.5, atol=1e-2)
    assert z.std() == pytest.approx(1, rel=0.1)
    double = model.double()
    J = torch.autograd.functional.jacobian(lambda z: double.decode(z[None]).flatten(), z[0].double())
    exact = float(torch.linalg.slogdet(J.T @ J).logabsdet / 2)
    assert float(double.log_volume(z[:1].double()).detach()) == pytest.approx(exact, abs=1e-6)
    names = [*double.state_dict()]
    assert len({value.data_ptr() for value in double.state_dict().values()}) == len(names)


def test_functions_of_numpy_columns_keep_their_names_quiet():
    """A transformer fitted to a frame warns of arrays without names, which is no news here."""
    import pandas as pd

    frame = pd.DataFrame(ROWS, columns=list("abcdef"))
    assert fitted(PCA(2).fit(frame)).latent_dim == 2
    twice = FunctionTransformer(np.cbrt, inverse_func=lambda z: z**3).fit(ROWS)
    model = fitted(twice)
    assert "not differentiable" in model.no_volume
    assert isinstance(model, ExternalAutoencoder)
