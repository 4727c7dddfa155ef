"""Every random number is a function of the run's seed and of what it is drawn for."""

from __future__ import annotations

import hashlib


def derive(seed: int, *purpose: int | str) -> int:
    """Return a 63-bit seed for one purpose: `derive(seed, "step", rank, step)`. The same on every machine."""
    text = ":".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1
