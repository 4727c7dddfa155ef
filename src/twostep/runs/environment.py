"""What a command runs on, as a run stores it: command, versions, seed, machine."""

from __future__ import annotations

import platform
import subprocess
import sys
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, TypeAdapter

LIBRARIES = ("twostep", "torch", "lightning-fabric", "zuko", "numpy", "safetensors", "pydantic")


class _Environment(BaseModel):
    command: list[str] = []
    started: str = ""
    versions: dict[str, str] = {}
    seed: int | None = None
    threads: int | None = None
    ranks: int | None = None
    later: list[dict[str, Any]] = []


ENVIRONMENT = TypeAdapter(_Environment)
"""What is read of `environment.json`."""


def environment(seed: int, ranks: int) -> dict[str, Any]:
    """Return this process's command and time, the commit of this code, versions, and the machine's facts."""
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


def _git(*arguments: str) -> str | None:
    """Ask git about the repository around this code, which need not be the code's own; None if there is none."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
