"""Detection figures against closed forms, brute force and planted mistakes; scores in order, whatever the ranks."""

import math
from statistics import NormalDist
from threading import Barrier, Thread

import numpy as np
import pytest
import torch

from twostep.data.batches import Batches
from twostep.metrics import METRICS, ood
from twostep.models import MODELS
from twostep.models.base import DensityEstimator
from twostep.models.two_step import TwoStep, latent_spec
from twostep.schema import DataSpec, UserError

SPEC = DataSpec(name="points", shape=(3,), size=50, low=-5, high=5)
SMALL = {"latent_dim": 2, "encoder_hidden_dims": (6,), "decoder_hidden_dims": (6,)}


class Given(DensityEstimator):
    """A density whose log-densities are the first coordinates of the points."""

    likelihood = "exact"

    def log_prob(self, x):
        return x[:, 0]

    def sample(self, n, generator=None):
        raise NotImplementedError

    def objectives(self):
        return ()


def given(spec=SPEC, **keys):
    return Given(MODELS["flow"].for_data(spec, "de", whitening_transform=False, **keys), spec)


def two_step():
    torch.manual_seed(0)
    gae = MODELS["ae"].for_data(SPEC, "gae", **SMALL).build(SPEC)
    latents = latent_spec(SPEC, 2)
    de = MODELS["vae"].for_data(latents, "de", **SMALL).build(latents)
    x = points(50)
    gae.fit_transform([x])
    de.fit_transform([gae.encode(x).detach()])
    return TwoStep(gae, de)


def points(n, seed=1):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))


def normal(n, mean, std=1.0, seed=0):
    return np.random.default_rng(seed).normal(mean, std, n)


def rows(gap, n_in=4000, n_out=4000, std_out=1.0):
    """Give normal scores: in-distribution ones around `gap`, the others around 0."""
    return {
        "in_train": normal(n_in, gap, seed=1),
        "in_test": normal(n_in, gap, seed=2),
        "ood_train": normal(n_out, 0, std_out, seed=3),
        "ood_test": normal(n_out, 0, std_out, seed=4),
    }


@pytest.mark.parametrize("gap", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("n_out", [4000, 400])
def test_figures_of_two_normal_laws_are_those_of_the_closed_form(gap, n_out):
    figures = ood.figures_of(rows(gap, n_out=n_out))
    law = NormalDist()
    error = 4 * math.sqrt(0.25 / n_out)
    assert figures["auroc"] == pytest.approx(law.cdf(gap / math.sqrt(2)), abs=error)
    assert figures["fpr95"] == pytest.approx(1 - law.cdf(gap + law.inv_cdf(0.05)), abs=error)
    if gap:
        # the best threshold lies half-way, also where one set is ten times the other
        assert figures["acc"] == pytest.approx(law.cdf(gap / 2), abs=error)
    else:
        assert figures["aupr"] == pytest.approx(4000 / (4000 + n_out), abs=error)


def test_figures_are_those_of_brute_force():
    scored = {key: np.round(values[:60], 1) for key, values in rows(0.7).items()}
    figures = ood.figures_of(scored)
    inside, outside = scored["in_test"], scored["ood_test"]
    wins = (inside[:, None] > outside).mean() + 0.5 * (inside[:, None] == outside).mean()
    assert figures["auroc"] == pytest.approx(wins, abs=1e-12)
    thresholds = sorted({*inside, *outside}, reverse=True)
    kept = next(t for t in thresholds if (inside >= t).mean() >= 0.95)
    assert figures["fpr95"] == pytest.approx((outside >= kept).mean(), abs=1e-12)
    recalls = [0, *((inside >= t).mean() for t in thresholds)]
    precisions = [(inside >= t).sum() / ((inside >= t).sum() + (outside >= t).sum()) for t in thresholds]
    assert figures["aupr"] == pytest.approx(np.dot(np.diff(recalls), precisions), abs=1e-12)
    assert figures["acc"] == pytest.approx(((inside > stump(scored)).mean() + (outside <= stump(scored)).mean()) / 2)


def stump(scored):
    """Find by trial the threshold of least Gini impurity, the two sets weighted alike."""
    inside, outside = scored["in_train"], scored["ood_train"]
    values = np.unique(np.concatenate([inside, outside]))
    middles = (values[1:] + values[:-1]) / 2

    def impurity(threshold):
        total = 0.0
        for side in (np.greater, np.less_equal):
            a, b = side(inside, threshold).mean(), side(outside, threshold).mean()
            total += 2 * a * b / (a + b)
        return total

    return min(middles, key=impurity)


def test_a_density_that_is_upside_down_is_not_turned_round():
    figures = ood.figures_of(rows(-2.0))
    assert figures["auroc"] < 0.1
    assert figures["acc"] < 0.2
    assert figures["fpr95"] > 0.99


def test_the_threshold_is_tuned_on_training_rows_alone():
    scored = rows(2.0)
    scored["in_train"], scored["ood_train"] = scored["in_train"] + 100, scored["ood_train"] + 100
    figures = ood.figures_of(scored)
    assert figures["acc"] == 0.5  # no test row comes near the threshold of such training rows
    assert figures["auroc"] > 0.9


def test_equal_scores_are_chance():
    figures = ood.figures_of({split: np.zeros(20) for split in ood.SPLITS})
    assert figures == {"acc": 0.5, "auroc": 0.5, "aupr": 0.5, "fpr95": 1.0}


# ---- scores that are not finite


def test_infinite_scores_keep_their_place_and_are_named():
    model = given()
    scored = {"log_prob": rows(2.0)}
    clean = ood.detection(model, scored, ("a", "b"))
    scored["log_prob"]["in_test"][:40] = np.inf
    scored["log_prob"]["ood_test"][:3] = -np.inf
    scored["log_prob"]["ood_test"][3:5] = np.nan
    results = ood.detection(model, scored, ("a", "b"))
    assert all(math.isfinite(result.value) for result in results.values())
    assert results["likelihood_ood_auroc"].value == pytest.approx(clean["likelihood_ood_auroc"].value, abs=0.01)
    for result in results.values():
        assert result.note.endswith(
            "; 40 scores of in_test: +inf, highest; 3 scores of ood_test: -inf, lowest"
            "; 2 scores of ood_test: no number, taken for lowest"
        )
        assert "scores of" not in clean["likelihood_ood_acc"].note


@pytest.mark.parametrize(("value", "auroc"), [(np.inf, 0.0), (-np.inf, 1.0), (np.nan, 1.0)])
def test_other_data_without_finite_scores_are_ranked_by_their_sign(value, auroc):
    scored = rows(2.0)
    for split in ("ood_train", "ood_test"):
        scored[split][:] = value
    results = ood.detection(given(), {"log_prob": scored}, ("a", "b"))
    assert results["likelihood_ood_auroc"].value == auroc
    assert results["likelihood_ood_acc"].value == auroc


# ---- what results say


def test_results_say_what_they_are():
    results = ood.detection(given(), {"log_prob": rows(1.0, 300, 100)}, ("clothes", "digits"))
    assert list(results) == [f"likelihood_ood_{name}" for name in ("acc", "auroc", "aupr", "fpr95")]
    for result in results.values():
        assert result.note.startswith("clothes against digits; in-distribution = higher score; ")
        assert (result.n, result.kind, result.measure) == (400, "exact", "Lebesgue on R^3")
    assert "threshold tuned on training rows of both, also of digits" in results["likelihood_ood_acc"].note
    assert "in-distribution rows are positives, chance 0.75" in results["likelihood_ood_aupr"].note


def test_a_two_step_model_has_a_score_on_the_manifold_and_one_on_embeddings():
    model = two_step()
    manifold, latent = ood.scores_of(model)
    assert (manifold.suffix, latent.suffix) == ("", "_low_dim")
    assert (manifold.measure, latent.measure) == ("volume of the learned manifold", "Lebesgue on R^2")
    assert manifold.kind == latent.kind == "bound"


def test_a_model_without_a_density_has_no_score():
    assert ood.scores_of(two_step().gae) == ()


@pytest.mark.parametrize("name", ["likelihood_ood_acc", "likelihood_ood_acc_low_dim"])
def test_the_figures_are_asked_for_by_the_flag(name):
    with pytest.raises(UserError, match=rf"^{name}: leave it out and say --test-ood"):
        METRICS[name]


# ---- scores


def test_scores_are_in_the_order_of_rows_and_repeat():
    model, data = two_step(), {split: Batches(points(n), 7) for split, n in zip(ood.SPLITS, (23, 1, 7, 8), strict=True)}
    was = [module.training for module in model.modules()]
    scored = ood.score_splits(model, data, lambda values: values, seed=3)
    again = ood.score_splits(model, data, lambda values: values, seed=3)
    assert [module.training for module in model.modules()] == was
    assert list(scored) == ["log_prob", "log_prob_latent"]
    for name, splits in scored.items():
        assert [len(splits[split]) for split in ood.SPLITS] == [23, 1, 7, 8]
        for split in ood.SPLITS:
            assert np.array_equal(splits[split], again[name][split])
    volume = model.gae.log_volume(model.encode(points(23)))
    gap = scored["log_prob_latent"]["in_train"] - scored["log_prob"]["in_train"]
    assert np.allclose(gap, volume.detach(), atol=1e-4)
    exact = ood.score_splits(given(), data, lambda values: values, seed=3)
    assert np.array_equal(exact["log_prob"]["in_train"], points(23)[:, 0].double())


@pytest.mark.parametrize("n", [2, 23])
def test_ranks_together_score_every_row_once(n):
    """Three ranks, of which one has no row of two."""
    data, ranks = points(n), 3
    data[0] = torch.inf
    barrier, parts, found = Barrier(ranks), {}, {}

    def rank_of(rank):
        def add(values):
            parts[rank] = values
            barrier.wait()
            return sum(parts[other] for other in range(ranks))

        batches = {"in_test": Batches(data, 7, rank, ranks)}
        found[rank] = ood.score_splits(given(), batches, add, seed=0)["log_prob"]["in_test"]

    threads = [Thread(target=rank_of, args=(rank,)) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for rank in range(ranks):
        assert np.array_equal(found[rank], data[:, 0].double())


def test_whole_numbers_are_dequantised_for_a_density_that_was_trained_so():
    spec = DataSpec(name="pixels", shape=(3,), size=50, low=0, high=9, discrete=True)
    data = {"in_test": Batches(torch.arange(30, dtype=torch.uint8).reshape(10, 3), 4)}
    (plain,) = ood.score_splits(given(spec), data, lambda values: values, seed=0).values()
    (spread,) = ood.score_splits(given(spec, dequantize=True), data, lambda values: values, seed=0).values()
    assert np.array_equal(plain["in_test"], np.arange(0, 30, 3))
    bins = spread["in_test"] - plain["in_test"]
    assert bins.min() >= 0
    assert 0 < bins.max() < 1


def test_many_rows_are_thinned_evenly(monkeypatch):
    monkeypatch.setattr(ood, "MAX_ROWS", 4)
    assert ood.spread(torch.arange(10)).tolist() == [0, 2, 5, 7]
    assert ood.spread(torch.arange(4)).tolist() == [0, 1, 2, 3]
    assert ood.spread(torch.arange(3)).tolist() == [0, 1, 2]
