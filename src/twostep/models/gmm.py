"""Mixture of Gaussians, fitted by expectation-maximisation.

    y = t(x),   p(y) = Σ_k w_k N(y; m_k, Σ_k),   Σ_k⁻¹ = P_k P_kᵀ

    log p(x) = log Σ_k exp(log w_k + log N((y - m_k) P_k; 0, I) + log det P_k) + log|det t'(x)|

scikit-learn fits it. The number of components doubles as long as the likelihood of held-out rows, a tenth of at most
10,000, rises; the best mixture is then fitted to all rows. Covariances are full. Where there are few rows, held-out
ones choose between full and diagonal covariances, and above 128 dimensions these are diagonal.

Given a label, there is a mixture of its rows for each label; those with fewer than 20 share that of all rows.

Source: Maximum Likelihood from Incomplete Data via the EM Algorithm (Dempster, Laird & Rubin, 1977).
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from typing_extensions import Unpack, override

from twostep.core.schema import DataSpec, PositiveInt, UserError
from twostep.models.base import MODELS, DataArguments, Likelihood, Objective
from twostep.models.parts.conditional import ConditionalDensity, ConditionKeys
from twostep.models.parts.fitted import MAX_ROWS, FittedConfig, FittedDensity, evenly_spaced, finite_rows
from twostep.nn.distributions import standard_normal_log_prob

CHOOSING_ROWS = 10_000
HELD_OUT = 10  # one row in so many
FEW = 20  # rows for each coordinate: with fewer, diagonal covariances are tried too
MOST_FULL = 128  # dimensions
RIDGE = 1e-6  # on the diagonal of a covariance, of the mean variance of a coordinate
FEWEST = 20  # rows of a label that has a mixture of its own

Kind = Literal["full", "diag"]

logger = logging.getLogger("twostep")


class GaussianMixture(FittedDensity):
    """A mixture of Gaussians, fitted to all rows at once.

    Args:
        event_shape: shape `*S` of a data point.
        max_components: largest number of components; how many there are, a power of 2, held-out rows choose.
        data: see `Model`; the transform must give vectors.
    """

    sized = ("log_weights", "means", "factors")
    log_weights: Tensor
    means: Tensor
    factors: Tensor

    def __init__(self, event_shape: Sequence[int], max_components: int = 64, **data: Unpack[DataArguments]) -> None:
        super().__init__(event_shape, **data)
        self.max_components = max_components
        self.register_buffer("log_weights", torch.zeros(1))
        self.register_buffer("means", torch.zeros(1, self.dim))
        self.register_buffer("factors", torch.ones(1, self.dim))  # P_k, (K, D, D), upper; or their diagonals, (K, D)

    @override
    def fit_rows(self, y: Tensor) -> None:
        if len(y) < 2:
            raise UserError(f"a mixture of Gaussians needs 2 training rows, not {len(y)}")
        rows = y.double().cpu()
        order = torch.randperm(len(rows), device="cpu")[:CHOOSING_ROWS]
        keys = {"random_state": int(torch.randint(2**31, (), device="cpu")), "reg_covar": _ridge(rows)}
        found = _chosen(rows[order], self.max_components, keys)
        best = _fitted(rows, len(found.weights_), found.covariance_type, {**keys, **_start_at(found)})
        self.put("log_weights", torch.from_numpy(best.weights_).log())
        self.put("means", torch.from_numpy(best.means_))
        self.put("factors", torch.from_numpy(best.precisions_cholesky_))

    @override
    def log_density(self, x: Tensor) -> Tensor:
        gaps = self.transform(x) - self.means[:, None]
        if self.factors.dim() == 2:
            u, log_dets = gaps * self.factors[:, None], self.factors.log().sum(1)
        else:
            u, log_dets = gaps @ self.factors, self.factors.diagonal(dim1=1, dim2=2).log().sum(1)
        logs = standard_normal_log_prob(u.flatten(0, 1)).view(u.shape[:2])
        logs = logs + (self.log_weights + log_dets)[:, None]
        return logs.logsumexp(0) + self.transform.log_abs_det_jacobian(x)

    @override
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        which = torch.multinomial(self.log_weights.exp(), n, replacement=True, generator=generator)
        u = self.draw(torch.randn, (n, self.dim), generator)
        if self.factors.dim() == 2:
            gaps = u / self.factors[which]
        else:
            gaps = torch.empty_like(u)
            for k, factor in enumerate(self.factors):
                own = which == k
                gaps[own] = torch.linalg.solve_triangular(factor, u[own], upper=True, left=False)
        return self.clamp(self.transform.inverse(self.means[which] + gaps))

    def take(self, other: GaussianMixture) -> None:
        """Become the same mixture as another one."""
        for name in self.sized:
            self.put(name, getattr(other, name))

    @override
    def extra_repr(self) -> str:
        return f"{len(self.means)} Gaussians, {'diagonal' if self.factors.dim() == 2 else 'full'} covariances"


def _chosen(rows: Tensor, most: int, keys: dict[str, Any]) -> Any:
    """Return the mixture, fitted to the rows but a tenth, under which this tenth is most likely."""
    held_out = len(rows) // HELD_OUT
    few = len(rows) < FEW * rows.shape[1]
    kinds: tuple[Kind, ...] = ("diag", "full") if few else ("full",)
    best, highest = None, -math.inf
    for kind in ("diag",) if rows.shape[1] > MOST_FULL else kinds:
        count, last = 1, -math.inf
        while count <= min(most, (len(rows) - held_out) // 2 or 1):
            mixture = _fitted(rows[held_out:], count, kind, keys)
            score = float(mixture.score(rows[:held_out].numpy())) if held_out else 0.0
            if score > highest:
                best, highest = mixture, score
            if score <= last:
                break
            count, last = 2 * count, score
    return best


def _fitted(rows: Tensor, count: int, kind: Kind, keys: dict[str, Any]) -> Any:
    from sklearn.mixture import GaussianMixture as Mixture  # here because it takes a second

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it could be fitted longer, and that rows are equal
        return Mixture(count, covariance_type=kind, **keys).fit(rows.numpy())


def _start_at(mixture: Any) -> dict[str, Any]:
    return {f"{name}_init": getattr(mixture, f"{name}_") for name in ("weights", "means", "precisions")}


def _ridge(rows: Tensor) -> float:
    variance = float(rows.var(0).mean())
    return RIDGE * variance if variance > 0 else RIDGE


class LabelledMixture(ConditionalDensity):
    """A mixture of Gaussians for each label.

    Args:
        event_shape: shape `(D,)` of a data point.
        labels: number of labels.
        max_components: largest number of components of each.
        data: see `Model`.
    """

    likelihood: Likelihood = "exact"

    def __init__(
        self, event_shape: Sequence[int], labels: int, max_components: int = 64, **data: Unpack[DataArguments]
    ) -> None:
        super().__init__(event_shape, labels, **data)
        self.mixtures = nn.ModuleList(GaussianMixture(event_shape, max_components) for _ in range(labels))

    @override
    @torch.no_grad()
    def fit_transform(self, batches: Iterable[Tensor]) -> None:
        super().fit_transform(batches)
        x, labels = self.split(evenly_spaced(batches, MAX_ROWS))
        y = finite_rows(self, self.network_input(x))
        few = [k for k in range(self.labels) if int((labels == k).sum()) < FEWEST]
        for k in set(range(self.labels)) - set(few):
            self._mixture(k).fit_rows(y[labels == k])
        if few:
            logger.warning(
                "gmm: labels with fewer than %d training rows share the mixture of all: %d", FEWEST, len(few)
            )
            self._mixture(few[0]).fit_rows(y)
        for k in few[1:]:
            self._mixture(k).take(self._mixture(few[0]))

    @override
    def density_at(self, x: Tensor, y: int | None) -> Tensor:
        assert y is not None
        return self._mixture(y).log_density(self.transform(x)) + self.transform.log_abs_det_jacobian(x)

    @override
    def sample_given(self, n: int, generator: torch.Generator | None, y: Tensor | None) -> Tensor:
        assert y is not None
        drawn = self.log_shares.new_empty(n, self.dim)
        for k in y.unique().tolist():
            (rows,) = torch.where(y == k)
            drawn[rows] = self._mixture(k).sample(len(rows), generator)
        return self.clamp(self.transform.inverse(drawn))

    @override
    def objectives(self) -> tuple[Objective, ...]:
        return ()

    def _mixture(self, label: int) -> GaussianMixture:
        return cast(GaussianMixture, self.mixtures[label])


@MODELS.register("gmm")
class GaussianMixtureConfig(ConditionKeys, FittedConfig):
    """Keys of `gmm`."""

    summary: ClassVar[str] = "mixture of Gaussians; held-out rows choose how many"
    paper: ClassVar[str] = "Dempster, Laird & Rubin, 1977"

    name: Literal["gmm"] = "gmm"
    max_components: PositiveInt = Field(64, description="largest number of Gaussians; held-out rows choose how many")

    @override
    def build(self, spec: DataSpec) -> GaussianMixture | LabelledMixture:
        if labels := self.labels(spec):
            return LabelledMixture(spec.shape, labels, **self.arguments(LabelledMixture, spec))
        return GaussianMixture(spec.shape, **self.arguments(GaussianMixture, spec))
