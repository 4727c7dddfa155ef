"""Models of tables: any density, and any autoencoder, on rows of numbers, integers, levels, dates and missing values.

A density is fitted to the coordinates of `nn.table.TableCoordinates`; its log-probability of a row is a bound,

    log P(x) >= E log (1/k) Σ_i p_Y(y_i) |dy_i/du|,   y_i = t(x, u_i),  u_i uniform,

An autoencoder sees `TableFeatures`, and its decoder gives a likelihood p(x | z) of rows (`RowLikelihood`). With a
density p_Z of its embeddings it is a model of rows, z ~ p_Z, x ~ p(x | z), and for any q, which here is the posterior
of a variational autoencoder or, without one, a mixture of Gaussians of several widths about the embedding,

    log P(x) >= E log (1/k) Σ_i p(x | z_i) p_Z(z_i) / q(z_i | x),   z_i ~ q.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor
from typing_extensions import override

from twostep.core.schema import DataSpec, UserError
from twostep.core.table import TableSchema
from twostep.models.ae import Autoencoder
from twostep.models.base import DensityEstimator, GeneralizedAutoencoder, Likelihood, Model, ModelConfig, Objective
from twostep.models.parts.gaussian_decoder import GaussianDecoder, bound
from twostep.models.parts.networks import EncoderDecoder
from twostep.models.parts.row_likelihood import RowLikelihood
from twostep.nn.distributions import normal_log_prob
from twostep.nn.table import TableCoordinates, TableFeatures, TableMap, TableNoise
from twostep.nn.transforms import MappedBatches

DRAWS = 32  # of the bound on a row's log-probability
WIDTHS = 8  # of Gaussians about an embedding, each half of the one before
PRIOR_DRAWS = 256
NO_LIKELIHOOD = "its decoder is not fitted by a likelihood of rows: use ae, vae, wae or avb"
NO_VOLUME = "rows of a table with levels or gaps lie on no manifold of the decoder: there is no volume on it"


def build_model(config: ModelConfig, spec: DataSpec) -> Model:
    """Return the model of a config for data, which sees a table that is not all numbers through a map of its columns.

    Raises:
        UserError: if keys contradict the data.
    """
    if spec.table is None:
        return config.build(spec)
    if "gae" in config.roles:
        features = TableFeatures(spec.table)
        own = {"scale_data": False, "whitening_transform": False, "logit_transform": False, "dequantize": False}
        inner = config.model_copy(update=own).build(_vectors(spec, features.width))
        if not isinstance(inner, EncoderDecoder):
            raise UserError(f"{config.name}: takes no table with {spec.table.summary()}: use ae or vae")
        return table_autoencoder(inner, features)
    coordinates = TableCoordinates(spec.table)
    inner = config.build(_vectors(spec, coordinates.width))
    assert isinstance(inner, DensityEstimator)
    if inner.labels:
        raise UserError(
            f"condition=label: {spec.name} is a table with {spec.table.summary()}: train an autoencoder first "
            "(--gae-model), and condition the density of its embeddings"
        )
    return TableDensity(inner, coordinates)


def table_autoencoder(inner: EncoderDecoder, features: TableFeatures) -> TableAutoencoder:
    """Return an autoencoder of rows, which is a density too if the inner one is."""
    return TableVAE(inner, features) if isinstance(inner, GaussianDecoder) else TableAutoencoder(inner, features)


def _vectors(spec: DataSpec, width: int) -> DataSpec:
    inner = {"shape": (width,), "low": -math.inf, "high": math.inf, "columns": None, "discrete": False}
    return spec.model_copy(update=inner)


def _kind(columns: TableSchema, inner: Likelihood) -> Likelihood:
    return "bound" if inner == "exact" and columns.has_levels else inner


class _OnTable(Model):
    """A model of rows by way of an inner model of vectors."""

    loss_unit: str = ""  # that of the inner model

    def __init__(self, inner: Model, rows: TableMap) -> None:
        number = len(rows.columns.modelled)
        super().__init__((number,), transform=rows, noise=TableNoise(number))
        self.inner, self.columns = inner, rows.columns

    @override
    def fit_transform(self, batches: Iterable[Tensor]) -> None:
        self.transform.fit(batches)
        self.inner.fit_transform(MappedBatches(self.network_input, batches))

    @override
    def objectives(self) -> tuple[Objective, ...]:
        inner, own = self.inner.objectives(), self.loss_unit
        return tuple(replace(one, loss=self._on_rows(one.loss), unit=own or one.unit) for one in inner)

    def _on_rows(self, loss: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda x: loss(self.network_input(x))


class TableDensity(_OnTable, DensityEstimator):
    """A density of rows, by one of their coordinates.

    Args:
        inner: density of vectors `(B, width)`.
        rows: map from rows to them.
    """

    draws = DRAWS

    def __init__(self, inner: DensityEstimator, rows: TableCoordinates) -> None:
        super().__init__(inner, rows)
        self.likelihood: Likelihood = _kind(rows.columns, inner.likelihood)

    @property
    def density(self) -> DensityEstimator:
        """The density of coordinates."""
        return cast(DensityEstimator, self.inner)

    @override
    def log_density(self, x: Tensor) -> Tensor:
        return self.density.log_prob(self.transform(x)) + self.transform.log_abs_det_jacobian(x)

    @override
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return self.transform.inverse(self.density.sample(n, generator))


class TableAutoencoder(_OnTable, GeneralizedAutoencoder):
    """An autoencoder of rows, whose decoder gives their likelihood if the inner one is fitted by it.

    Args:
        inner: autoencoder of vectors `(B, width)`.
        rows: map from rows to them.
    """

    def __init__(self, inner: EncoderDecoder, rows: TableFeatures) -> None:
        super().__init__(inner, rows)
        self.latent_dim, self.prior_std = inner.latent_dim, inner.prior_std
        if not inner.use_likelihood(RowLikelihood(rows)):
            self.no_volume = NO_LIKELIHOOD
        elif isinstance(inner, Autoencoder):
            self.loss_unit = "nats of the features of rows"

    @property
    def autoencoder(self) -> EncoderDecoder:
        """The autoencoder of features."""
        return cast(EncoderDecoder, self.inner)

    @override
    def encode(self, x: Tensor) -> Tensor:
        return self.autoencoder.encode(self.transform(x))

    @override
    def decode(self, z: Tensor) -> Tensor:
        likelihood, output = self.autoencoder.row_likelihood, self.autoencoder.decoder(z)
        return self.transform.inverse(output if likelihood is None else likelihood.mean(output))

    @override
    def generate(self, z: Tensor, generator: torch.Generator | None = None) -> Tensor:
        likelihood, output = self.autoencoder.row_likelihood, self.autoencoder.decoder(z)
        return self.transform.inverse(output if likelihood is None else likelihood.sample(output, generator))

    @override
    def reconstruction_error(self, x: Tensor) -> Tensor:
        """Return the squared distance of features to their reconstruction, `(B,)`, in standardised units."""
        y = self.transform(x)
        output = self.autoencoder.decoder(self.autoencoder.encode(y))
        likelihood = self.autoencoder.row_likelihood
        if likelihood is None:
            return (y - output).square().sum(1)
        return likelihood.squared_error(y, output)

    @override
    def log_volume(self, z: Tensor) -> Tensor:
        raise UserError(NO_VOLUME)

    @override
    def density_with(self, prior: DensityEstimator, x: Tensor) -> Tensor:
        likelihood = self.autoencoder.row_likelihood
        if likelihood is None:
            raise UserError(NO_LIKELIHOOD)
        x = self.noise.dequantize(x)
        y = self.transform(x)
        weights = [
            likelihood.log_prob(y, self.autoencoder.decoder(z)) + prior.log_prob(z) - log_q
            for z, log_q in self._proposals(y, prior)
        ]
        return bound(torch.stack(weights)) + self.transform.log_abs_det_jacobian(x)

    def _proposals(self, y: Tensor, prior: DensityEstimator) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield draws of z about the embeddings, `(B, d)`, with their log-densities under the mixture, `(B,)`."""
        mean = self.autoencoder.encode(y)
        generator = torch.Generator(y.device).manual_seed(0)
        std = prior.sample(PRIOR_DRAWS, generator).std(0)
        log_stds = [(std * 0.5**width).log() for width in range(WIDTHS)]
        for draw in range(2 * DRAWS):
            z = mean + log_stds[draw % WIDTHS].exp() * torch.randn_like(mean)
            squares = (z - mean).square()
            yield z, bound(torch.stack([normal_log_prob(squares, s.expand_as(z)) for s in log_stds]))


class TableVAE(TableAutoencoder, DensityEstimator):
    """A variational autoencoder of rows, as an autoencoder and as a density."""

    draws = 1

    def __init__(self, inner: GaussianDecoder, rows: TableFeatures) -> None:
        super().__init__(inner, rows)
        self.likelihood: Likelihood = inner.likelihood

    @property
    def vae(self) -> GaussianDecoder:
        """The variational autoencoder of features."""
        return cast(GaussianDecoder, self.inner)

    @override
    def log_density(self, x: Tensor) -> Tensor:
        weights = self.vae.log_weights(self.transform(x), max(self.vae.k, DRAWS))
        return bound(weights) + self.transform.log_abs_det_jacobian(x)

    @override
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return self.generate(
            self.vae.prior_sigma * self.vae.draw(torch.randn, (n, self.latent_dim), generator), generator
        )

    @override
    def latents(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.vae.latents(self.transform(x), generator)

    @override
    def _proposals(self, y: Tensor, prior: DensityEstimator) -> Iterator[tuple[Tensor, Tensor]]:
        own = self.vae.proposals(y, 2 * DRAWS)
        yield from (super()._proposals(y, prior) if own is None else own)
