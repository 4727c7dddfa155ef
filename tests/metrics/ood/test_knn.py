"""Distances to the fifth nearest training row: against scikit-learn, of training rows themselves, and in units."""

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors

from helpers.known_models import given, points, two_step
from twostep.metrics.ood.knn import K, NearestRows, knn_scores


def reference(known, x, k=K):
    return NearestNeighbors(n_neighbors=k).fit(known).kneighbors(x)[0][:, -1]


def test_distances_are_those_of_scikit_learn_in_data_space_and_among_embeddings():
    model, known, new = two_step(), points(200), points(30, seed=9)
    data, latent = knn_scores(model, known)
    assert [data.name, latent.name] == ["knn", "knn_latent"]
    np.testing.assert_allclose(-data.of(new), reference(known, new), rtol=1e-4)
    z = model.encode(known).detach()
    np.testing.assert_allclose(
        -latent.of(new).detach(), reference(z / z.std(0), model.encode(new).detach() / z.std(0)), rtol=1e-3
    )


def test_a_training_row_is_not_its_own_neighbour():
    known = points(50)
    np.testing.assert_allclose(NearestRows(known)(known), reference(known, known, K + 1), rtol=1e-4)


def test_far_from_the_origin_and_with_few_rows():
    known, new = 1e4 + points(40), 1e4 + points(10, seed=2)
    np.testing.assert_allclose(NearestRows(known)(new), reference(known, new), rtol=1e-3)
    np.testing.assert_allclose(NearestRows(known[:3])(new), reference(known[:3], new, 3), rtol=1e-3)
    assert NearestRows(known[:1])(known[:1]).tolist() == [0]


def test_a_density_alone_has_the_distance_in_data_space():
    assert [score.name for score in knn_scores(given(), points(20))] == ["knn"]
    assert torch.isfinite(knn_scores(given(), points(20))[0].of(points(3))).all()
