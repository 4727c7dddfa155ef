"""Synthetic sets: densities of mass 1, samples that follow them, closed-form figures, projections, keys."""

import json
import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from twostep.core.schema import UserError
from twostep.data.base import DATASETS
from twostep.data.load import load_data
from twostep.data.synthetic import SYNTHETIC, distribution

TURN = 2 * math.pi
SAMPLES = 20_000
SPOTS = 50_000  # as many as would weigh so much if all weighed alike
CRITICAL = 1.95 / math.sqrt(SAMPLES)  # of a Kolmogorov-Smirnov distance, at the level 0.001
CURVES = [name for name in SYNTHETIC if hasattr(SYNTHETIC[name], "curve")]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def columns(*parts):
    return torch.stack(torch.broadcast_tensors(*parts), 1)


@dataclass
class Chart:
    """A set, a chart `p -> x` of where its points lie, and the box of the chart's parameters, cut into cells.

    The chart is written here anew, from the set's maths; its Jacobian is taken by differences.
    """

    name: str
    place: object
    axes: tuple
    kwargs: dict = field(default_factory=dict)

    def __str__(self):
        return self.name + "".join(f",{key}={value}" for key, value in self.kwargs.items())

    @property
    def truth(self):
        return distribution(self.name, self.kwargs)

    def masses(self):
        """Return the middle of each cell, its size, and the probability that the density gives it."""
        steps = torch.tensor([(high - low) / count for low, high, count in self.axes])
        mids = [low + (high - low) * (torch.arange(count).double() + 0.5) / count for low, high, count in self.axes]
        p = torch.cartesian_prod(*mids).reshape(-1, len(mids))
        h = 1e-6
        tangents = [
            (self.place(*(p + h * e).T) - self.place(*(p - h * e).T)) / (2 * h) for e in torch.eye(len(mids)).double()
        ]
        jacobian = torch.stack(tangents, 2)
        volume = torch.linalg.det(jacobian.mT @ jacobian).clamp(min=0).sqrt() * steps.prod()
        return p, steps, self.truth.log_prob(self.place(*p.T)).exp() * volume


def plane(name, low, high, count, **kwargs):
    return Chart(name, columns, ((low, high, count), (low, high, count)), kwargs)


def noisy(name, low, high, **kwargs):
    """A planar curve with noise: cells as wide as the noise's std."""
    (x, y), (X, Y), noise = low, high, distribution(name, kwargs).noise
    counts = [math.ceil((top - bottom) / noise) for bottom, top in ((x, X), (y, Y))]
    return Chart(name, columns, ((x, X, counts[0]), (y, Y, counts[1])), kwargs)


def sphere(*angles):
    """Spherical coordinates of S^k, the last angle around a whole turn."""
    parts, sines = [], torch.ones_like(angles[0])
    for angle in angles:
        parts.append(sines * angle.cos())
        sines = sines * angle.sin()
    return torch.stack([*parts, sines], 1)


def sphere_axes(k, count):
    return (*((0, math.pi, count),) * (k - 1), (0, TURN, count if k == 1 else 40))


def torus(theta, phi, R=2.0, r=1.0):
    return columns((R + r * theta.cos()) * phi.cos(), (R + r * theta.cos()) * phi.sin(), r * theta.sin())


def klein(theta, phi, R=2.0, r=1.0):
    around = (R + r * theta.cos(), r * theta.sin())
    return columns(
        around[0] * phi.cos(), around[0] * phi.sin(), around[1] * (phi / 2).cos(), around[1] * (phi / 2).sin()
    )


def two_lines(t):
    return columns((t + 2) % 4 - 2, torch.where(t < 2, 1.0, -1.0).double())


def s_curve(t, v):
    return columns(t.sin(), v, t.sign() * (t.cos() - 1))


def repeated(copies):
    return lambda *p: columns(*p).repeat(1, copies)


def flat(name, **kwargs):
    """A chart of a flat subspace, with an orthonormal basis that comes from samples alone."""
    points = distribution(name, kwargs).sample(50, seeded(1))
    d = distribution(name, kwargs).intrinsic_dim
    basis = torch.linalg.svd(points).Vh[:d]
    return Chart(name, lambda *p: columns(*p) @ basis, ((-6, 6, 100 if d > 1 else 2000),) * d, kwargs)


def project(truth, x):
    """Return the points `(n, D)` of the manifold nearest to `x`."""
    return truth.nearest(x.double() @ truth.isometry) @ truth.isometry.T


def no_noise(name):
    """A curve set without noise: its curves one after another."""
    curves = distribution(name)
    length = curves.high - curves.low

    def place(u):
        piece = (u / length).floor().long()
        return curves.curve(piece, curves.low + u - piece * length)

    return Chart(name, place, ((0.0, curves.pieces * length, 300 * curves.pieces),), {"noise": 0.0})


CHARTS = [
    noisy("swissroll", (-4, -4), (4, 4)),
    noisy("circles", (-4.5, -4.5), (4.5, 4.5)),
    noisy("rings", (-3.5, -3.5), (3.5, 3.5)),
    noisy("2spirals", (-4, -4), (4, 4)),
    noisy("sawtooth", (-2.3, -1.3), (2.3, 1.3)),
    noisy("quadspline", (-2.3, -1.3), (2.3, 1.3)),
    noisy("sin-wave-mixture", (-4, -2), (4, 2)),
    noisy("two_moons", (-1.6, -1.1), (2.6, 1.6)),
    noisy("line", (-3.5, -3.5), (3.5, 3.5), noise=0.2),
    Chart("line", lambda t: columns(t, t), ((-2.5, 2.5, 1000),)),
    Chart("cos", lambda t: columns(t, 2.5 * t.cos()), ((-2.5, 2.5, 2000),)),
    Chart("2lines", two_lines, ((-2, 6, 2000),)),
    *(no_noise(name) for name in CURVES if distribution(name).noise),
    plane("checkerboard", -5, 5, 100),
    plane("1uniform", -2, 2, 80),
    plane("2uniforms", -2, 2, 80),
    plane("2marginals", -6, 6, 240),
    plane("split-gaussian", -7, 7, 280),
    plane("pinwheel", -6, 6, 400),
    plane("8gaussians", -6, 6, 150),
    plane("8gaussians", -6, 6, 150, noise=0.3),
    Chart("annulus", lambda r, t: columns(r * t.cos(), r * t.sin()), ((0.5, 2.5, 40), (0, TURN, 300))),
    Chart("von-mises-circle", sphere, ((0, TURN, 1000),)),
    plane("von-mises-circle", -2, 2, 120, noise=0.1),
    Chart("von-mises-circle", columns, ((-1.9, 1.9, 32),) * 3, {"noise": 0.2, "ambient_dim": 3}),
    Chart("sphere", sphere, sphere_axes(1, 1000), {"manifold_dim": 1}),
    Chart("sphere", sphere, sphere_axes(2, 300)),
    Chart("sphere", sphere, sphere_axes(3, 26), {"manifold_dim": 3, "mu": (0.5, -1.0, 2.0, 0.0)}),
    Chart("vmf_sphere", sphere, sphere_axes(2, 300)),
    Chart("vmf_sphere", sphere, sphere_axes(3, 26), {"manifold_dim": 3, "kappa": 2.0}),
    Chart("vmf_sphere", columns, ((-2, 2, 24),) * 3, {"noise": 0.2}),
    Chart("uniform_sphere", sphere, sphere_axes(2, 300)),
    Chart("uniform_sphere", sphere, sphere_axes(3, 26), {"manifold_dim": 3}),
    Chart("torus", torus, ((0, TURN, 50),) * 2),
    Chart("klein", klein, ((0, TURN, 50),) * 2),
    Chart("klein", lambda *p: klein(*p, R=3.0, r=2.5), ((0, TURN, 50),) * 2, {"R": 3.0, "r": 2.5}),
    Chart(
        "swiss_roll",
        lambda t, v: columns(t * t.cos(), v, t * t.sin()),
        ((1.5 * math.pi, 4.5 * math.pi, 300), (0, 21, 2)),
    ),
    Chart("s_curve", s_curve, ((-1.5 * math.pi, 1.5 * math.pi, 300), (0, 2, 2))),
    flat("affine"),
    flat("affine", manifold_dim=1, ambient_dim=7, std=0.5),
    Chart("affine", columns, ((-5, 5, 60),) * 3, {"manifold_dim": 2, "ambient_dim": 3, "noise": 0.4}),
    Chart("repeated", repeated(12), ((-6, 6, 150),) * 2),
    Chart("repeated", lambda t: columns(t, t, t, t), ((-2.5, 2.5, 1000),), {"base": "line", "ambient_dim": 4}),
    Chart("network_manifold", lambda *z: distribution("network_manifold").chart(columns(*z)), ((-5, 5, 100),) * 2),
]


def statistics(x):
    """Return numbers that a distribution shows in: the coordinates, the norm, a slanted direction."""
    return torch.cat([x[:, :3], x.norm(dim=1, keepdim=True), x[:, :2] @ torch.tensor([[0.6], [0.8]]).double()], 1)


def distances(samples, points, masses):
    """Return each sample's largest Kolmogorov-Smirnov distance over the statistics; equal values count as one."""
    largest = [0.0] * len(samples)
    for *several, theirs in zip(*(statistics(sampled).T for sampled in samples), statistics(points).T, strict=True):
        theirs, order = theirs.round(decimals=9).sort()
        last = torch.searchsorted(theirs, theirs, right=True) - 1
        cumulative = masses[order].cumsum(0)[last]
        for number, ours in enumerate(several):
            empirical = torch.searchsorted(ours.round(decimals=9).sort().values, theirs, right=True) / len(ours)
            largest[number] = max(largest[number], float((empirical - cumulative).abs().max()))
    return largest


def biased(sampled):
    """Return the sample with 5 % of its points, taken evenly, moved into the lower half of the first coordinate."""
    lower = sampled[sampled[:, 0].argsort()[: len(sampled) // 2]]
    moved = sampled.clone()
    rows = torch.arange(0, len(sampled), 20)
    moved[rows] = lower[torch.randint(len(lower), (len(rows),), generator=seeded(5))]
    return moved


def test_every_set_has_a_chart():
    assert {chart.name for chart in CHARTS} == set(SYNTHETIC)


@pytest.mark.parametrize("chart", CHARTS, ids=str)
def test_the_density_has_mass_one_and_samples_follow_it(chart):
    p, steps, masses = chart.masses()
    assert float(masses.sum()) == pytest.approx(1, abs=1e-3)
    # each cell's mass is spread over random places in it, or all the cells of a column would share one coordinate
    likely = masses > 1e-9
    spots = math.ceil(SPOTS * float(masses.square().sum()))
    p, masses = p[likely].repeat(spots, 1), masses[likely].repeat(spots) / spots
    points = chart.place(*(p + steps * (torch.rand(p.shape, generator=seeded(2), dtype=torch.double) - 0.5)).T)
    sampled = chart.truth.sample(SAMPLES, seeded())
    ours, wrong = distances((sampled, biased(sampled)), points, masses)
    assert ours < CRITICAL < wrong


def mean_log_prob(chart):
    """Return the entropy's negative by quadrature."""
    p, _, masses = chart.masses()
    log_prob = chart.truth.log_prob(chart.place(*p.T))
    return float((masses * log_prob.where(masses > 0, 0)).sum())


def chart_of(name, **kwargs):
    (found,) = [chart for chart in CHARTS if (chart.name, chart.kwargs) == (name, kwargs)]
    return found


@pytest.mark.parametrize(
    ("name", "figure"),
    [
        ("von-mises-circle", -1.627401),
        ("sphere", -1.836919),
        ("uniform_sphere", -2.531024),
        ("vmf_sphere", -1.448563),
        ("torus", -4.368901),
        ("swiss_roll", -7.493403),
        ("s_curve", -math.log(6 * math.pi)),
        ("affine", -(1 + math.log(TURN))),
        ("1uniform", -math.log(4)),
        ("checkerboard", -math.log(32)),
    ],
)
def test_mean_log_densities_are_the_known_figures(name, figure):
    chart = chart_of(name)
    chart.axes = tuple((low, high, 2 * count) for low, high, count in chart.axes)
    assert mean_log_prob(chart) == pytest.approx(figure, abs=2e-5)


def test_the_circle_has_its_largest_and_smallest_density_where_they_belong():
    circle = distribution("von-mises-circle")
    ends = circle.log_prob(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])).exp()
    assert ends.tolist() == pytest.approx([0.341710, 0.046246], abs=1e-6)
    uniform = distribution("von-mises-circle", {"kappa": 0})
    assert float(uniform.log_prob(torch.tensor([[0.0, 1.0]]))) == pytest.approx(-1.837877)


def on_circle(model, points=4096):
    """Return the mean log-density over the von Mises circle itself."""
    angles = torch.arange(points).double() * TURN / points
    x = torch.stack([angles.cos(), angles.sin()], 1)
    weights = distribution("von-mises-circle").log_prob(x).exp() * TURN / points
    return float((weights * model.log_prob(x)).sum())


def test_the_circle_with_noise_gains_a_nat_for_each_factor_of_e():
    figures = {0.1: -0.2425, 0.01: 2.0588, 0.001: 4.3614}
    for noise, figure in figures.items():
        assert on_circle(distribution("von-mises-circle", {"noise": noise})) == pytest.approx(figure, abs=1e-4)
        # the closed form of the figures
        x = torch.tensor([[0.3, -0.9], [1.0, 0.0]]).double()
        tilted = (torch.tensor([1.0, 0.0]) + x / noise**2).norm(dim=1)
        bessel = (
            torch.special.i0e(tilted).log() + tilted - math.log(float(torch.special.i0(torch.tensor(1.0).double())))
        )
        expected = -math.log(TURN * noise**2) - (1 + x.square().sum(1)) / (2 * noise**2) + bessel
        assert torch.allclose(distribution("von-mises-circle", {"noise": noise}).log_prob(x), expected, rtol=1e-9)
    for noise, slope in ((0.1, -0.998), (0.01, -1.0), (0.001, -1.0)):
        apart = [on_circle(distribution("von-mises-circle", {"noise": noise * factor})) for factor in (0.999, 1.001)]
        assert (apart[1] - apart[0]) / math.log(1.001 / 0.999) == pytest.approx(slope, abs=1e-3)


def test_likelihood_prefers_the_wrong_distribution_closer_to_the_manifold():
    wrong = on_circle(distribution("von-mises-circle", {"kappa": 0, "noise": 0.001}))
    right = on_circle(distribution("von-mises-circle", {"noise": 0.01}))
    assert wrong == pytest.approx(4.15, abs=0.01)
    assert right == pytest.approx(2.06, abs=0.01)


def test_the_sphere_set_is_the_closed_form():
    u = torch.nn.functional.normalize(torch.randn(50, 3, generator=seeded(), dtype=torch.double), dim=1)
    t = u @ torch.tensor([-1.0, -1.0, 0.0]).double()
    normal = torch.distributions.Normal(0.0, 1.0)
    ratio = normal.cdf(t) / normal.log_prob(t).exp()
    expected = TURN**-1.5 * math.exp(-1) * (t + (1 + t.square()) * ratio)
    assert torch.allclose(distribution("sphere").log_prob(u).exp(), expected, rtol=1e-9)


def test_a_projected_gaussian_is_known_in_many_dimensions():
    """With mean 0 it is uniform, whatever the dimension."""
    kwargs = {"manifold_dim": 60, "mu": (0.0,) * 61}
    x = distribution("sphere", kwargs).sample(20, seeded())
    area = math.log(2) + 61 / 2 * math.log(math.pi) - math.lgamma(61 / 2)
    assert torch.allclose(distribution("sphere", kwargs).log_prob(x), torch.tensor(-area).double())
    uniform = distribution("uniform_sphere", {"manifold_dim": 60})
    assert torch.allclose(uniform.log_prob(x), torch.tensor(-area).double())


def test_the_von_mises_fisher_distribution_has_its_mean_and_its_constant():
    x = distribution("vmf_sphere").sample(100_000, seeded())
    assert float(x.mean(0).norm()) == pytest.approx(0.750671, abs=0.003)
    for kappa in (0.1, 4.0, 700.0):
        top = distribution("vmf_sphere", {"kappa": kappa}).log_prob(torch.tensor([[1.0, 0.0, 0.0]]))
        expected = math.log(kappa / TURN) - math.log1p(-math.exp(-2 * kappa))
        assert float(top) == pytest.approx(expected, abs=1e-9)


def test_areas_of_the_klein_bottle():
    point = torch.tensor([[3.0, 0.0, 0.0, 0.0]])
    assert -float(distribution("klein").log_prob(point)) == pytest.approx(math.log(80.260549), abs=1e-8)
    nearly = distribution("klein", {"R": 1.0 + 1e-9, "r": 1.0}).log_prob(torch.tensor([[2.0, 0.0, 0.0, 0.0]]))
    assert -float(nearly) == pytest.approx(math.log(42.956871), abs=1e-4)


@pytest.mark.parametrize(("d", "D"), [(2, 5), (3, 3)])
def test_a_flat_gaussian_with_noise_has_the_known_slope(d, D):
    x = torch.randn(10, D, generator=seeded(), dtype=torch.double)
    kwargs = {"manifold_dim": d, "ambient_dim": D}
    x = project(distribution("affine", kwargs), x)
    for s in (0.5, 0.01):
        high, low = (distribution("affine", {**kwargs, "noise": s * f}).log_prob(x) for f in (1.0001, 0.9999))
        expected = -(D - d) - d * s**2 / (1 + s**2) + x.square().sum(1) * s**2 / (1 + s**2) ** 2
        assert torch.allclose((high - low) / math.log(1.0001 / 0.9999), expected, atol=1e-5)


@pytest.mark.parametrize("name", list(SYNTHETIC))
def test_points_in_float32_have_a_density(name):
    drawn = distribution(name).sample(1000, seeded()).float()
    assert drawn.shape == (1000, distribution(name).dim) == (1000, *DATASETS[name].shape)
    log_prob = distribution(name).log_prob(drawn)
    assert log_prob.shape == (1000,)
    assert log_prob.isfinite().all()


@pytest.mark.parametrize("name", list(SYNTHETIC))
def test_projections_are_nearest_points(name):
    truth = distribution(name, {"noise": 0.0})
    on = truth.sample(3000, seeded())
    if truth.intrinsic_dim == truth.dim:
        assert truth.measure == "Lebesgue"
        return
    assert torch.allclose(project(truth, on), on, atol=1e-6)
    beside = on[:200] + 0.05 * torch.randn(on[:200].shape, generator=seeded(1), dtype=torch.double)
    nearest = project(truth, beside)
    assert torch.allclose(project(truth, nearest), nearest, atol=1e-6)
    apart = (beside - nearest).norm(dim=1)
    assert (apart <= (beside - on[:200]).norm(dim=1)).all()
    assert (apart <= torch.cdist(beside, on).amin(1) + 1e-9).all()
    assert truth.log_prob(nearest).isfinite().all()
    assert (truth.log_prob(beside)[apart > 2e-3] == -torch.inf).all()
    assert truth.measure == {1: "arc length", 2: "area"}[truth.intrinsic_dim]


def test_a_projection_goes_to_the_end_where_the_manifold_ends():
    assert project(distribution("line"), torch.tensor([[9.0, 8.0]]))[0].tolist() == pytest.approx([2.5, 2.5])
    roll = project(distribution("swiss_roll"), torch.tensor([[-7.0, 30.0, 0.0]]))
    assert float(roll[0, 1]) == 21


@pytest.mark.parametrize("name", ["two_moons", "line", "sphere", "klein", "s_curve", "checkerboard", "affine"])
def test_an_isometry_changes_no_density_of_points_on_the_manifold(name):
    small = distribution(name, {"noise": 0.0, **({"ambient_dim": 2} if name == "affine" else {})})
    large = distribution(name, {"noise": 0.0, "ambient_dim": 12})
    x, y = small.sample(100, seeded()), large.sample(100, seeded())
    assert y.shape == (100, 12)
    assert torch.allclose(torch.cdist(x, x), torch.cdist(y, y), atol=1e-6)
    assert torch.allclose(small.log_prob(x), large.log_prob(y), atol=1e-6)
    assert large.measure == {1: "arc length", 2: "area"}[large.intrinsic_dim]
    assert (y.std(0) > 0).all()
    other = distribution(name, {"noise": 0.0, "ambient_dim": 12, "seed": 1}).sample(100, seeded())
    assert not torch.allclose(y, other)


def test_noise_reaches_every_coordinate_of_the_space_around():
    noisy = distribution("two_moons", {"ambient_dim": 6, "noise": 0.1})
    x = noisy.sample(5000, seeded())
    beside = x - project(distribution("two_moons", {"ambient_dim": 6, "noise": 0.0}), x)
    assert float(beside.square().sum(1).mean()) == pytest.approx(5 * 0.01, rel=0.05)
    planar = distribution("two_moons").sample(5000, seeded(1))
    entropy = -float(distribution("two_moons").log_prob(planar).mean())
    gaussian = 4 * (0.5 + math.log(0.1 * math.sqrt(TURN)))
    assert -float(noisy.log_prob(x).mean()) == pytest.approx(entropy + gaussian, abs=0.05)


def test_a_volume_has_its_own_name():
    assert distribution("uniform_sphere", {"manifold_dim": 3}).measure == "volume"
    assert distribution("uniform_sphere", {"manifold_dim": 3}).intrinsic_dim == 3
    assert distribution("von-mises-circle", {"noise": 0.1}).measure == "Lebesgue"


@pytest.mark.parametrize("name", ["sphere", "torus", "klein", "swiss_roll", "s_curve", "network_manifold", "pinwheel"])
def test_an_unknown_density_of_noisy_points_is_refused_and_not_guessed(name):
    noisy = distribution(name, {"noise": 0.1})
    x = noisy.sample(10, seeded())
    assert x.isfinite().all()
    with pytest.raises(UserError, match=f"{name}: no log-density with noise=0.1: .* set noise=0"):
        noisy.log_prob(x)


def test_data_follow_from_their_own_seed():
    kwargs = {"manifold_dim": 3, "ambient_dim": 10, "n": 500}
    first, again = load_data("sphere", kwargs=kwargs), load_data("sphere", kwargs=kwargs, seed=9)
    assert (len(first.train), len(first.valid), len(first.test)) == (450, 50, 100)
    assert (first.spec.shape, first.spec.discrete, first.train.dtype) == ((10,), False, torch.float32)
    assert torch.equal(first.test, again.test)
    assert not torch.equal(first.train, again.train)
    rows = [sorted(torch.cat([splits.train, splits.valid]).tolist()) for splits in (first, again)]
    assert rows[0] == rows[1]
    assert not torch.equal(load_data("sphere", kwargs={**kwargs, "seed": 1}).test, first.test)
    assert not {tuple(row) for row in rows[0]} & {tuple(row) for row in first.test.tolist()}
    assert distribution("sphere", kwargs).log_prob(first.train).isfinite().all()


@pytest.mark.parametrize("name", list(SYNTHETIC))
def test_every_set_is_a_dataset(name):
    splits = load_data(name, kwargs={"n": 50})
    assert (len(splits.train), len(splits.test)) == (45, 10)
    assert splits.spec.shape == DATASETS[name].shape
    assert splits.spec.low == pytest.approx(float(torch.cat([splits.train, splits.valid]).min()))


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("sphere", {"manifld_dim": 3}, "manifld_dim: no such key of sphere; did you mean manifold_dim"),
        ("sphere", {"manifold_dim": 5, "ambient_dim": 3}, "sphere: ambient_dim=3 .* 6"),
        ("sphere", {"mu": [1.0]}, r"sphere: mu=\[1.0\]: .* 3 "),
        ("sphere", {"mu": [0.0, 1.0, float("inf")]}, "mu.2 = inf: .*finite"),
        ("sphere", {"n": 0}, r"n = 0: input should be greater than 0 \(key of sphere\)"),
        ("sphere", {"n": 2.5}, "n = 2.5: .*valid integer"),
        ("sphere", {"noise": -1.0}, "noise = -1.0: .*greater than or equal to 0"),
        ("von-mises-circle", {"kappa": float("inf")}, "kappa = inf: .*finite"),
        ("torus", {"R": 1.0}, "torus: r=1 must be smaller than R=1"),
        ("klein", {"r": 3}, "klein: r=3 must be smaller than R=2"),
        ("checkerboard", {"kappa": 1.0}, "kappa: no such key of checkerboard; its keys are: ambient_dim, n, noise"),
        ("repeated", {"base": "torus"}, "repeated: base=torus: choose a planar"),
        ("repeated", {"base": "repeated"}, "repeated: base=repeated: choose a planar"),
        ("repeated", {"base": "8gausians"}, "8gausians: no such synthetic set; did you mean 8gaussians"),
        ("repeated", {"ambient_dim": 7}, "repeated: ambient_dim=7 must be even"),
        ("network_manifold", {"ambient_dim": 2}, "ambient_dim=2 must be more than manifold_dim=2"),
        ("digits", {"n": 5}, "dataset_kwargs: digits has no keys, .*: n"),
        ("shpere", {}, "shpere: no such dataset; did you mean sphere"),
    ],
)
def test_mistakes_are_named(name, kwargs, message):
    with pytest.raises(UserError, match=message):
        load_data(name, kwargs=kwargs)


def test_a_file_takes_no_keys(tmp_path):
    np.save(tmp_path / "own.npy", np.arange(10.0))
    with pytest.raises(UserError, match=r"own\.npy has no keys, .*: n"):
        load_data(str(tmp_path / "own.npy"), kwargs={"n": 5})


def test_a_run_writes_its_keys_down_and_finds_its_data_again(twostep, tmp_path):
    keys = ("lr=0.001", "max_epochs=1", "latent_dim=2", f"logdir_root={tmp_path}")
    kwargs = {"manifold_dim": 3, "ambient_dim": 10, "n": 200}
    ask = ("train-single", "--dataset", "sphere", "--model", "ae", "--is-gae")
    config = [word for key in (*keys, f"dataset_kwargs={kwargs}") for word in ("--config", key)]
    assert twostep(*ask, *config).status == 0
    (run,) = tmp_path.iterdir()
    assert json.loads((run / "gae_config.json").read_text())["dataset_kwargs"] == kwargs
    more = twostep("train-single", "--load-dir", str(run), "--max-epochs-loaded", "2")
    assert more.status == 0, more.err
    assert "the data have changed" not in more.err

    bad = twostep(*ask, "--config", f"logdir_root={tmp_path}", "--config", "dataset_kwargs={'manifld_dim': 3}")
    assert bad.status == 2
    assert "manifld_dim: no such key of sphere; did you mean manifold_dim?" in bad.err
    assert list(tmp_path.iterdir()) == [run]
    fixed = twostep("train-single", "--load-dir", str(run), "--config", "dataset_kwargs={'n': 5}")
    assert fixed.status == 2
    assert "dataset_kwargs: can't be changed in a run that exists" in fixed.err
