"""Flows of known equations: where points go, and how their volume changes."""

import math

import pytest
import torch

from twostep.nn import ode

A = torch.tensor([[0.3, -1.2, 0.1], [0.9, 0.2, 0.4], [0.0, -0.5, -0.7]], dtype=torch.float64)


def linear(t, y):
    """dy/dt = cos(t) A y, so that y(1) = exp(sin(1) A) y(0)."""
    return t.cos() * y @ A.T


def bent(t, y):
    return torch.sin(y.roll(1, 1) * 2) + t * y.square() / 4


@pytest.fixture
def y():
    return torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_a_linear_equation_is_solved_to_fourth_order(y):
    exact = y @ torch.linalg.matrix_exp(math.sin(1) * A).T
    errors = [
        float((ode.integrate(linear, y, torch.linspace(0, 1, steps + 1).double()) - exact).abs().max())
        for steps in (5, 10)
    ]
    assert errors[1] < 1e-5
    assert errors[0] / errors[1] == pytest.approx(16, rel=0.25)


def test_the_divergence_is_the_trace_of_the_jacobian(y):
    t = torch.tensor(0.4, dtype=torch.float64)
    J = torch.stack([torch.autograd.functional.jacobian(lambda one: bent(t, one[None])[0], row) for row in y])
    torch.testing.assert_close(ode.divergence(bent, t, y), J.diagonal(dim1=1, dim2=2).sum(1))


def test_estimates_of_the_divergence_have_its_mean_and_fall_as_the_root_of_the_probes(y):
    t = torch.tensor(0.4, dtype=torch.float64)
    exact = ode.divergence(bent, t, y)
    signs = torch.randint(2, (1024, *y.shape), generator=torch.Generator().manual_seed(1)).double() * 2 - 1
    single = ode.divergence(bent, t, y, signs)
    error = single.std(0) / len(single) ** 0.5
    assert ((single.mean(0) - exact).abs() < 4 * error + 1e-9).all()
    grouped = single.unflatten(0, (-1, 16)).mean(1)
    assert float((grouped.std(0) / single.std(0)).mean()) == pytest.approx(1 / 4, rel=0.25)


def test_volumes_change_by_the_integral_of_the_divergence(y):
    start, total, _ = ode.to_start(linear, ode.with_divergence(linear), y, 8)
    exact = y @ torch.linalg.matrix_exp(-math.sin(1) * A).T
    torch.testing.assert_close(start, exact, atol=1e-5, rtol=0)
    torch.testing.assert_close(total, torch.full_like(total, math.sin(1) * float(A.trace())))
    start, total, rough = ode.to_start(bent, ode.with_divergence(bent), y, 32)
    J = torch.stack(
        [
            torch.autograd.functional.jacobian(
                lambda one: ode.to_start(bent, ode.with_divergence(bent), one[None], 32)[0][0], row
            )
            for row in y
        ]
    )
    torch.testing.assert_close(total, -torch.linalg.slogdet(J).logabsdet, atol=1e-5, rtol=0)
    assert 0 < float((rough - total).abs().max()) < 1e-3


def test_nodes_are_doubled_for_the_rows_that_need_it():
    asked = []

    def of(rows, nodes):
        asked.append((rows.tolist(), nodes))
        value = torch.where(rows == 1, 4e4 / nodes**4, 0.0).double()
        return value, 10 * value

    found = ode.until_exact(of, 3, 1e-3, torch.device("cpu"))
    assert asked == [([0, 1, 2], 16), ([1], 32), ([1], 64), ([1], 128)]
    assert found.tolist() == pytest.approx([0, 4e4 / 128**4, 0], rel=1e-5)
