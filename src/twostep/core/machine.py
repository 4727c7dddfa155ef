"""The machine: ranks of a distributed run, and memory."""

from __future__ import annotations

import os
from typing import NamedTuple, Self

from twostep.core.schema import UserError

VARIABLES = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}


class Ranks(NamedTuple):
    """Rank of this process, number of processes, and number of those on this machine, from torchrun's variables."""

    rank: int
    world_size: int
    local_world_size: int

    @classmethod
    def of_environment(cls) -> Self:
        """Read the variables; without `WORLD_SIZE` this is the only process, whatever `RANK` is."""
        if "WORLD_SIZE" not in os.environ:
            return cls(0, 1, 1)
        texts = {name: os.environ.get(name, default) for name, default in VARIABLES.items()}
        for name, text in texts.items():
            if not text.isdecimal():
                raise UserError(f"{name}={text}: must be a number; start the command by torchrun, or unset it")
        rank, world, local = map(int, texts.values())
        if not (0 <= rank < world and 1 <= local <= world):
            raise UserError(
                f"RANK={rank} WORLD_SIZE={world} LOCAL_WORLD_SIZE={local}: inconsistent; start the command by "
                "torchrun, or unset them"
            )
        return cls(rank, world, local)


def memory() -> int:
    """Return the bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
