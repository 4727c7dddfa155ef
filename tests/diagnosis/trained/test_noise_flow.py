"""The ladder of a flow: closed forms at every scale, one derivative by two ways, plateaus, what training finds."""

import math

import pytest
import torch

from helpers.laws import gaussian
from twostep.data.synthetic import distribution
from twostep.diagnosis.trained import blurred_flow, noise_flow
from twostep.diagnosis.trained.blurred_flow import BlurredFlow
from twostep.diagnosis.trained.noise_flow import FlowLadder, FlowRung, Reading, dimensions, flow_ladder


class Oracle:
    """The blurred N(0, I_d) in R^D, whose log-density is off by a slope that a planted bug adds."""

    def __init__(self, d, bug=0.0):
        self.d, self.bug = d, bug

    def log_prob(self, z, s):
        variances = torch.cat([(1 + s**2).expand(-1, self.d), (s**2).expand(-1, z.shape[1] - self.d)], 1)
        density = -0.5 * (z.square() / variances + (2 * math.pi * variances).log()).sum(1)
        return density + self.bug * s[:, 0].log()


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(blurred_flow, "STEPS", 300)
    monkeypatch.setattr(blurred_flow, "BATCH", 128)
    monkeypatch.setattr(blurred_flow, "HIDDEN", (32, 32))


def flat(n, d, dim):
    return torch.cat([gaussian(n, d).float(), torch.zeros(n, dim - d)], 1)


def measured(model, rows, scale):
    return noise_flow._measured(model, rows, scale, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("scale", [0.05, 0.3, 1.0])
@pytest.mark.parametrize(("d", "dim"), [(2, 2), (2, 5)])
def test_both_dimensions_of_a_gaussian_on_a_plane_are_the_closed_form(d, dim, scale):
    found = measured(Oracle(d), flat(2000, d, dim), scale)
    truth = d * (1 + 2 * scale**2) / (1 + scale**2) ** 2
    assert found.gap < 1e-4
    assert found.lidl.low - 1e-3 <= truth <= found.lidl.high + 1e-3
    entropy = 0.5 * (d * math.log(1 + scale**2) + 2 * (dim - d) * math.log(scale) + dim * (1 + math.log(2 * math.pi)))
    assert found.log_density == pytest.approx(-entropy, abs=0.1)


def test_at_blurred_points_the_derivative_tells_nothing():
    rows, s = flat(4000, 2, 5), torch.full((4000, 1), 0.1)
    blurred = rows + 0.1 * gaussian(4000, 5, seed=1).float()
    assert float(dimensions(Oracle(2), blurred, s)[0].mean()) == pytest.approx(5, abs=0.1)


def test_a_density_that_is_none_has_a_gap():
    found = measured(Oracle(2, bug=0.5), flat(500, 2, 3), 0.1)
    assert found.gap == pytest.approx(0.5, abs=0.01)


def test_the_interval_grows_with_fewer_rows():
    def width(n):
        reading = measured(Oracle(2), flat(n, 2, 3), 0.5).lidl
        return reading.high - reading.low

    assert width(100) == pytest.approx(2 * width(400), rel=0.3)


def ladder(values, gaps=None, dim=9):
    def reading(value):
        return Reading(value, value - 0.1, value + 0.1)

    gaps = gaps or [0.0] * len(values)
    return FlowLadder(
        tuple(
            FlowRung(0.1 * 2**i, reading(value), reading(value + gap), 0.0)
            for i, (value, gap) in enumerate(zip(values, gaps, strict=True))
        ),
        dim,
    )


def test_the_dimension_is_read_where_neither_neighbour_differs():
    found = ladder([7.0, 5.0, 3.1, 3.0, 2.9, 1.0]).dimension
    assert found == Reading(3.0, 2.9, 3.1)


def test_a_turning_point_is_no_plateau():
    assert ladder([5.0, 3.0, 2.0, 3.0, 5.0]).dimension is None


@pytest.mark.parametrize("curve", [[9.0, 8.0, 6.0, 4.0, 2.0], [21.3, 20.0, 17.6, 14.7, 11.3, 8.5, 5.9, 3.8]])
def test_a_curve_that_only_falls_has_no_dimension(curve):
    assert ladder(curve).dimension is None


def test_a_rung_with_a_gap_is_passed_over_and_the_interval_holds_both_estimates():
    found = ladder([3.0, 3.0, 3.0, 2.9, 2.8, 2.7], [1.0, 1.0, 1.0, 0.2, 0.1, 0.0])
    assert found.plateau is found.rungs[4]
    assert found.dimension.low == pytest.approx(2.7)
    assert found.dimension.high == pytest.approx(3.0)


@pytest.mark.usefixtures("short")
def test_the_flow_is_a_density_at_every_scale():
    torch.manual_seed(0)
    flow = BlurredFlow(gaussian(100, 2).float() @ torch.tensor([[1.0, 0.5], [0.0, 0.3]]))
    torch.nn.init.normal_(flow.network[-1].weight)
    flow.requires_grad_(False)
    axis = torch.linspace(-6, 6, 181)
    grid = torch.cartesian_prod(axis, axis)
    for scale in (0.1, 1.0):
        density = flow.log_prob(grid, torch.full((len(grid), 1), scale)).exp()
        assert float(density.sum()) * float(axis[1] - axis[0]) ** 2 == pytest.approx(1, abs=5e-3)


def test_no_factor_of_the_flow_is_narrower_than_the_noise():
    flow = BlurredFlow(gaussian(100, 3).float()).requires_grad_(False)
    torch.nn.init.normal_(flow.network[-1].weight, std=10.0)
    scale = torch.full((1000, 1), 0.1)
    highest = float(flow.log_prob(gaussian(1000, 3).float(), scale).max())
    assert highest <= -3 * math.log(0.1 * math.sqrt(2 * math.pi))


def test_a_direction_without_data_is_exactly_missing():
    torch.manual_seed(0)
    rows = flat(300, 1, 3)
    found = dimensions(BlurredFlow(rows), rows, torch.full((300, 1), 0.1))
    assert float(found[0].mean()) < 1.05
    assert torch.allclose(*found, atol=0.05)


@pytest.mark.usefixtures("short")
def test_a_trained_ladder_of_a_gaussian_is_the_closed_form():
    for rung in flow_ladder(gaussian(600, 2)).rungs:
        truth = 2 * (1 + 2 * rung.scale**2) / (1 + rung.scale**2) ** 2
        assert rung.lidl.low - 0.1 <= truth <= rung.lidl.high + 0.1
        assert rung.gap < 0.15


def circle(n):
    rows = distribution("von-mises-circle", {}).sample(n, torch.Generator().manual_seed(0))
    return (rows - rows.mean(0)) / rows.std(0)


@pytest.mark.slow
def test_the_log_density_of_a_circle_grows_by_a_nat_for_each_factor_of_e():
    found = flow_ladder(circle(1000))
    assert found.dimension.value == pytest.approx(1, abs=0.15)
    first, last = found.rungs[1], found.rungs[4]
    slope = (last.log_density - first.log_density) / math.log(last.scale / first.scale)
    assert slope == pytest.approx(-1, abs=0.15)
    assert found.plateau.gap < 0.15


def test_training_is_seeded_and_leaves_the_global_generator(monkeypatch):
    monkeypatch.setattr(blurred_flow, "STEPS", 3)
    state = torch.random.get_rng_state()
    assert flow_ladder(gaussian(200, 3), 1) == flow_ladder(gaussian(200, 3), 1)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.slow
@pytest.mark.parametrize(("dim", "error"), [(2, 0.1), (5, 0.25)])
def test_spheres_have_their_dimension(dim, error):
    rows = distribution("uniform_sphere", {"manifold_dim": dim}).sample(1500, torch.Generator().manual_seed(0))
    assert flow_ladder(rows / rows.std(0)).dimension.value == pytest.approx(dim, abs=error)
