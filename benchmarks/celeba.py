"""Time to decode CelebA and to load it again, from 4,000 made photographs of its size, and what that makes for all.

python benchmarks/celeba.py
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from twostep.data.load import load_data

COUNT, ALL = 4000, 202_599


def make(folder: Path) -> None:
    """Write smooth images of 178 x 218 as JPEG, and the list of their partition."""
    (folder / "img_align_celeba").mkdir(parents=True)
    generator = np.random.default_rng(0)
    lines = ["image_id,partition"]
    for number in range(COUNT):
        rough = Image.fromarray(generator.integers(0, 256, (22, 18, 3), dtype=np.uint8))
        rough.resize((178, 218)).save(folder / "img_align_celeba" / f"{number:06}.jpg", quality=90)
        lines.append(f"{number:06}.jpg,{number % 10 // 8 + number % 10 // 9}")
    (folder / "list_eval_partition.csv").write_text("\n".join(lines))


def main() -> None:
    with tempfile.TemporaryDirectory() as root:
        os.environ["TWOSTEP_CACHE"] = f"{root}/cache"
        make(Path(root) / "celeba")
        for what in ("decode", "load again"):
            wall, busy = time.perf_counter(), time.process_time()
            load_data("celeba", data_root=Path(root))
            each = (time.perf_counter() - wall) / COUNT
            busy = (time.process_time() - busy) / COUNT
            spent = f"{each * 1e6:,.0f} µs an image, {busy * 1e6:,.0f} of them computing"
            print(f"{what}: {spent}; all {ALL:,}: {each * ALL:.0f} s")


if __name__ == "__main__":
    main()
