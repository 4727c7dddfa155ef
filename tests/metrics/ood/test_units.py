"""Units of distances: standard deviations of standardised vectors, data units elsewhere; relative ones of images."""

import numpy as np
import pytest
import torch
from torch import nn

from helpers.distributions import gaussian
from twostep.data.batches import Batches
from twostep.metrics.ood.scores import DISTANCE, FLAT, NEAREST, RELATIVE, in_units, score_splits, scores_of
from twostep.models import Autoencoder
from twostep.nn.transforms import Chain, Flatten, Scale, Whiten

UNITS = torch.tensor([1.0, 1000.0, 0.01])


def autoencoder(transform, dim):
    """Give an autoencoder that keeps the first coordinate only, of what its transform gives."""
    first, back = nn.Linear(dim, 1, bias=False), nn.Linear(1, dim, bias=False)
    nn.init.constant_(first.weight, 0)
    nn.init.constant_(back.weight, 0)
    with torch.no_grad():
        first.weight[0, 0] = back.weight[0, 0] = 1.0
    return Autoencoder(first, back, latent_dim=1, transform=transform)


def table(n=200, seed=0):
    return (gaussian(n, 3, seed=seed) * UNITS).float()


def test_no_wide_column_decides_where_the_model_standardises():
    x = table()
    model = autoencoder(Chain([Whiten((3,))]), 3)
    model.fit_transform([x])
    distance = {score.name: score.of for score in scores_of(model)}[DISTANCE]
    y = model.transform(x)
    assert torch.allclose(-distance(x), y[:, 1] ** 2 + y[:, 2] ** 2, rtol=1e-3, atol=1e-5)
    moved = -distance(x + torch.tensor([0.0, 0.0, 0.05]))
    assert float((moved > -distance(x)).float().mean()) > 0.9, "five standard deviations of the narrow column"


def test_others_are_in_units_of_the_data():
    model = autoencoder(Chain([Scale()]), 3)
    model.fit_transform([table()])
    assert in_units(model, table()) is not None
    assert torch.equal(in_units(model, table()), table())
    distance = {score.name: score.of for score in scores_of(model)}[DISTANCE]
    assert torch.allclose(-distance(table()), model.reconstruction_error(table()))


def test_the_nearest_training_row_is_that_in_the_same_units():
    x, train = table(30, seed=1), table()
    model = autoencoder(Chain([Whiten((3,))]), 3)
    model.fit_transform([train])
    found = score_splits(model, {"new": Batches(x, 7)}, lambda values: values, 0, train)[NEAREST]["new"]
    expected = torch.cdist(model.transform(x), model.transform(train)).min(1).values
    assert found == pytest.approx(-expected.numpy(), rel=1e-4)
    assert NEAREST not in score_splits(model, {"new": Batches(x, 7)}, lambda values: values, 0)


def test_the_relative_distance_is_that_of_the_definition_and_ignores_contrast():
    images = torch.rand(20, 1, 2, 2, generator=torch.Generator().manual_seed(0)) * 255
    model = autoencoder(Chain([Flatten((1, 2, 2)), Scale()]), 4)
    model.fit_transform([images])
    relative = {score.name: score.of for score in scores_of(model)}[RELATIVE]
    y = (images / images.max()).flatten(1).numpy()
    error = (y[:, 1:] ** 2).sum(1)
    expected = error / (4 * y.var(1) + FLAT * 4)
    assert -relative(images).detach().numpy() == pytest.approx(expected, rel=1e-4)
    assert np.isfinite(relative(torch.full((1, 1, 2, 2), 9.0)).item())
