"""CPU time of a training step of a convolutional autoencoder, with freed memory given back to Linux and kept.

glibc gives blocks of more than 32 MB back to the system whenever they are freed, and each new one is zeroed page by
page. Two variables of the environment keep them in the process instead:

    export MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=17179869184

    python benchmarks/kept_memory.py
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

KEPT = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**34)}
ROUNDS = 3
STEPS = """
import resource, torch
from twostep.models.ae import AutoencoderConfig
from twostep.core.schema import DataSpec
torch.set_num_threads(1)
spec = DataSpec(name="images", shape=(3, 32, 32), size=128, low=0, high=255, discrete=True)
model = AutoencoderConfig.for_data(spec, "gae", preset="reference").build(spec)
x = torch.rand(128, 3, 32, 32) * 255
def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
for steps in (1, 5):
    before = cpu()
    for _ in range(steps):
        model.objectives()[0].loss(x).backward()
print(1000 * (cpu() - before) / steps, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def measured(kept: bool) -> tuple[float, float]:
    """Return milliseconds of CPU a step, and the peak of memory in MB."""
    environment = {name: value for name, value in os.environ.items() if name not in KEPT} | (KEPT if kept else {})
    done = subprocess.run([sys.executable, "-c", STEPS], env=environment, capture_output=True, text=True, check=True)
    milliseconds, megabytes = map(float, done.stdout.split())
    return milliseconds, megabytes


def main() -> None:
    found: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    for _ in range(ROUNDS):
        for kept, runs in found.items():
            runs.append(measured(kept))
    for kept, runs in found.items():
        milliseconds, megabytes = (statistics.median(column) for column in zip(*runs, strict=True))
        print(f"{'kept' if kept else 'given back'}: {milliseconds:.0f} ms of CPU a step, peak {megabytes:,.0f} MB")


if __name__ == "__main__":
    main()
