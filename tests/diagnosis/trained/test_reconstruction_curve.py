"""The curve: closed forms of linear data, each size trained for itself, honest shares and intervals."""

import math

import pytest
import torch

from helpers.laws import gaussian, held
from twostep.core.schema import UserError
from twostep.diagnosis.trained import reconstruction_curve as reconstruction
from twostep.diagnosis.trained import stacked_autoencoders
from twostep.diagnosis.trained.reconstruction_curve import (
    Left,
    ReconstructionCurve,
    coordinates_of,
    reconstruction_curve,
    sizes_around,
)
from twostep.diagnosis.trained.stacked_autoencoders import StackedAutoencoders, trained


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(stacked_autoencoders, "STEPS", 60)
    monkeypatch.setattr(stacked_autoencoders, "CHECKED", 20)
    monkeypatch.setattr(stacked_autoencoders, "HIDDEN", 32)
    monkeypatch.setattr(stacked_autoencoders, "BATCH", 128)


def circle(n, dim=2, noise=0.0):
    angle = 2 * math.pi * torch.rand(n, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    points = torch.zeros(n, dim, dtype=torch.double)
    points[:, 0], points[:, 1] = angle.cos(), angle.sin()
    return points + noise * gaussian(n, dim, seed=1)


def test_without_training_it_is_the_tail_of_the_principal_components(monkeypatch):
    monkeypatch.setattr(stacked_autoencoders, "STEPS", 20)
    monkeypatch.setattr(stacked_autoencoders, "RATE", 0.0)
    monkeypatch.setattr(stacked_autoencoders, "NEARLY_0", 0.0)
    stds = torch.tensor([3.0, 2.0, 1.0, 0.5])
    found = reconstruction_curve(gaussian(3000, 4) * stds, [1, 2, 3, 4])
    for point, tail in zip(found.points, [5.25, 1.25, 0.25, 0], strict=True):
        assert point.value == pytest.approx(point.linear, abs=1e-6)
        assert point.value == pytest.approx(tail / 14.25, abs=0.03)


def test_nineteen_of_twenty_intervals_hold_the_share_that_is_left():
    stds = torch.tensor([3.0, 2.0, 1.0])
    rows = [(gaussian(200, 3, seed=seed) * stds).square() for seed in range(400)]
    found = [reconstruction._left(1, squares[:, 1:].sum(1), squares.sum(1), 0.0) for squares in rows]
    assert 0.92 < held(found, 5 / 14) < 0.98


def test_a_flat_subspace_leaves_its_tail_and_its_knee_is_its_dimension():
    flat = gaussian(1000, 3) @ gaussian(3, 8, seed=1) + 0.01 * gaussian(1000, 8, seed=2)
    found = reconstruction_curve(flat, sizes_around(3, 8))
    assert found.knee == 3
    third = next(point for point in found.points if point.size == 3)
    assert third.value == pytest.approx(third.linear, rel=0.2)


def test_a_gaussian_has_no_knee_and_nothing_beats_its_principal_components():
    found = reconstruction_curve(gaussian(1000, 6), sizes_around(6, 6))
    assert found.knee is None
    assert all(point.value > 0.85 * point.linear for point in found.points)


def test_a_circle_is_seen_at_two_coordinates_where_noise_hides_the_cut():
    found = reconstruction_curve(circle(1000, 6, noise=0.02), [1, 2, 3, 4])
    assert found.knee == 2, "d + 1, as one coordinate can't close it in so few steps"
    assert found.points[0].value < 0.7 * found.points[0].linear, "a bent line leaves less than a straight one"


def test_a_member_is_the_same_alone_and_among_others():
    x, valid = circle(800, 3, noise=0.1).float().split([600, 200])
    together, alone = trained(x, valid, [1, 2, 3], 0), trained(x, valid, [2], 0)
    assert torch.allclose(together.errors(valid)[1], alone.errors(valid)[0], rtol=1e-2, atol=1e-4)
    assert not torch.allclose(trained(x, valid, [2], 1).errors(valid), alone.errors(valid), rtol=1e-2, atol=1e-4)


def test_coordinates_beyond_a_members_size_stay_0_in_training():
    x, valid = gaussian(400, 4).float().split([300, 100])
    model = trained(x, valid, [1, 3], 0)
    assert not model.to_latent[0, :, 1:].any()
    assert not model.encoder.weights[2][0, :, 1:].any()
    assert not model.encoder.biases[2][0, :, 1:].any()
    assert not model.decoder.weights[0][0, 1:].any()
    assert model.to_latent[1, :, 1:].any()


def test_the_best_weights_on_validation_rows_are_kept_by_each_member(monkeypatch):
    x, valid = gaussian(60, 5).float().split([30, 30])
    before = StackedAutoencoders(5, [2, 4], 0).errors(valid).mean(1)
    monkeypatch.setattr(stacked_autoencoders, "RATE", 1.0)
    assert bool((trained(x, valid, [2, 4], 0).errors(valid).mean(1) <= before).all()), "a wild rate spoils all"


def test_the_same_seed_gives_the_same_figures_and_leaves_the_global_generator():
    state = torch.random.get_rng_state()
    assert reconstruction_curve(circle(200), [1, 2], 3) == reconstruction_curve(circle(200), [1, 2], 3)
    assert reconstruction_curve(circle(200), [1, 2], 3) != reconstruction_curve(circle(200), [1, 2], 4)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_shares_depend_on_no_unit_and_no_shift():
    one, other = (reconstruction_curve(x, [1, 2]) for x in (circle(300, 3, 0.1), 1000 * circle(300, 3, 0.1) + 7))
    for left, right in zip(one.points, other.points, strict=True):
        assert left.value == pytest.approx(right.value, rel=0.02)


def test_many_coordinates_go_through_the_leading_ones_and_what_these_hold_is_told():
    wide = torch.cat([3 * gaussian(400, 5), gaussian(400, 145, seed=1)], 1)
    found = reconstruction_curve(wide, [5])
    assert found.coordinates == 100
    assert found.held == pytest.approx((5 * 9 + 95) / (5 * 9 + 145), abs=0.04)  # of held-out rows, 95 of 145 alike


def test_a_curve_is_told_in_a_sentence():
    points = [Left(1, 0.2, 0.1, 0.3, 0.5), Left(2, 0.001, 0.0, 0.002, 0.4), Left(3, 0.001, 0.0, 0.002, 0.3)]
    assert ReconstructionCurve(tuple(points), 5, 1.0, 100).line().endswith("1: 20.00%, 2: 0.10%, 3: 0.10%; knee at 2")
    assert ReconstructionCurve(tuple(points[:2]), 5, 1.0, 100).line().endswith("no knee")


@pytest.mark.parametrize(
    ("d", "most", "sizes"),
    [
        (1, 1, [1]),
        (1, 10, [1, 2, 3, 4]),
        (2, 3, [1, 2, 3]),
        (5, 20, [1, 2, 4, 5, 6, 7, 10, 15]),
        (10, 10, [1, 5, 9, 10]),
        (50, 784, [1, 25, 49, 50, 51, 52, 100]),
    ],
)
def test_sizes_lie_around_the_estimate(d, most, sizes):
    assert sizes_around(d, most) == sizes


def test_fewer_rows_than_coordinates_show_no_knee_where_they_merely_end():
    x = gaussian(60, 200)
    most = coordinates_of(*x.shape)
    assert most == 43  # 60 rows without 2 x 8, and without their mean
    found = reconstruction_curve(x, sizes_around(59, most))
    assert found.coordinates == most
    assert found.knee is None
    assert found.held == pytest.approx(44 / 200, abs=0.06)
    assert f"within 43 principal coordinates, which hold {found.held:.0%}," in found.line()
    with pytest.raises(UserError, match="from 1 to 43"):
        reconstruction_curve(x, [44])


def test_what_no_curve_can_be_made_of_is_refused():
    with pytest.raises(UserError, match="too few"):
        reconstruction_curve(gaussian(49, 3), [1, 2])
    with pytest.raises(UserError, match="from 1 to 3"):
        reconstruction_curve(gaussian(60, 3), [1, 4])
    with pytest.raises(UserError, match="the same"):
        reconstruction_curve(torch.ones(60, 3), [1, 2])
