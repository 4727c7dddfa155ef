"""The engine: device, precision and ranks; several ranks are connected by lightning-fabric."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, distributed, nn

from twostep.core.machine import Ranks
from twostep.core.schema import LostRankError, UserError

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["32", "bf16"]
T = TypeVar("T")


@contextmanager
def _together() -> Generator[None]:
    """Name the cause where a collective operation fails: torch has no error of its own for a lost rank."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise LostRankError(f"another rank was lost, and with it this step ({reason})") from error


class Engine:
    """Where and how training runs; launched by torchrun with several ranks, else with one.

    `rank` is the number of this process among all `world_size`, and `device` its own; the first one, `is_main`, writes
    files.

    Args:
        device: `auto` takes CUDA if it is there; Apple's has no double precision, which statistics and metrics need.
        precision: `32`, or `bf16` for mixed precision with 32-bit weights.

    Raises:
        UserError: if the device is not there.
    """

    def __init__(self, device: Device = "auto", precision: Precision = "32") -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        elif device == "cuda" and not torch.cuda.is_available():
            raise UserError("device=cuda: this machine has no GPU; take device=cpu (for a finished run: --device cpu)")
        place = Ranks.of_environment()
        ranks, local_ranks = place.world_size, place.local_world_size
        if device == "cuda" and local_ranks > (gpus := torch.cuda.device_count()):
            raise UserError(f"{local_ranks} ranks on a machine with {gpus} GPUs: start as many, or say device=cpu")
        if local_ranks > 1:
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // local_ranks))
        self.precision, self.device, self.rank, self.world_size = precision, torch.device(device), 0, 1
        if device == "cuda":
            self.device = torch.device("cuda", 0)
        if ranks > 1:
            from lightning_fabric import Fabric  # here because it takes seconds

            nodes = ranks // local_ranks
            self._fabric = Fabric(accelerator=device, devices=local_ranks, num_nodes=nodes, strategy="ddp")
            self._fabric.launch()
            self.device = self._fabric.device
            self.rank, self.world_size = self._fabric.global_rank, self._fabric.world_size
        self.is_main = self.rank == 0

    def seed(self, value: int) -> None:
        """Seed the generators that models on this device draw from (`torch.manual_seed` seeds all, 0.1 ms a call)."""
        torch.default_generator.manual_seed(value)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(value)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which losses are computed."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of a tensor over ranks, on its device."""
        if self.world_size == 1:
            return values
        total = values.to(self.device, copy=True)
        with _together():
            distributed.all_reduce(total)
        return total.to(values.device)

    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows `(n, *)` of all ranks in the order of ranks; each rank may have another number of them."""
        if self.world_size == 1:
            return rows
        count = torch.tensor([len(rows)], device=self.device)
        counts = [torch.empty_like(count) for _ in range(self.world_size)]
        with _together():
            distributed.all_gather(counts, count)
            padded = rows.new_zeros(int(torch.cat(counts).max()), *rows.shape[1:], device=self.device)
            padded[: len(rows)] = rows
            parts = [torch.empty_like(padded) for _ in counts]
            distributed.all_gather(parts, padded)
        return torch.cat([part[: int(n)] for part, n in zip(parts, counts, strict=True)]).to(rows.device)

    def on_first(self, action: Callable[[], T]) -> T:
        """Run an action on the first rank, and return its value on every rank.

        Raises:
            UserError: on every rank, if the action raises it.
            RuntimeError: on the others, if the action raises anything else, which the first rank raises itself.
        """
        if self.world_size == 1:
            return action()
        value, error, failure = None, None, None
        if self.is_main:
            try:
                value = action()
            except Exception as caught:
                error, failure = caught, (isinstance(caught, UserError), str(caught))
        with _together():
            shared: Any = self._fabric.broadcast((value, failure))
        value, failure = shared
        if error is not None:
            raise error
        if failure is not None:
            is_mistake, message = failure
            raise UserError(message) if is_mistake else RuntimeError(f"on the first rank: {message}")
        return value

    def reduce_gradients(self, parameters: Sequence[nn.Parameter], loss: Tensor, weight: float) -> Tensor:
        """Replace each gradient, and the loss of this rank's rows, by the mean over ranks; return that loss.

        `weight` is this rank's share of the rows of the global batch. A missing gradient counts as zero.
        """
        if self.world_size == 1:
            return loss
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        bucket = torch.cat([loss.reshape(1), *(grad.reshape(-1) for grad in grads)]) * weight
        bucket = self.sum(bucket)
        for parameter, grad in zip(parameters, bucket[1:].split([p.numel() for p in parameters]), strict=True):
            parameter.grad = grad.view_as(parameter).clone()
        return bucket[0]
