"""CPU seconds from the start of a command to the end of its first training step, and of `--help`.

The second start on fashion-mnist is measured: the first one decodes the images into the cache.

    TWOSTEP_DATA=<folder of data sets> python benchmarks/startup.py
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile

FIRST_STEP = """
import resource, sys
from twostep.training.trainer import Trainer
step = Trainer.step
def first(self, rows):
    step(self, rows)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(used.ru_utime + used.ru_stime)
    sys.stdout.flush()
    raise SystemExit(0)
Trainer.step = first
from twostep.cli import main
main(sys.argv[1:])
"""


def first_step(dataset: str, folder: str) -> float:
    command = ["train", "--dataset", dataset, "--gae-model", "vae", "--de-model", "flow"]
    command += ["--shared-config", f"logdir_root={folder}"]
    shown = subprocess.run([sys.executable, "-c", FIRST_STEP, *command], capture_output=True, text=True, check=True)
    return float(shown.stdout.splitlines()[-1])


def help_page() -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "twostep", "--help"], capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    print(f"--help: {help_page():.2f} s of CPU (limit 1 s)")
    with tempfile.TemporaryDirectory() as folder:
        for dataset in ("digits", "fashion-mnist"):
            first_step(dataset, folder)
            print(f"{dataset}, second start to first step: {first_step(dataset, folder):.2f} s of CPU (limit 5 s)")


if __name__ == "__main__":
    main()
