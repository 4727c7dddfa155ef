"""Autoencoders of several latent sizes, trained at once and yet each for itself.

Member m, of size k, adds small networks f and g of two hidden layers to a linear autoencoder:

    z = A x + f(x),    x̂ = B z + g(z),    at first A and B the k leading principal components and f, g nearly 0

so that it begins with the error of principal components and has only what is curved to learn. The weights of all
members lie in one tensor for each layer, (M, in, out), and a step is a batched product. No member shares a weight with
another: sizes below the largest are padded with zeros, in the columns that make z and in the rows that read it, and
these zeros stay, as the gradient of each is a product with another. Every member's loss is a term of one sum, its first
weights are drawn from its own seed, its best weights on validation rows are kept by itself, and all see the same
batches; so a member is the same alone and among others, up to the rounding of sums.

What is measured is what so small a network finds in so few steps: of a manifold that is hard to learn it leaves more
than the best autoencoder of that size would.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import pad, silu

from twostep.core.seeds import derive

HIDDEN = 128
STEPS, BATCH, RATE = 2000, 256, 8e-3
CHECKED = 100  # steps between two looks at validation rows
NEARLY_0 = 0.01  # first weights of the last layers of f and g


class StackedAutoencoders(nn.Module):
    """M autoencoders of points in principal coordinates, the leading first; `(B, D) -> (M, B, D)`.

    Args:
        dim: number of coordinates D.
        sizes: latent dimensions k, each at most D.
        seed: of the first weights; those of a member depend on it and on the member's size alone.
    """

    def __init__(self, dim: int, sizes: Sequence[int], seed: int) -> None:
        super().__init__()
        widest, leading = max(sizes), [torch.eye(dim, size) for size in sizes]
        generators = [torch.Generator().manual_seed(derive(seed, "autoencoder", size)) for size in sizes]
        self.to_latent = nn.Parameter(_stacked(leading, dim, widest))
        self.from_latent = nn.Parameter(_stacked([matrix.T for matrix in leading], widest, dim))
        self.encoder = _Networks([(dim, size) for size in sizes], generators)
        self.decoder = _Networks([(size, dim) for size in sizes], generators)

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct points `(B, D)` by every member."""
        x = x.expand(len(self.to_latent), *x.shape)
        z = x @ self.to_latent + self.encoder(x)
        return z @ self.from_latent + self.decoder(z)

    def errors(self, x: Tensor) -> Tensor:
        """Return the squared errors of points `(B, D)` by every member, `(M, B)`."""
        return (self(x) - x).square().sum(2)


class _Networks(nn.Module):
    """M networks of two hidden layers, `(M, B, in) -> (M, B, out)`; their `(in, out)` may differ."""

    def __init__(self, shapes: Sequence[tuple[int, int]], generators: Sequence[Generator]) -> None:
        super().__init__()
        first, last = max(before for before, _ in shapes), max(after for _, after in shapes)
        layers = [
            [(before, HIDDEN) for before, _ in shapes],
            [(HIDDEN, HIDDEN)] * len(shapes),
            [(HIDDEN, after) for _, after in shapes],
        ]
        weights = [[_drawn(*shape, of) for shape, of in zip(layer, generators, strict=True)] for layer in layers]
        weights[2] = [NEARLY_0 * weight for weight in weights[2]]
        widths = [first, HIDDEN, HIDDEN, last]
        self.weights = nn.ParameterList(
            _stacked(weight, before, after) for weight, before, after in zip(weights, widths, widths[1:], strict=False)
        )
        self.biases = nn.ParameterList(torch.zeros(len(shapes), 1, width) for width in widths[1:])

    def forward(self, x: Tensor) -> Tensor:
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = silu(torch.baddbmm(bias, x, weight))
        return torch.baddbmm(self.biases[-1], x, self.weights[-1])


def trained(train: Tensor, valid: Tensor, sizes: Sequence[int], seed: int) -> StackedAutoencoders:
    """Train an autoencoder of each size on points `(n, D)` in principal coordinates, the largest of std 1.

    Args:
        train: rows to learn from.
        valid: rows by which each member keeps its best weights.
        sizes: latent dimensions, each at most D.
        seed: of first weights and batches.
    """
    model = StackedAutoencoders(train.shape[1], sizes, seed)
    generator = torch.Generator().manual_seed(derive(seed, "batches"))
    optimizer = torch.optim.Adam(model.parameters(), RATE, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, STEPS)
    best = _Best(model, valid)
    for step in range(1, STEPS + 1):
        x = train[torch.randint(len(train), (BATCH,), generator=generator)]
        optimizer.zero_grad()
        model.errors(x).mean(1).sum().backward()
        optimizer.step()
        schedule.step()
        if step % CHECKED == 0:
            best.look(model, valid)
    best.restore(model)
    return model


class _Best:
    """The best weights of each member by its errors on some rows, the first ones included."""

    def __init__(self, model: StackedAutoencoders, valid: Tensor) -> None:
        self.errors = self._measured(model, valid)
        self.weights = [weight.detach().clone() for weight in model.parameters()]

    def look(self, model: StackedAutoencoders, valid: Tensor) -> None:
        errors = self._measured(model, valid)
        better = errors < self.errors
        self.errors = torch.where(better, errors, self.errors)
        for kept, weight in zip(self.weights, model.parameters(), strict=True):
            kept[better] = weight.detach()[better]

    def restore(self, model: StackedAutoencoders) -> None:
        with torch.no_grad():
            for weight, kept in zip(model.parameters(), self.weights, strict=True):
                weight.copy_(kept)

    @staticmethod
    @torch.no_grad()
    def _measured(model: StackedAutoencoders, valid: Tensor) -> Tensor:
        return model.errors(valid).mean(1)


def _drawn(before: int, after: int, generator: Generator) -> Tensor:
    """Draw a layer `(before, after)` that keeps the variance of its input."""
    return (2 * torch.rand(before, after, generator=generator) - 1) * math.sqrt(3 / before)


def _stacked(matrices: Sequence[Tensor], rows: int, columns: int) -> Tensor:
    """Stack matrices, each filled with zeros up to `(rows, columns)`: `(M, rows, columns)`."""
    return torch.stack([pad(matrix, (0, columns - matrix.shape[1], 0, rows - len(matrix))) for matrix in matrices])
