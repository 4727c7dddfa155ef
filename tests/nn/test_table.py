"""Rows of tables as vectors: there and back, slopes, probabilities that add up to one."""

import itertools

import numpy as np
import pandas
import pytest
import torch
from torch.distributions import MultivariateNormal

from twostep.data.load import split_frame
from twostep.data.table.codes import to_codes
from twostep.data.table.infer import Problems
from twostep.nn.marginals import Shares, Splines
from twostep.nn.table import TableCoordinates, TableFeatures, TableNoise

N = 600


@pytest.fixture(scope="module")
def rows():
    random = np.random.default_rng(0)
    frame = pandas.DataFrame(
        {
            "amount": random.lognormal(0, 1.5, N),
            "score": random.normal(1e6, 2, N),
            "count": random.poisson(3, N),
            "word": random.choice(["a", "b", "c"], N, p=[0.6, 0.3, 0.1]),
            "flag": random.random(N) < 0.4,
        }
    )
    frame.loc[random.random(N) < 0.2, "amount"] = np.nan
    frame.loc[random.random(N) < 0.1, "word"] = None
    splits = split_frame(frame, valid_fraction=0.0)
    return splits.spec.columns, splits.train


@pytest.mark.parametrize("kind", [TableCoordinates, TableFeatures])
def test_rows_come_back_from_vectors(rows, kind):
    schema, codes = rows
    to_vectors = kind(schema)
    to_vectors.fit([codes])
    torch.manual_seed(0)
    for x in (codes, TableNoise(5)(codes)):
        y = to_vectors(x)
        assert y.shape == (len(codes), to_vectors.width)
        assert y.isfinite().all()
        back = to_vectors.inverse(y)
        assert torch.equal(back.isnan(), codes.isnan())
        assert torch.allclose(back.nan_to_num(), codes.nan_to_num(), atol=1e-4)


def test_each_coordinate_of_a_row_is_standard_normal(rows):
    schema, codes = rows
    to_vectors = TableCoordinates(schema)
    to_vectors.fit([codes])
    torch.manual_seed(0)
    y = torch.cat([to_vectors(TableNoise(5)(codes)) for _ in range(10)])
    assert y.mean(0).abs().max() < 0.1
    assert (y.std(0) - 1).abs().max() < 0.1
    assert to_vectors.width == 6  # five columns, and whether the amount is missing


@pytest.mark.parametrize("values", [torch.randn(500), torch.randn(9).exp(), torch.arange(4.0), torch.zeros(50)])
def test_a_spline_is_smooth_and_monotone_and_inverted(values):
    spline = Splines(1)
    spline.fit(0, values)
    x = torch.linspace(float(values.min()) - 2, float(values.max()) + 2, 2001).double()[:, None].requires_grad_()
    y, log_slope = spline(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert torch.allclose(slope.log(), log_slope, atol=1e-6)
    assert (y.diff(dim=0) > 0).all()
    assert torch.allclose(spline.inverse(y), x, atol=1e-6)


def test_shares_of_levels_are_those_of_the_rows():
    shares = Shares([3, 2])
    shares.fit(0, torch.tensor([0, 0, 0, 1]))
    shares.fit(1, torch.tensor([1]))
    low, share = shares.ends(torch.tensor([[0, 0], [1, 1], [2, 1]]))
    assert torch.allclose(share[:, 0], torch.tensor([3.5, 1.5, 0.5]).double() / 5.5)
    assert torch.allclose(low[:, 1], torch.tensor([0.0, 0.25, 0.25]).double())
    assert torch.equal(shares.at(low + share / 2), torch.tensor([[0, 0], [1, 1], [2, 1]]))


def test_probabilities_of_all_rows_add_up_to_one():
    """Any density of the coordinates gives a distribution of rows: by enumeration, also of gaps."""
    random = np.random.default_rng(0)
    word, flag = random.choice(["a", "b", None], 200), random.random(200) < 0.3
    frame = pandas.DataFrame({"word": word, "flag": flag, "x": np.where(random.random(200) < 0.5, 0.0, np.nan)})
    frame.loc[0, "x"] = 1.0
    schema = split_frame(frame, kwargs={"kinds": {"x": "continuous"}}).spec.columns
    to_vectors = TableCoordinates(schema)
    to_vectors.fit([to_codes(schema, frame, Problems())])
    covariance = torch.full((to_vectors.width,) * 2, 0.6) + 0.4 * torch.eye(to_vectors.width)
    density = MultivariateNormal(torch.zeros(to_vectors.width), covariance)
    torch.manual_seed(0)
    places = [*range(3), torch.nan], range(3), [torch.nan]
    total = 0.0
    for row in itertools.product(*places):  # rows whose x is missing; the others have the rest of the probability
        x = TableNoise(3)(torch.tensor(row).repeat(20_000, 1))
        total += float((density.log_prob(to_vectors(x)) + to_vectors.log_abs_det_jacobian(x)).exp().mean())
    drawn = to_vectors.inverse(density.sample((100_000,)))
    assert total == pytest.approx(float(drawn[:, 2].isnan().float().mean()), abs=0.02)
