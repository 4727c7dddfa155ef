"""What reconstructions explain is compared with principal components."""

import pytest
import torch

from helpers.distributions import gaussian
from twostep.core.result import Result
from twostep.core.schema import DataSpec
from twostep.data.base import Splits
from twostep.experiment.reconstructions import comment_reconstructions, linear_share


def splits():
    """Return rows of stds 3, 2 and 1: two principal components explain 13 of 14 parts of the variance."""
    rows = gaussian(4000, 3) * torch.tensor([3.0, 2.0, 1.0])
    spec = DataSpec(name="rows", shape=(3,), size=2000, low=-9, high=9)
    return Splits(spec, rows[:2000], None, rows[2000:])


def test_the_share_is_that_of_principal_components_and_draws_no_random_number():
    before = torch.get_rng_state()
    assert linear_share(splits(), 2) == pytest.approx(13 / 14, abs=0.01)
    assert linear_share(splits(), 1) == pytest.approx(9 / 14, abs=0.02)
    assert linear_share(splits(), 3) is None
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("value", "advised"), [(0.95, False), (0.8, True)])
def test_advice_is_given_where_principal_components_explain_more(value, advised):
    results = {"gae": {"explained_variance": Result(value, "share of the variance", 2000)}}
    comment_reconstructions(results, splits(), 2)
    note = results["gae"]["explained_variance"].note
    assert note.startswith("2 principal components explain 9")
    assert ("max_epochs" in note) == advised
