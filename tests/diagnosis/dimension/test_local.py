"""The dimension of each row: pieces of several dimensions are distinguished, standard errors hold, equal rows agree."""

import numpy as np
import pytest
import torch

from helpers.distributions import gaussian
from local_dimension import pieces
from twostep.core.schema import UserError
from twostep.diagnosis import local_dimension
from twostep.diagnosis.dimension import local
from twostep.diagnosis.dimension.distinct_rows import as_table, distinct
from twostep.diagnosis.dimension.estimators import mean_logs
from twostep.diagnosis.dimension.neighbourhoods import neighbourhoods

# share of rows that must be right, and largest mean absolute error
BOUNDS = {
    "line and sphere": (0.95, 0.15),
    "torus and circle": (0.97, 0.1),
    "cubes of 2, 4, 8": (0.8, 0.3),
    "Gaussians of 2, 4, 8": (0.48, 1.25),
}


@pytest.fixture(autouse=True)
def few_centres(monkeypatch):
    """Correct by fewer points, which takes less time."""
    monkeypatch.setattr(local, "CENTRES", 150)


@pytest.mark.parametrize(("name", "found"), list(pieces(400, seed=7)), ids=lambda value: str(value)[:20])
def test_pieces_are_told_apart_better_than_by_plain_maximum_likelihood(name, found):
    x, truth = torch.cat([points for _, points in found]), np.repeat([d for d, _ in found], 400)
    plain = (1 / mean_logs(neighbourhoods(x, 20), 20))[distinct(as_table(x))[1]].numpy()
    values = local_dimension(x).values
    right, error = [], []
    for estimates in (plain, values):
        right.append((estimates.round() == truth).mean())
        error.append(np.abs(estimates - truth).mean())
    assert right[1] >= max(BOUNDS[name][0], right[0] + 0.08)
    assert error[1] <= min(BOUNDS[name][1], 0.6 * error[0])


def test_errors_of_one_dimension_are_those_announced():
    found = [local_dimension(torch.cat([gaussian(1000, d), torch.zeros(1000, 5 - d)], 1)) for d in (1, 2, 5)]
    errors = [np.abs(one.values - d) / one.standard_errors for one, d in zip(found, (1, 2, 5), strict=True)]
    assert (np.concatenate(errors[1:]) <= 2).mean() > 0.85
    assert (np.concatenate(errors[1:]) > 0.2).mean() > 0.3, "and they are not far too large"
    assert np.allclose(found[0].values, 1), "at most the linear rank"


def test_noise_moves_the_scale_up():
    angle = 2 * np.pi * torch.rand(1500, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    clean, noisy = (local_dimension(circle + std * gaussian(1500, 2, seed=1)) for std in (0.0, 0.01))
    assert np.median(clean.neighbours) == 10
    assert np.median(noisy.neighbours) > 10
    assert np.abs(noisy.values - 1).mean() < 0.3
    assert np.abs(clean.values - 1).mean() < 0.1


def test_rows_keep_their_order_and_equal_rows_have_one_dimension():
    x = gaussian(200, 2, dtype=torch.float32)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    found, shuffled = local_dimension(torch.cat([x, x])), local_dimension(torch.cat([x, x])[order])
    assert np.array_equal(found.values[:200], found.values[200:])
    assert np.allclose(found.values[order.numpy()], shuffled.values, rtol=1e-6)
    assert list(found.columns()) == ["row", "local_dimension", "standard_error", "neighbours"]


def test_of_more_rows_than_are_looked_at_each_takes_the_nearest(monkeypatch):
    monkeypatch.setattr(local, "ROWS", 500)
    (_, line), (_, sphere) = next(iter(pieces(1000, seed=0)))[1]
    found = local_dimension(torch.cat([line + torch.tensor([0, 0, 9.0]), sphere]))
    assert np.abs(found.values[:1000] - 1).mean() < 0.15
    assert np.abs(found.values[1000:] - 2).mean() < 0.2


@pytest.mark.parametrize("x", [gaussian(40, 2), torch.zeros(100, 2), gaussian(15, 2).repeat(10, 1)])
def test_too_few_rows_are_refused(x):
    with pytest.raises(UserError, match="rows"):
        local_dimension(x)
