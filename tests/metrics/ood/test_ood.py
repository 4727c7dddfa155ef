"""Descriptions of the figures of a comparison, scores that are not finite, and no leak of the other data."""

import math

import numpy as np
import pytest

from helpers.known_models import given, rows, two_step
from twostep.core.schema import UserError
from twostep.metrics import METRICS, check_metrics
from twostep.metrics.ood import ood
from twostep.metrics.ood.conformal import p_values
from twostep.metrics.ood.ood import OODComparison

AGAINST = OODComparison("a", "b")


def detection(model, scored, against=AGAINST):
    return ood.detection(model, *ood.calibrate(model, scored, seed=0), against, seed=0)


def test_infinite_scores_keep_their_place_and_are_named():
    model = given()
    scored = {"log_prob": rows(2.0)}
    clean = detection(model, scored)
    scored["log_prob"]["in_test"][:40] = np.inf
    scored["log_prob"]["ood_test"][:3] = -np.inf
    scored["log_prob"]["ood_test"][3:5] = np.nan
    results = detection(model, scored)
    assert all(math.isfinite(result.value) for result in results.values())
    assert results["likelihood_ood_auroc"].value == pytest.approx(clean["likelihood_ood_auroc"].value, abs=0.01)
    for result in results.values():
        assert result.note.endswith(
            "; 40 scores of in_test: +inf, highest; 3 scores of ood_test: -inf, lowest"
            "; 2 scores of ood_test: NaN, lowest"
        )
        assert "scores of" not in clean["likelihood_ood_acc"].note


@pytest.mark.parametrize(("value", "auroc"), [(np.inf, 0.0), (-np.inf, 1.0), (np.nan, 1.0)])
def test_other_data_without_finite_scores_are_sorted_by_their_sign(value, auroc):
    scored = rows(2.0)
    for split in ("ood_train", "ood_test"):
        scored[split][:] = value
    results = detection(given(), {"log_prob": scored})
    assert results["likelihood_ood_auroc"].value == auroc
    assert results["likelihood_ood_acc"].value == auroc


def test_results_say_what_they_are():
    results = detection(given(), {"log_prob": rows(1.0, 300, 100)}, OODComparison("clothes", "digits"))
    assert list(results) == [f"likelihood_ood_{name}" for name in ("acc", "auroc", "aupr", "aupr_out", "fpr95")]
    for result in results.values():
        assert result.note.startswith("clothes against digits; in-distribution = higher score; ")
        assert (result.n, result.kind, result.measure) == (400, "exact", "Lebesgue on R^3")
    assert (
        "uses OOD data: threshold tuned on training rows of both, also of digits" in results["likelihood_ood_acc"].note
    )
    assert "in-distribution rows are positives, chance 0.75" in results["likelihood_ood_aupr"].note
    assert "OOD rows are positives, chance 0.25" in results["likelihood_ood_aupr_out"].note
    intervals = {name: result.interval for name, result in results.items()}
    assert intervals.pop("likelihood_ood_acc") is None
    for name, (low, high) in intervals.items():
        assert 0 <= low < results[name].value < high <= 1


def test_reversed_scores_are_not_negated_and_both_precisions_see_it():
    scored = {"log_prob": {split: -values for split, values in rows(2.0).items()}}
    results = detection(given(), scored)
    assert results["likelihood_ood_auroc"].value < 0.1
    assert results["likelihood_ood_aupr"].value < 0.35
    assert results["likelihood_ood_aupr_out"].value < 0.35


def three_scores(gap, n=2000, seed=0):
    """Give scores of a two-step model: distances are informative, densities are not, and all of them are dependent."""
    random = np.random.default_rng(seed)
    scored = {name: {} for name in ("log_prob", "log_prob_latent", "reconstruction_error")}
    for split in ("in_train", "in_valid", "in_test", "ood_train", "ood_test"):
        common, own = random.normal(size=(2, n))
        scored["log_prob"][split] = scored["log_prob_latent"][split] = common
        scored["reconstruction_error"][split] = -np.exp(own - common + gap * split.startswith("ood"))
    return scored


def test_the_two_part_score_and_p_values_do_not_depend_on_other_data():
    model, scored = two_step(), three_scores(3.0)
    scores, p_values = ood.calibrate(model, scored, seed=0)
    changed = {name: {**found, "ood_train": -found["ood_train"][:7]} for name, found in scored.items()}
    for name in changed:
        changed[name]["ood_test"] = scored[name]["ood_test"][::-1]
        changed[name]["in_train"] = scored[name]["in_train"] + 1e3
    again, p_again = ood.calibrate(model, changed, seed=0)
    assert np.array_equal(scores["two_part"]["in_test"], again["two_part"]["in_test"])
    assert np.array_equal(scores["two_part"]["ood_test"][::-1], again["two_part"]["ood_test"])
    for name in ("log_prob", "log_prob_latent", "reconstruction_error", "two_part"):
        assert np.array_equal(p_values[name]["in_test"], p_again[name]["in_test"])


def test_false_positives_are_as_many_as_announced_and_others_are_found():
    results = detection(two_step(), three_scores(4.0))
    for figure in ("likelihood_ood_{}", "likelihood_ood_{}_low_dim", "distance_ood_{}", "two_part_ood_{}"):
        assert results[figure.format("false_positive_rate")].value == pytest.approx(0.05, abs=0.02)
        assert "validation rows only" in results[figure.format("false_positive_rate")].note
    assert results["likelihood_ood_detection_rate"].value < 0.1
    assert results["two_part_ood_detection_rate"].value > 0.7
    assert "distance_ood_acc" not in results


def test_false_positives_report_their_deviation_for_few_validation_rows():
    random = np.random.default_rng(0)
    rates = [(p_values(random.normal(size=2000), random.normal(size=4000)) <= 0.05).mean() for _ in range(200)]
    assert np.std(rates) == pytest.approx(np.hypot(0.0049, np.sqrt(0.05 * 0.95 / 4000)), rel=0.2)
    results = detection(two_step(), three_scores(4.0))
    assert "± 0.0049 with 2,000 validation rows" in results["distance_ood_false_positive_rate"].note
    assert "± 0.0069 with 1,000 validation rows" in results["two_part_ood_false_positive_rate"].note


def test_the_accuracies_are_metrics_of_models_that_have_the_density():
    flow = two_step().de
    assert [METRICS[name].refusal(two_step()) for name in ("likelihood_ood_acc", "likelihood_ood_acc_low_dim")] == [
        "",
        "",
    ]
    assert METRICS["likelihood_ood_acc"].refusal(flow) == ""
    for name, model in (("likelihood_ood_acc", two_step().gae), ("likelihood_ood_acc_low_dim", flow)):
        with pytest.raises(UserError, match=f"^{name}: "):
            check_metrics([name], model, "it")
