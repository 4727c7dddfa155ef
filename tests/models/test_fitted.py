"""Densities that are fitted at once: against scikit-learn and the truth, in runs, and in estimators."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KernelDensity as ReferenceKernelDensity
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

import twostep
from helpers.experiments import asked, break_off, differences, drawn, snapshot, trained
from twostep import DensityModel, TwoStepDensity, UserError
from twostep.experiment.load import load_module
from twostep.experiment.prepare import resume, start
from twostep.metrics import check_normalised
from twostep.models import GaussianMixture, KernelDensity
from twostep.models.base import evaluating
from twostep.nn.transforms import Chain, Whiten

BOTH = [GaussianMixture, KernelDensity]
MEANS, STDS = torch.tensor([[2.0, 2.0], [-2.0, -1.0], [1.0, -2.0]]), torch.tensor([[0.3, 0.5], [0.8, 0.4], [0.5, 0.5]])
TRUTH = MixtureSameFamily(Categorical(torch.tensor([0.5, 0.3, 0.2])), Independent(Normal(MEANS, STDS), 1))


def rows(n, seed=0):
    torch.manual_seed(seed)
    return TRUTH.sample((n,))


def fitted(kind, x, **keys):
    return twostep.fit(kind(x.shape[1:], transform=Chain([Whiten(x.shape[1:])]), **keys), x, device="cpu")


@pytest.fixture(scope="module", params=BOTH)
def model(request):
    return fitted(request.param, rows(1500))


def test_the_density_is_that_of_the_truth_and_integrates_to_one(model):
    x = rows(2000, seed=1)
    with evaluating(model):
        gap = TRUTH.log_prob(x) - model.log_prob(x)
    assert -0.01 < float(gap.mean()) < 0.06
    certificate = check_normalised(model, evaluations=20_000)
    assert (certificate.verdict, certificate.integral.value) == ("normalised", pytest.approx(1, abs=0.01))


def test_samples_are_of_the_density(model):
    """By importance weights: the mean of f p / p over samples is that of f under the truth."""
    x = model.sample(5000, torch.Generator().manual_seed(2))
    with evaluating(model):
        weights = (TRUTH.log_prob(x) - model.log_prob(x)).exp()[:, None]
    assert float(weights.mean()) == pytest.approx(1, abs=0.02)
    torch.testing.assert_close((weights * x).mean(0), TRUTH.mean, atol=0.05, rtol=0)
    torch.testing.assert_close((weights * x.square()).mean(0), TRUTH.variance + TRUTH.mean**2, atol=0.1, rtol=0)


def test_held_out_rows_choose_the_number_of_gaussians():
    torch.manual_seed(0)
    assert len(fitted(GaussianMixture, torch.randn(1000, 3)).means) == 1
    assert len(fitted(GaussianMixture, rows(4000)).means) == 4
    assert len(fitted(GaussianMixture, rows(4000), max_components=2).means) == 2


def test_few_rows_of_many_coordinates_get_diagonal_covariances():
    torch.manual_seed(0)
    x = torch.randn(60, 30) * torch.linspace(0.1, 3, 30)
    model = fitted(GaussianMixture, x)
    assert model.factors.shape == (1, 30)
    std = 1 / (model.factors * model.transform.parts[0].std.reciprocal())
    torch.testing.assert_close(std[0], x.std(0, correction=0), rtol=1e-3, atol=0)


def test_a_kernel_density_is_that_of_scikit_learn_with_a_bandwidth_no_worse_than_its_neighbours():
    x, new = rows(400), rows(2000, seed=3)
    model = twostep.fit(KernelDensity((2,)), x, device="cpu")
    h = float(model.bandwidth)
    log_prob = model.log_prob(new)
    found = {}
    for factor in (0.7, 1.0, 1.4):
        reference = ReferenceKernelDensity(bandwidth=factor * h).fit(x.numpy())
        found[factor] = reference.score_samples(new.numpy())
    np.testing.assert_allclose(log_prob.numpy(), found[1.0], atol=1e-4)
    assert found[1.0].mean() > max(found[0.7].mean(), found[1.4].mean())


def test_copies_of_rows_do_not_let_the_bandwidth_vanish():
    x = rows(400)
    once, twice = (float(fitted(KernelDensity, y).bandwidth) for y in (x, torch.cat([x, x])))
    assert twice == pytest.approx(once, rel=0.1)


@pytest.mark.parametrize("kind", BOTH)
def test_equal_rows_and_two_rows_are_enough(kind):
    for x in (torch.ones(20, 3), torch.tensor([[0.0, 1.0], [2.0, 3.0]])):
        model = fitted(kind, x)
        assert model.log_prob(x).isfinite().all()
        assert model.sample(5).isfinite().all()


@pytest.mark.parametrize("kind", BOTH)
def test_a_state_of_another_dimension_is_refused(kind):
    with pytest.raises(RuntimeError, match="size mismatch"):
        kind((3,)).load_state_dict(kind((2,)).state_dict())


def test_rows_that_cannot_be_fitted_are_refused_in_a_line():
    with pytest.raises(UserError, match="needs 2 training rows, not 1"):
        GaussianMixture((2,)).fit_transform([torch.ones(1, 2)])
    with pytest.raises(UserError, match="not finite"):
        KernelDensity((2,)).fit_transform([torch.full((4, 2), torch.nan)])


@pytest.mark.parametrize("models", [("gmm",), ("ae", "gmm"), ("vae", "kde")], ids=" + ".join)
def test_a_resumed_run_is_one_that_never_stopped(own_images, tmp_path, models):
    whole = trained(asked(models, own_images, tmp_path / "whole"))
    for place in ("step 1", "step 13", "end de", "end model"):
        first = start(asked(models, own_images, tmp_path / place.replace(" ", "")))
        if break_off(first, place):
            second = resume(first.run.path)
            second.fit()
            second.run.close()
            assert differences(second.state(), snapshot(whole)) == []
            assert torch.equal(drawn(second), drawn(whole))
    assert load_module(whole.run.path)


@pytest.mark.parametrize("by_epoch", [True, False], ids=["by epoch", "by iteration"])
def test_steps_in_turns_end_with_a_density_of_the_final_embeddings(own_images, tmp_path, by_epoch):
    run = {"sequential_training": False, "alternate_by_epoch": by_epoch}
    experiment = trained(asked(("ae", "gmm"), own_images, tmp_path, run=run, de={"denoising_sigma": 0.0}))
    model, train = experiment.module, experiment.splits.train.float()
    with evaluating(model):
        z = model.encode(train)
    torch.testing.assert_close(model.de.transform.parts[-1].mean, z.mean(0), rtol=1e-4, atol=1e-4)
    assert [trainer.steps_done for trainer in experiment.trainers] == [12, 1]


def test_a_run_says_what_was_fitted_and_no_more(own_images, tmp_path, caplog):
    caplog.set_level("INFO", "twostep")
    results = trained(asked(("gmm",), own_images, tmp_path)).test()["model"]
    assert results["log_likelihood"].kind in ("exact", "bound")
    said = [line for line in caplog.messages if line.startswith("model gmm")]
    assert len(said) == 1
    assert "Gaussians" in said[0]


@pytest.mark.parametrize("name", ["gmm", "kde"])
def test_estimators_take_them_by_name(name):
    x = rows(300).numpy()
    single = DensityModel(name, random_state=0).fit(x)
    assert single.likelihood_ == "exact"
    assert float(single.score_samples(x).mean()) == pytest.approx(float(TRUTH.log_prob(rows(300)).mean()), abs=0.5)
    assert single.sample(7).shape == (7, 2)


def test_estimators_take_objects_behind_a_transformer_without_weights():
    from sklearn.decomposition import PCA

    x = rows(300).numpy() @ np.array([[1.0, 0, 1], [0, 1, 1]])
    both = TwoStepDensity(PCA(2), GaussianMixture((2,)), random_state=0).fit(x)
    assert both.score_samples(x).shape == (300,)
    assert both.sample(5).shape == (5, 3)
