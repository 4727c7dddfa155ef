"""Verdicts on charts: good where one is, and otherwise what is wrong and what to do."""

import json
import math

import pytest
import torch

from helpers.charts import angle, globe, half_circle, linear, rows, trained
from helpers.distributions import gaussian
from twostep.core.schema import DataSpec, UserError
from twostep.diagnosis.model.chart import chart_of
from twostep.models.vae import VAEConfig

TEARS, FOLDS = "discontinuities (tears)", "non-injective regions (folds)"


def diagnosed(gae, name, n=600, **keys):
    chart = chart_of(gae, rows(name, n, 1, **keys), rows(name, 300, 2, **keys))
    return {finding.name: finding for finding in chart.findings}, chart


def bad(findings):
    return {name for name, finding in findings.items() if finding.verdict == "check"}


def plane(d):
    """Return the d first principal directions of the plane in R^3, or all of R^3."""
    _, _, directions = torch.linalg.svd(rows("affine", 600, 1, ambient_dim=3), full_matrices=True)
    return directions[:d].T


def test_a_linear_chart_of_a_plane_is_good():
    findings, chart = diagnosed(linear(plane(2)), "affine", ambient_dim=3)
    assert bad(findings) == set()
    assert chart.spectrum.dimension == 2
    assert findings["reconstruction error"].numbers["left"] < 1e-10
    assert all(finding.line().endswith("good") for finding in chart.findings)


def test_too_few_dimensions_ask_for_more():
    findings, _ = diagnosed(linear(plane(1)), "affine", ambient_dim=3)
    assert bad(findings) == {"reconstruction error", FOLDS}
    assert findings["reconstruction error"].numbers["left"] == pytest.approx(0.5, abs=0.05)
    assert all("more dimensions" in findings[name].advice for name in bad(findings))


def test_too_many_dimensions_ask_for_fewer():
    findings, _ = diagnosed(linear(plane(3)), "affine", ambient_dim=3)
    assert bad(findings) == {"decoder's Jacobian", "dimension of embeddings"}
    assert all("latent_dim=2" in findings[name].advice for name in bad(findings))


@pytest.mark.parametrize("std", [1.0, 3.0])
def test_units_are_active_in_units_of_the_prior(std):
    gae = linear(torch.eye(4))
    gae.prior_std = std
    x = (gaussian(600, 4) * torch.tensor([1.0, 0.2, 0.05, 0.01]) * std).float()
    findings = {finding.name: finding for finding in chart_of(gae, x[:400], x[400:]).findings}
    assert findings["active units"].numbers["active"] == 2


def test_an_autoencoder_without_a_prior_has_no_active_units():
    assert "active units" not in diagnosed(linear(plane(2)), "affine", ambient_dim=3)[0]


def test_a_circle_is_torn():
    findings, chart = diagnosed(angle(), "von-mises-circle", n=1000)
    assert bad(findings) == {TEARS}
    assert "several charts" in findings[TEARS].advice
    assert "(-1.00, " in findings[TEARS].text
    assert chart.rows[list(chart.injectivity.widest), 0].max() < -0.98


def test_a_sphere_is_torn_and_collapses_at_its_poles():
    findings, _ = diagnosed(globe(), "uniform_sphere", n=1500)
    assert {TEARS} <= bad(findings) <= {TEARS, "smallest singular value", "decoder's Jacobian"}


def test_overlapping_sheets_are_reported():
    findings, _ = diagnosed(half_circle(), "von-mises-circle")
    assert {"reconstruction error", FOLDS} <= bad(findings)


def test_an_encoder_that_is_no_inverse_is_reported():
    gae = linear(plane(2))
    encode, decode = gae.maps
    gae.maps = (lambda x: 1.3 * encode(x), decode)
    findings, chart = diagnosed(gae, "affine", ambient_dim=3)
    assert "cycle error" in bad(findings)
    norms = chart.embeddings.norm(dim=1)
    median = 0.3 * float(norms.median() / norms.square().mean().sqrt())
    assert findings["cycle error"].numbers["median"] == pytest.approx(median, rel=0.05)


def test_a_decoder_that_is_nearly_constant_somewhere_is_reported():
    def stall(z):
        return torch.cat([z**5, z**5], 1)

    gae = linear(torch.ones(2, 1))
    gae.maps = (lambda x: x[:, :1].sign() * x[:, :1].abs() ** (1 / 5), stall)
    x = gaussian(900, 1, dtype=torch.float32).expand(-1, 2)
    chart = chart_of(gae, x[:600], x[600:])
    stalled = next(finding for finding in chart.findings if finding.name == "smallest singular value")
    assert stalled.verdict == "check"


def test_units_at_the_prior_are_reported():
    torch.manual_seed(0)
    vae = VAEConfig(latent_dim=3).build(DataSpec(name="rows", shape=(4,), size=9, low=-1, high=1))
    with torch.no_grad():
        vae.encoder[-1].weight[2] = 0
    x = 3 * gaussian(300, 4, dtype=torch.float32)
    chart = chart_of(vae, x[:200], x[200:])
    found = next(finding for finding in chart.findings if finding.name == "active units")
    assert found.text == "2 of 3"
    assert "latent_dim=2" in found.advice


def test_a_trained_circle_is_torn_where_its_encoder_jumps():
    gae = trained(rows("von-mises-circle", 2000, 0), 1)
    findings, chart = diagnosed(gae, "von-mises-circle", n=1000)
    assert TEARS in bad(findings)
    around = torch.linspace(-math.pi, math.pi, 20_001)
    with torch.no_grad():
        jump = gae.encode(torch.stack([around.cos(), around.sin()], 1)).diff(dim=0).abs().argmax()
    true = torch.stack([around[jump].cos(), around[jump].sin()])
    torn = chart.rows[chart.injectivity.torn]
    assert (torn - true).norm(dim=1).max() < 0.5


def test_a_trained_plane_is_good_with_two_dimensions_and_not_with_one():
    train = rows("affine", 2000, 0, ambient_dim=3)
    good, _ = diagnosed(trained(train, 2), "affine", ambient_dim=3)
    assert bad(good) == set()
    one, _ = diagnosed(trained(train, 1), "affine", ambient_dim=3)
    assert {"reconstruction error", FOLDS} <= bad(one)


def test_findings_are_plain_values():
    _, chart = diagnosed(linear(plane(2)), "affine", ambient_dim=3)
    kept = json.loads(json.dumps([finding.to_dict() for finding in chart.findings], allow_nan=False))
    assert len(kept) == len(chart.findings)


def test_too_few_rows_are_refused():
    with pytest.raises(UserError, match="too few"):
        chart_of(linear(plane(2)), torch.zeros(20, 3), torch.zeros(20, 3))


def test_embeddings_that_are_all_equal_are_refused():
    gae = linear(plane(2))
    gae.maps = (lambda x: 0 * x[:, :2], gae.maps[1])
    x = rows("affine", 100, 0, ambient_dim=3)
    with pytest.raises(UserError, match="to one point"):
        chart_of(gae, x, x)
    with pytest.raises(UserError, match="all equal"):
        chart_of(gae, x, torch.ones(9, 3))


def test_few_distinct_embeddings_are_reported():
    gae = linear(plane(2))
    encode, decode = gae.maps
    gae.maps = (lambda x: encode(x).sign(), decode)
    findings, _ = diagnosed(gae, "affine", ambient_dim=3)
    assert "dimension of embeddings" in bad(findings)
    assert not findings["dimension of embeddings"].numbers
