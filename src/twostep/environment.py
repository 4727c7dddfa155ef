"""What a command runs on: enough to repeat it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from twostep.schema import UserError

LIBRARIES = ("twostep", "torch", "lightning-fabric", "zuko", "numpy", "safetensors", "pydantic")


def environment(seed: int, ranks: int) -> dict[str, Any]:
    """Return this process's command and time, the commit of this code, versions, and the machine's facts."""
    import torch  # here because the command line asks for its ranks before it needs torch

    tracked = _git("ls-files", "--error-unmatch", Path(__file__).name) is not None
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD") if tracked else None,
        "uncommitted_changes": tracked and bool(_git("status", "--porcelain", "--untracked-files=no")),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: version(name) for name in LIBRARIES},
        "seed": seed,
        "threads": torch.get_num_threads(),
        "ranks": ranks,
        "cuda": torch.version.cuda,
    }


@dataclass(frozen=True)
class Ranks:
    """Place of this process among those of a launcher, by the variables that torchrun sets.

    Args:
        rank: number of this process.
        world_size: number of processes.
        local_world_size: number of processes on this machine.
    """

    rank: int
    world_size: int
    local_world_size: int

    @classmethod
    def of_environment(cls) -> Self:
        """Read them; without `WORLD_SIZE` nothing was launched, and `RANK` alone means nothing.

        Raises:
            UserError: if they are no numbers, or contradict each other.
        """
        if "WORLD_SIZE" not in os.environ:
            return cls(0, 1, 1)
        world, rank, local = (_number_of(name, default) for name, default in VARIABLES)
        if not (0 <= rank < world and 1 <= local <= world):
            raise UserError(
                f"RANK={rank} WORLD_SIZE={world} LOCAL_WORLD_SIZE={local}: contradict each other; start the command by "
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
    """Return the bytes of memory that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _git(*arguments: str) -> str | None:
    """Ask git about the repository around this code, which need not be the code's own; None if there is none."""
    command: Sequence[str] = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
