"""Seeds derived from the seed of a run and a purpose."""

from __future__ import annotations

import hashlib


def derive(seed: int, *purpose: int | str) -> int:
    """Return a 63-bit seed for one purpose, as in `derive(seed, "step", rank, step)`; the same on every machine."""
    text = ":".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1
