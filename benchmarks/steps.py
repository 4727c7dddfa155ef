"""Time of a whole epoch here, per batch, against a bare loop of the same network and loss.

A bare step is forward, backward, gradient clipping and `torch.optim.Adam` with its default options, eager, on one
fixed batch. Ours is everything that a run does: data, noise, checks, logs, validation, checkpoint. Both are timed in
turn, in one process; the ratio is the median of the ratios of neighbours, since the machine's speed drifts. Epochs
of slow densities of images (`alone`) have fewer rows.

    TWOSTEP_DATA=<folder of data sets> python benchmarks/steps.py [--rounds 9] [--rows "wae" "ebm on embeddings"]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable

import torch

from bare import Step, bare
from bare_alone import bare_alone
from twostep.experiment.experiment import Experiment
from twostep.experiment.prepare import start
from twostep.runs.overrides import Request

BATCH = 128
ROWS = {"flow": 6400, "ebm": 6400, "arm": 1280}
LIMITS = {
    **{"ae": 0.95, "vae": 0.95, "wae": 0.8, "avb": 1.0, "bigan": 1.0},
    **dict.fromkeys((f"{name} on embeddings" for name in ("flow", "arm", "ebm", "vae", "avb")), 1.0),
    **dict.fromkeys((f"{name} alone" for name in ("vae", "flow", "ebm", "arm")), 1.0),
}


def seconds_a_batch(step: Callable[[], None], steps: int) -> float:
    began = time.perf_counter()
    for _ in range(steps):
        step()
    return (time.perf_counter() - began) / steps


def prepare(folder: str, row: str) -> tuple[Experiment, Step, Step, int]:
    """Return the run, a whole epoch of it, a bare step, and the number of batches of that epoch."""
    name, _, where = row.partition(" ")
    run = {"dataset": "fashion-mnist", "logdir_root": folder}
    if where == "on embeddings":
        experiment = start(Request({"gae": "ae", "de": name}, {"run": run}))
        train, valid = torch.randn(len(experiment.splits.train), 20), torch.randn(6000, 20)
    else:
        experiment = start(Request({"model": name}, {"run": run}, is_gae=where != "alone"))
        train, valid = experiment.splits.train, experiment.splits.valid
        assert valid is not None
        if where == "alone" and name in ROWS:
            train, valid = train[: ROWS[name]], valid[: ROWS[name] // 9]
    trainer = experiment.trainers[-1]
    batches = experiment.evaluator.batches(train, BATCH)
    trainer.set_data(batches, experiment.evaluator.batches(valid, BATCH))
    x = next(iter(batches))
    x = x if where == "on embeddings" else x / 255
    return experiment, trainer.run_epoch, (bare_alone if where == "alone" else bare)(name, x), len(batches)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rows", nargs="*", default=list(LIMITS))
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, batch {BATCH}")
    print(f"{'work':20}{'bare step, ms':>15}{'whole epoch, ms a batch':>26}{'ratio':>8}{'limit':>8}")
    for name in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            experiment, ours, bare, batches = prepare(folder, name)
            seconds_a_batch(bare, 20)
            seconds_a_batch(ours, 1)
            bare_times, our_times = [], []
            for _ in range(options.rounds):
                bare_times.append(seconds_a_batch(bare, batches))
                our_times.append(seconds_a_batch(ours, 1) / batches)
            experiment.run.close()
            ratio = statistics.median(our / bare for our, bare in zip(our_times, bare_times, strict=True))
            bare_ms, our_ms = (1000 * statistics.median(times) for times in (bare_times, our_times))
            print(f"{name:20}{bare_ms:15.2f}{our_ms:26.2f}{ratio:8.2f}{LIMITS[name]:8.2f}", flush=True)


if __name__ == "__main__":
    main()
