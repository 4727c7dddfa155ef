"""Time of a training step while another process keeps one core busy, with and without a limit on OpenMP's spinning.

The command line sets the limit (GOMP_SPINCOUNT) unless the environment has one.

    python benchmarks/busy_machine.py
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path

from twostep.cli import SPIN_COUNT

ROUNDS = 3
STEPS = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from steps import BareVAE, bare_step, seconds_a_batch
module = BareVAE()
step = bare_step(module, module, torch.rand(128, 784))
seconds_a_batch(step, 20)
print(1000 * seconds_a_batch(step, 200))
"""


def step_ms(limited: bool) -> float:
    environment = {key: value for key, value in os.environ.items() if key != "GOMP_SPINCOUNT"}
    environment |= {"GOMP_SPINCOUNT": SPIN_COUNT} if limited else {}
    command = [sys.executable, "-c", STEPS, str(Path(__file__).parent)]
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    for others in (0, 1):
        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(others)]
        times: dict[bool, list[float]] = {False: [], True: []}
        try:
            for _ in range(ROUNDS):
                for limited in times:
                    times[limited].append(step_ms(limited))
        finally:
            for process in busy:
                process.kill()
        free, limited_ms = (statistics.median(times[limited]) for limited in (False, True))
        print(f"{others} other busy processes: {free:.1f} ms a step unlimited, {limited_ms:.1f} ms limited", flush=True)


if __name__ == "__main__":
    main()
