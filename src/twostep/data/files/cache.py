"""A cache of decoded arrays between runs: one safetensors file with a checksum per set of source files.

Arrays above `LARGE` bytes are never completely in memory: they are filled in a file and memory-mapped when loaded, so
that the system reads only the pages needed and drops them when memory is short.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from platformdirs import user_cache_path
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor

from twostep.core.files import WriteError, atomic_write

FORMAT_VERSION = 1
LARGE = 10**9  # bytes
COPIES = 2  # of a large array on disk: one being filled, one in the cache

logger = logging.getLogger("twostep")


def directory() -> Path:
    """Return the folder of the cache: in `$TWOSTEP_CACHE`, or in the user's cache folder."""
    root = os.environ.get("TWOSTEP_CACHE")
    return (Path(root) if root else user_cache_path("twostep")) / "decoded"


def key(name: str, facts: Sequence[object]) -> str:
    """Return the cache key of arrays that were decoded from sources with these facts."""
    text = json.dumps([FORMAT_VERSION, name, *facts])
    readable = re.sub(r"[^\w.-]+", "-", name)[-40:]
    return f"{readable}-{hashlib.sha256(text.encode()).hexdigest()}"


def file_facts(path: Path) -> tuple[str, int, int]:
    """Return path, size in bytes and modification time in nanoseconds, of which a change of the file changes one."""
    status = path.stat()
    return str(path), status.st_size, status.st_mtime_ns


def load(key: str) -> dict[str, Tensor] | None:
    """Return the arrays stored under `key`, or None without any, or with a warning if the file is damaged.

    Those above `LARGE` bytes are memory-mapped; writes to them stay in memory.
    """
    path = _path(key)
    try:
        if not path.is_file():
            return None
        opened: Any = safe_open(path, framework="pt")
        with opened as file:
            metadata: dict[str, str] = file.metadata() or {}
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        metadata, tensors = {}, {}
    if metadata.get("crc32") != _checksum(tensors):
        logger.warning("%s is damaged; decoding the data again", path)
        return None
    # small ones are cloned, or they would keep the file mapped
    return {name: tensor if tensor.nbytes > LARGE else tensor.clone() for name, tensor in tensors.items()}


def store(key: str, tensors: Mapping[str, Tensor]) -> Path | None:
    """Store arrays under `key`; return the file, or None with a warning if the folder can't be written."""
    path = _path(key)
    try:
        with atomic_write(path) as temporary:
            save_file(dict(tensors), temporary, metadata={"crc32": _checksum(tensors)})
    except (WriteError, SafetensorError) as error:
        _warn_unwritable(path.parent, str(error).removeprefix(f"{path}: "))
        return None
    return path


def empty(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return an uninitialised uint8 array: in memory, or above `LARGE` bytes in a file deleted with the array."""
    size = math.prod(shape)
    if size <= LARGE:
        return np.empty(shape, dtype=np.uint8)
    folder = directory()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder).free < COPIES * size:
            raise OSError(f"{COPIES * size / 1e9:.1f} GB of disk are needed to decode {size / 1e9:.1f} GB of images")
        with tempfile.TemporaryFile(dir=folder) as file:
            return np.memmap(cast(Any, file), dtype=np.uint8, mode="w+", shape=shape)
    except OSError as error:
        _warn_unwritable(folder, str(error))
        return np.empty(shape, dtype=np.uint8)


def clear() -> tuple[int, int]:
    """Empty the cache; return the number of files and bytes removed."""
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
    logger.warning("%s: decoded data can't be stored there, so every run decodes them again (%s)", folder, reason)
