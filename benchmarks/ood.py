"""How well scores separate datasets: AE + flow, AUROC of each score and of the two-part score, with 95 % intervals.

No threshold and no OOD data in any of them; in-distribution = higher. The last columns are the alarms of the two-part
score at p <= 0.05: the share of in-distribution test rows (0.05 is announced), and that of the other set. `digits` and
`classes` leave one class (of the bundled digits, of mnist) out of training and take it for the other set, ten times.

    TWOSTEP_DATA=<folder of data sets> python benchmarks/ood.py [--only fashion-mnist ...] [--rows 10000] [--keep]

`breast_cancer` trains on benign rows and takes malignant ones for the other set. `--keep` writes the figures into
docs/results/ood.json, from which `benchmarks/results.py` makes its table.

`--rows` limits the training rows of the large sets (AE for 20 epochs, flow for 6). The weights of distance and density
(`metrics.ood.conformal`) were chosen on all pairs of `fashion-mnist`, `digits` and `breast_cancer`; `mnist`, both whole
and without one class, ten times, is the check that had no say in them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer
from torch import Tensor

from twostep.data.load import load_data
from twostep.experiment.prepare import start
from twostep.metrics import Result
from twostep.runs.overrides import Request

SCORES = {
    "density": "likelihood_ood_auroc",
    "latent density": "likelihood_ood_auroc_low_dim",
    "distance": "distance_ood_auroc",
    "relative distance": "relative_distance_ood_auroc",  # of images
    "two-part": "two_part_ood_auroc",
    "kNN": "knn_ood_auroc",
    "latent kNN": "knn_ood_auroc_low_dim",
}
STUMPS = ("likelihood_ood_acc", "likelihood_ood_acc_low_dim")
RATES = ("two_part_ood_false_positive_rate", "two_part_ood_detection_rate")
LARGE = {"gae": {"latent_dim": 20, "max_epochs": 20}, "de": {"max_epochs": 6, "early_stopping_metric": None}}
SMALL = {"gae": {"latent_dim": 10, "max_epochs": 150}, "de": {"max_epochs": 40}}
KEPT = Path(__file__).parents[1] / "docs" / "results" / "ood.json"
TABLE = {"gae": {**SMALL["gae"], "whitening_transform": True}, "de": SMALL["de"]}
Pair = tuple[str, dict[str, Tensor], dict[str, Tensor], dict[str, Any]]


def of_sets(own: str, other: str, rows: int) -> Iterator[Pair]:
    """Give one data set, the first rows of its training data, and the other."""
    first, second = (load_data(name, make_valid=False) for name in (own, other))
    train, test = (data[:] for data in (first.train, first.test))
    yield (
        f"{own} -> {other}",
        {"train": train[:rows], "test": test},
        {"train": second.train[:rows], "test": second.test[:]},
        LARGE,
    )


def of_digits() -> Iterator[Pair]:
    """Give the digits without one class, and that class; its rows are test rows, whatever split they were in."""
    data = load_data("digits", make_valid=False)
    for label in range(10):
        splits = {"train": (data.train, data.train_labels), "test": (data.test, data.test_labels)}
        kept = {name: rows[:][labels != label] for name, (rows, labels) in splits.items()}
        left = torch.cat([rows[:][labels == label] for rows, labels in splits.values()])
        yield f"digits without {label}", kept, {"train": left[:20], "test": left[20:]}, SMALL


def of_classes(rows: int) -> Iterator[Pair]:
    """Give the first rows of mnist without one class, and that class's test rows."""
    data = load_data("mnist", make_valid=False)
    assert data.train_labels is not None
    assert data.test_labels is not None
    for label in range(10):
        train, test = data.train[:][data.train_labels != label], data.test[:]
        left = {"train": data.train[:][data.train_labels == label][:1000], "test": test[data.test_labels == label]}
        yield f"mnist without {label}", {"train": train[:rows], "test": test[data.test_labels != label]}, left, LARGE


def of_tumours() -> Iterator[Pair]:
    """Give the benign rows of a table of 30 columns, and the malignant ones."""
    rows, kinds = (torch.from_numpy(part) for part in load_breast_cancer(return_X_y=True))
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    own, other = (rows[order][kinds[order] == kind].float() for kind in (1, 0))
    yield (
        "breast_cancer, benign -> malignant",
        {"train": own[:250], "test": own[250:]},
        {"train": other[:20], "test": other[20:]},
        TABLE,
    )


def measure(own: dict[str, Tensor], other: dict[str, Tensor], keys: dict[str, Any]) -> dict[str, Result]:
    """Train on one set and return the figures of the comparison with the other."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f"{name}.npz" for name in ("own", "other")}
        for path, splits in zip(paths.values(), (own, other), strict=True):
            np.savez(path, **{name: rows.numpy() for name, rows in splits.items()})
        run = {
            "dataset": str(paths["own"]),
            "ood_dataset": str(paths["other"]),
            "logdir_root": Path(folder),
            "device": "cpu",
        }
        experiment = start(Request({"gae": "ae", "de": "flow"}, {"run": run, **keys}), test_ood=True)
        experiment.fit()
        results = experiment.test()["two_step"]
        experiment.run.close()
    return results


def keep(pair: str, results: dict[str, Result]) -> None:
    """Add the figures of a pair to those in docs/results."""
    facts = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    names = (*SCORES.values(), *STUMPS, *RATES)
    known = {name: results[name] for name in names if name in results}
    facts[pair] = {name: {"value": result.value, "interval": result.interval} for name, result in known.items()}
    KEPT.write_text(json.dumps(facts, indent=1) + "\n")


def line(pair: str, results: dict[str, Result], seconds: float) -> str:
    areas = [results.get(figure) for figure in SCORES.values()]
    intervals = [(area.value, *area.interval) if area and area.interval else () for area in areas]
    cells = ["{:.4f} [{:.4f}, {:.4f}]".format(*interval) if interval else "" for interval in intervals]
    rates = "".join(f"{results[rate].value:8.3f}" for rate in RATES)
    return f"{pair:36}" + "".join(f"{cell:>24}" for cell in cells) + rates + f"{seconds:7.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sets = ("fashion-mnist", "mnist", "classes", "digits", "breast_cancer")
    parser.add_argument("--only", nargs="*", choices=sets, default=sets)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--keep", action="store_true")
    given = parser.parse_args()
    pairs = {
        "fashion-mnist": lambda: of_sets("fashion-mnist", "mnist", given.rows),
        "mnist": lambda: of_sets("mnist", "fashion-mnist", given.rows),
        "classes": lambda: of_classes(given.rows),
        "digits": of_digits,
        "breast_cancer": of_tumours,
    }
    print(f"{'pair':36}" + "".join(f"{name:>24}" for name in SCORES) + f"{'false':>8}{'found':>8}{'CPU s':>7}")
    for name in given.only:
        for pair, own, other, keys in pairs[name]():
            began = time.process_time()
            results = measure(own, other, keys)
            print(line(pair, results, time.process_time() - began), flush=True)
            if given.keep:
                keep(pair, results)


if __name__ == "__main__":
    main()
