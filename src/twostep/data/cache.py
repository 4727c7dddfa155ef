"""Decoded arrays kept between runs: one checked safetensors file per set of source files."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from platformdirs import user_cache_path
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor

FORMAT_VERSION = 1

logger = logging.getLogger("twostep")


def directory() -> Path:
    """Return where decoded arrays lie: in `TWOSTEP_CACHE`, or in the user's cache folder."""
    root = os.environ.get("TWOSTEP_CACHE")
    return (Path(root) if root else user_cache_path("twostep")) / "decoded"


def key(name: str, facts: Sequence[object]) -> str:
    """Return the name under which arrays are kept that were decoded from sources with these facts."""
    text = json.dumps([FORMAT_VERSION, name, *facts])
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()}"


def file_facts(path: Path) -> tuple[str, int, int]:
    """Return path, size in bytes and time of change in nanoseconds: a file that changes changes one of them."""
    status = path.stat()
    return str(path), status.st_size, status.st_mtime_ns


def load(key: str) -> dict[str, Tensor] | None:
    """Return the arrays kept under `key`, or None where there are none or the file is damaged (with a warning)."""
    path = _path(key)
    try:
        if not path.is_file():
            return None
        opened: Any = safe_open(path, framework="pt")
        with opened as file:
            metadata: dict[str, str] = file.metadata() or {}
            # cloned, or the smallest of them would keep the whole file mapped
            tensors: dict[str, Tensor] = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        metadata, tensors = {}, {}
    if metadata.get("crc32") != _checksum(tensors):
        logger.warning("%s is damaged; decoding the data again", path)
        return None
    return tensors


def store(key: str, tensors: Mapping[str, Tensor]) -> Path | None:
    """Keep arrays under `key`; return the file, or None where the folder can't be written to (with a warning)."""
    path = _path(key)
    aside = path.with_name(f"{uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            save_file(dict(tensors), aside, metadata={"crc32": _checksum(tensors)})
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        _warn_unwritable(path.parent, str(error))
        return None
    return path


def clear() -> tuple[int, int]:
    """Remove everything that is kept; return how many files and how many bytes that were."""
    files = [path for pattern in ("*.safetensors", "*.tmp") for path in directory().glob(pattern)]
    size = sum(path.stat().st_size for path in files)
    for path in files:
        path.unlink(missing_ok=True)
    return len(files), size


def _path(key: str) -> Path:
    return directory() / f"{key}.safetensors"


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    checksum = 0
    for name in sorted(tensors):
        checksum = zlib.crc32(name.encode(), checksum)
        checksum = zlib.crc32(tensors[name].view(torch.uint8).numpy().data, checksum)
    return f"{checksum:08x}"


@cache
def _warn_unwritable(folder: Path, reason: str) -> None:
    logger.warning("%s: cannot keep decoded data there, so every run decodes anew (%s)", folder, reason)
