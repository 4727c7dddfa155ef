"""Log-volumes of decoders, and gradients of energies.

A decoder g: R^d -> R^D with Jacobian J (D x d) stretches d-dimensional volume by `sqrt(det JᵀJ)`. With the thin QR
decomposition `J = QR` this is `|det R|`, so `½ log det JᵀJ = Σ log |r_ii|`: J is never squared, which would halve
the digits that survive.

Where g ends in an affine map of fewer inputs than outputs, `g(z) = A h(z) + b` with A (D x m), m < D, the factor S of
`A = PS` replaces A: P has orthonormal columns, so the volume of `A h'(z)` is that of the smaller `S h'(z)`.

Columns of J are pushed through a decoder whose layers are known one by one, as more rows of a batch: an affine layer
takes them without its bias, an activation multiplies them by its slope. Other maps are differentiated by autograd,
forwards, or twice backwards where one of their operations has no forward derivative (attention, some norms).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from twostep.nn.layers import ACTIVATIONS, Affine, Residual

Map = Callable[[Tensor], Tensor]

BLOCK_ENTRIES = 2**18  # hidden layers of a block stay below the 32 MB beyond which glibc gives memory back each time

WITH_BIAS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
REARRANGING = (nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle)
NORMS = (nn.LayerNorm, nn.GroupNorm)
KNOWN = (*WITH_BIAS, *REARRANGING, *NORMS, Affine, nn.Sigmoid, *ACTIVATIONS.values())

aten: Any = torch.ops.aten
# from the gradient in an activation's output to that in its input, given both
BACKWARD: dict[type[nn.Module], Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    nn.ReLU: lambda g, x, y: aten.threshold_backward(g, x, 0),
    nn.Tanh: lambda g, x, y: aten.tanh_backward(g, y),
    nn.SiLU: lambda g, x, y: aten.silu_backward(g, x),
}
BATCH = 256  # points whose activations are held at once where autograd is needed


def tangents(function: Map, z: Tensor) -> Tensor:
    """Return the columns of a function's Jacobian at each point, one forward-mode pass for each coordinate of z.

    Shapes: `z: (B, d)`, result `(d, B, D)`, where the function's values have D entries.
    """
    layers = list(layers_of(function))
    if all(map(_known, layers)):
        columns = torch.eye(z.shape[1], dtype=z.dtype, device=z.device).repeat_interleave(len(z), 0)
        return _pushed(layers, z, columns)[1].flatten(1).unflatten(0, (-1, len(z)))

    def column(direction: Tensor) -> Tensor:
        return jvp(function, (z,), (direction.expand_as(z),))[1].flatten(1)

    try:
        return vmap(column)(torch.eye(z.shape[1], dtype=z.dtype, device=z.device))
    except RuntimeError:  # which torch raises for every such operation in words of its own
        return _twice_backwards(function, z)


@torch.enable_grad()
def _twice_backwards(function: Map, z: Tensor) -> Tensor:
    """Return what `tangents` does: the products `g = Jᵀu` are linear in u, and the derivatives of g in u are J."""
    z = z.detach().requires_grad_()
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels of attention have one derivative only
        y = function(z).flatten(1)
        u = torch.zeros_like(y, requires_grad=True)
        (g,) = torch.autograd.grad(y, z, u, create_graph=True)
        columns = [torch.autograd.grad(one.sum(), u, retain_graph=True)[0] for one in g.T]
    return torch.stack(columns)


def layers_of(function: Map) -> Iterator[Map]:
    """Yield the layers of a function, one after the other; one that is no plain `nn.Sequential` is a layer itself."""
    if isinstance(function, nn.Sequential) and type(function).forward is nn.Sequential.forward:
        for layer in function:
            yield from layers_of(layer)
    else:
        yield function


def _known(layer: Map) -> bool:
    if isinstance(layer, Residual):
        return all(map(_known, layers_of(layer.body)))
    if isinstance(layer, nn.LayerNorm):
        return not layer.elementwise_affine and len(layer.normalized_shape) == 1
    if isinstance(layer, nn.GroupNorm):
        return not layer.affine
    return isinstance(layer, KNOWN)


def _pushed(layers: Iterable[Map], z: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Return what layers make of points `(B, *)`, and of the columns `(d B, *)` of a Jacobian there."""
    for layer in layers:
        if isinstance(layer, Residual):
            inner, pushed = _pushed(layers_of(layer.body), z, columns)
            z, columns = layer.skip(z) + inner, layer.skip(columns) + pushed
        elif isinstance(layer, WITH_BIAS):
            no_bias = {name: torch.zeros_like(value) for name, value in layer.named_parameters() if name == "bias"}
            z, columns = layer(z), functional_call(layer, no_bias, (columns,))
        elif isinstance(layer, Affine):
            z, columns = layer(z), jvp(layer.of, (torch.zeros_like(columns),), (columns,))[1]
        elif isinstance(layer, REARRANGING):
            z, columns = layer(z), layer(columns)
        elif isinstance(layer, NORMS):
            z, columns = _normed(layer, z, columns)
        else:
            z, slope = cast(tuple[Tensor, Tensor], jvp(layer, (z,), (torch.ones_like(z),)))
            columns = (columns.unflatten(0, (-1, len(z))) * slope).flatten(0, 1)
    return z, columns


def _normed(layer: nn.LayerNorm | nn.GroupNorm, z: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Return `n = (z - mean) / s`, `s² = var + eps`, and the columns `(c - mean c - n mean(n c)) / s`, by groups."""
    groups = layer.num_groups if isinstance(layer, nn.GroupNorm) else 1
    s = (z.reshape(len(z), groups, -1).var(2, correction=0, keepdim=True) + layer.eps).sqrt()
    n = layer(z)
    m, c = n.reshape(len(z), groups, -1), columns.reshape(-1, len(z), groups, z[0].numel() // groups)
    c = (c - c.mean(3, keepdim=True) - m * (m * c).mean(3, keepdim=True)) / s
    return n, c.reshape(columns.shape)


@torch.no_grad()
def input_gradient(network: nn.Module, x: Tensor) -> Tensor:
    """Return the gradient of the sum of a network's outputs in its input `(B, *)`, of that shape, without a graph.

    Written out for linear layers and activations, which spares autograd's graph.
    """
    layers = list(layers_of(network))
    if not all(isinstance(layer, nn.Linear) or type(layer) in BACKWARD for layer in layers):
        return torch.cat([_by_autograd(network, block) for block in x.split(BATCH)])
    passed: list[tuple[nn.Module, Tensor, Tensor]] = []
    for layer in cast(list[nn.Module], layers):
        before, x = x, layer(x)
        passed.append((layer, before, x))
    g = torch.ones_like(x)
    for layer, before, after in reversed(passed):
        g = g @ layer.weight if isinstance(layer, nn.Linear) else BACKWARD[type(layer)](g, before, after)
    return g


@torch.enable_grad()
def _by_autograd(network: nn.Module, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(network(x).sum(), x)[0]


@contextmanager
def full_precision() -> Generator[None]:
    """Multiply in all 24 bits of single precision, not in the 11 of TF32, which is too few to decide ranks."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


@full_precision()
def log_volume(curved: Map, affine: Map, z: Tensor) -> Tensor:
    """Return `½ log det JᵀJ` of the decoder `affine ∘ curved` at each point, in nats; `-inf` exactly at lower rank.

    The rank is decided as `numpy.linalg.matrix_rank` does, by machine precision times the longer side of J, on the
    diagonal of R; where J is not a number, neither is the result. Points go through in blocks, so that memory does not
    grow with their number. For evaluation only: the result can't be differentiated.

    Shapes: `curved: (B, d) -> (B, m)`, `affine: (B, m) -> (B, *S)`, `z: (B, d)`, result `(B,)`; where `affine` is the
    identity, `(B, m)` may be any `(B, *S)`.
    """
    if not len(z):
        return z.new_zeros(0)
    with torch.no_grad():
        inner = curved(z[:1])
        size = affine(inner).numel()
    width, factor = inner.numel(), None
    if width < min(size, z.numel()):  # a smaller matrix for more columns than it takes to find it
        factor = torch.linalg.qr(tangents(affine, inner)[:, 0].T, mode="r").R
    else:
        curved, width = composed(curved, affine), size
    found: list[Tensor] = []
    for part in z.split(max(4, BLOCK_ENTRIES // (width * z.shape[1]))):
        columns = tangents(curved, part)
        J = (columns if factor is None else columns @ factor.T).movedim(0, 2)
        found.append(_log_abs_det(J, size))
    return torch.cat(found)


def composed(first: Map, second: Map) -> Map:
    """Return the second map, an affine one, after the first, so that `tangents` still knows layers that are known."""
    return nn.Sequential(first, Affine(second)) if isinstance(first, nn.Module) else lambda z: second(first(z))


def _log_abs_det(J: Tensor, size: int) -> Tensor:
    """Return `log |det R|`, of shape `(B,)`, of matrices `(B, m, d)` that have the R of Jacobians with `size` rows."""
    if J.shape[1] < J.shape[2]:
        return J.new_full((len(J),), -torch.inf)
    r = torch.linalg.qr(J, mode="r").R.diagonal(dim1=-2, dim2=-1).abs()
    singular = r.amin(1) <= torch.finfo(J.dtype).eps * size * r.amax(1)
    return torch.where(singular, -torch.inf, r.log().sum(1))
