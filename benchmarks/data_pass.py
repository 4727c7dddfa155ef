"""Time of one shuffled pass over the 54,000 training images of fashion-mnist, as a training epoch takes them.

TWOSTEP_DATA=<folder of data sets> python benchmarks/data_pass.py
"""

from __future__ import annotations

import statistics
import time

from twostep.data.batches import Batches
from twostep.data.load import load_data

ROUNDS = 7
LIMIT = 0.06


def main() -> None:
    batches = Batches(load_data("fashion-mnist").train, 128)
    seconds: list[float] = []
    for epoch in range(ROUNDS):
        began = time.perf_counter()
        order = batches.order(0, epoch)
        for index in range(len(batches)):
            batches.take(batches.rows_of(order, index))
        seconds.append(time.perf_counter() - began)
    print(f"pass over {len(batches.data):,} images: {statistics.median(seconds):.3f} s (limit {LIMIT} s)")


if __name__ == "__main__":
    main()
