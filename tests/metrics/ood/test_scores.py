"""Scores in the order of rows, whatever the ranks; which ones a model has, and that higher is more in-distribution."""

from threading import Barrier, Thread

import numpy as np
import pytest
import torch

from helpers.known_models import SPLITS, given, points, two_step
from twostep.core.schema import DataSpec
from twostep.data.batches import Batches
from twostep.metrics.ood.scores import score_splits, scores_of


def test_a_two_step_model_has_all_three():
    manifold, latent, distance = scores_of(two_step())
    assert [score.name for score in (manifold, latent, distance)] == [
        "log_prob",
        "log_prob_latent",
        "reconstruction_error",
    ]
    assert (manifold.measure, latent.measure) == ("volume of the learned manifold", "Lebesgue on R^2")
    assert (manifold.kind, latent.kind, distance.kind) == ("bound", "bound", "")


def test_a_density_alone_has_no_distance_and_an_autoencoder_no_density():
    assert [score.name for score in scores_of(given())] == ["log_prob"]
    assert [score.name for score in scores_of(two_step().gae)] == ["reconstruction_error"]


def test_the_distance_is_negated_so_that_points_on_the_manifold_come_highest():
    model = two_step()
    on = model.decode(model.encode(points(20))).detach()
    score = scores_of(model)[2].of
    off = on + 10 * points(20, seed=5)
    assert score(on).min() > score(off).max()
    assert score(off).max() < 0


def test_scores_are_in_the_order_of_rows_and_repeat():
    model, data = two_step(), {split: Batches(points(n), 7) for split, n in zip(SPLITS, (23, 1, 7, 8), strict=True)}
    was = [module.training for module in model.modules()]
    scored = score_splits(model, data, lambda values: values, seed=3)
    again = score_splits(model, data, lambda values: values, seed=3)
    assert [module.training for module in model.modules()] == was
    assert list(scored) == ["log_prob", "log_prob_latent", "reconstruction_error"]
    for name, splits in scored.items():
        assert [len(splits[split]) for split in SPLITS] == [23, 1, 7, 8]
        for split in SPLITS:
            assert np.array_equal(splits[split], again[name][split])
    volume = model.gae.log_volume(model.encode(points(23)))
    gap = scored["log_prob_latent"]["in_train"] - scored["log_prob"]["in_train"]
    assert np.allclose(gap, volume.detach(), atol=1e-4)
    exact = score_splits(given(), data, lambda values: values, seed=3)
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
        found[rank] = score_splits(given(), batches, add, seed=0)["log_prob"]["in_test"]

    threads = [Thread(target=rank_of, args=(rank,)) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for rank in range(ranks):
        assert np.array_equal(found[rank], data[:, 0].double())


def test_integers_are_dequantised_for_a_density_that_was_trained_so():
    spec = DataSpec(name="pixels", shape=(3,), size=50, low=0, high=9, discrete=True)
    data = {"in_test": Batches(torch.arange(30, dtype=torch.uint8).reshape(10, 3), 4)}
    (plain,) = score_splits(given(spec), data, lambda values: values, seed=0).values()
    (dequantised,) = score_splits(given(spec, dequantize=True), data, lambda values: values, seed=0).values()
    assert np.array_equal(plain["in_test"], np.arange(0, 30, 3))
    bins = dequantised["in_test"] - plain["in_test"]
    assert bins.min() >= 0
    assert 0 < bins.max() < 1
