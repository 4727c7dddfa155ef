"""The dimension around a point from a score: in closed form, for a Gaussian on a plane."""

import pytest
import torch

from twostep.core.schema import UserError
from twostep.diagnosis import score_dimension
from twostep.models import FlowMatching


class OnAPlane(torch.nn.Module):
    """What a network learns of data whose coordinates are N(0, 1), but for the last two, which are 0."""

    def forward(self, s, y):
        s = s.reshape(-1, 1)
        square = s.square() + (1 - s).square()
        return torch.where(torch.arange(5) < 3, 0.0, -1 / (1 - s) - (2 * s - 1) / square) * y * square.sqrt()


def test_both_estimates_are_the_dimension_of_a_plane():
    x = torch.randn(150, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 1, 1, 0, 0])
    found = score_dimension(FlowMatching(OnAPlane(), (5,)), x, sigma=0.02, draws=256)
    assert found.flipd.shape == (150,)
    torch.testing.assert_close(found.flipd, torch.full((150,), 3.0), atol=0.02, rtol=0)
    error = (found.denoising - 3) / found.standard_errors
    assert abs(float(error.mean())) < 0.3
    assert float(error.std()) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("wrong", [{"sigma": 0.0}, {"draws": 1}])
def test_a_scale_of_nothing_and_a_single_draw_are_refused(wrong):
    with pytest.raises(UserError):
        score_dimension(FlowMatching(OnAPlane(), (5,)), torch.zeros(2, 5), **wrong)
