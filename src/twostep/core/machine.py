"""The machine: ranks of a distributed run, and memory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Self

from twostep.core.schema import UserError


@dataclass(frozen=True)
class Ranks:
    """Rank of this process, from the variables that torchrun sets.

    Args:
        rank: rank of this process.
        world_size: number of processes.
        local_world_size: number of processes on this machine.
    """

    rank: int
    world_size: int
    local_world_size: int

    @classmethod
    def of_environment(cls) -> Self:
        """Read the variables; without `WORLD_SIZE` this is the only process, whatever `RANK` is.

        Raises:
            UserError: if they are not numbers, or are inconsistent.
        """
        if "WORLD_SIZE" not in os.environ:
            return cls(0, 1, 1)
        world, rank, local = (_number_of(name, default) for name, default in VARIABLES)
        if not (0 <= rank < world and 1 <= local <= world):
            raise UserError(
                f"RANK={rank} WORLD_SIZE={world} LOCAL_WORLD_SIZE={local}: inconsistent; start the command by "
                "torchrun, or unset them"
            )
        return cls(rank, world, local)


VARIABLES = (("WORLD_SIZE", "1"), ("RANK", "0"), ("LOCAL_WORLD_SIZE", "1"))


def _number_of(variable: str, default: str) -> int:
    text = os.environ.get(variable, default)
    if not text.isdecimal():
        raise UserError(f"{variable}={text}: must be a number; start the command by torchrun, or unset it")
    return int(text)


def memory() -> int:
    """Return the bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
