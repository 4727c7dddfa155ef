"""Simple images, which a plain distance takes for usual: AUROC of each distance, and of the two-part score.

    TWOSTEP_DATA=<folder of data sets> python benchmarks/simple_images.py [--only mnist fashion-mnist] [--gae ae]

AE + flow on 10,000 images of a set; against it the other set, and its own test images turned, flipped, inverted,
thinned, thickened, blurred, shifted, with half of their contrast;
constant images, rectangles, noise, and the bundled digits of
8 x 8 pixels enlarged. No OOD image is used for training or calibration. `before` is the two-part score of the plain
distance and the density, `two-part` that of `twostep score`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn.functional import interpolate, pad

from twostep.core.seeds import derive
from twostep.data.load import load_data
from twostep.experiment.prepare import start
from twostep.metrics.ood.conformal import TwoPart
from twostep.metrics.ood.scores import DISTANCE, RELATIVE, finite
from twostep.runs.overrides import Request

SETS = ("mnist", "fashion-mnist")
KEYS = {"gae": {"latent_dim": 20, "max_epochs": 15}, "de": {"max_epochs": 8, "early_stopping_metric": None}}
COLUMNS = ("distance", "relative", "density", "before", "two-part")


def others(own: Tensor, other: Tensor) -> dict[str, Tensor]:
    """Return OOD images `(N, 1, 28, 28)` by name."""
    random, n = np.random.default_rng(0), len(own)

    def each(change: Callable[[np.ndarray], np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack([change(image[0])[None] for image in own.numpy()]))

    rectangles = torch.zeros(n, 1, 28, 28)
    for image in rectangles:
        (a, b), (c, d) = np.sort(random.integers(2, 26, (2, 2)))
        image[0, a : b + 1, c : d + 1] = float(random.integers(60, 255))
    digits = load_data("digits", make_valid=False)
    small = torch.cat([digits.train[:], digits.test[:]]).float()[:n] * (255 / 16)
    return {
        "the other set": other,
        "turned": own.rot90(1, (2, 3)),
        "upside down": own.flip(2),
        "mirrored": own.flip(3),
        "shifted by 4": own.roll(4, 3),
        "inverted": 255 - own,
        "thinner": each(lambda image: ndimage.grey_erosion(image, (2, 2))),
        "thicker": each(lambda image: ndimage.grey_dilation(image, (3, 3))),
        "blurred": each(lambda image: ndimage.gaussian_filter(image, 1.5)),
        "half contrast": own / 2,
        "constant": torch.from_numpy(random.integers(0, 255, (n, 1, 1, 1))).float().expand(n, 1, 28, 28).contiguous(),
        "rectangles": rectangles,
        "noise": torch.from_numpy(random.integers(0, 256, (n, 1, 28, 28))).float(),
        "8 x 8 digits": pad(interpolate(small, size=(20, 20), mode="bilinear"), (4, 4, 4, 4)),
    }


def measure(name: str, gae: str, rows: int, test: int) -> None:
    """Train on a set and print the figures against each other one."""
    (own, other) = (load_data(one, make_valid=False) for one in (name, *(one for one in SETS if one != name)))
    usual = own.test[:test].float()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "images.npz"
        np.savez(data, train=own.train[:rows].numpy(), test=own.test[:test].numpy())
        run = {"dataset": str(data), "logdir_root": Path(folder), "device": "cpu"}
        experiment = start(Request({"gae": gae, "de": "flow"}, {"run": run, **KEYS}))
        experiment.fit()
        for trainer in experiment.trainers:
            trainer.use_best()
        valid = experiment.evaluator.splits.valid
        assert valid is not None
        rows_by_name = {"valid": valid, "usual": usual, **others(usual, other.test[:test].float())}
        scored = experiment.evaluator.score(rows_by_name)
        experiment.run.close()
    by_split = {split: {score: found[split] for score, found in scored.items()} for split in rows_by_name}
    plain = {split: {key: one for key, one in found.items() if key != RELATIVE} for split, found in by_split.items()}
    seed = derive(0, "ood")
    before, both = TwoPart(plain["valid"], seed), TwoPart(by_split["valid"], seed)
    print(f"{gae} + flow on {name:18}" + "".join(f"{column:>10}" for column in COLUMNS))
    means: list[list[float]] = []
    for split in list(rows_by_name)[2:]:
        pairs = [(by_split["usual"][score], by_split[split][score]) for score in (DISTANCE, RELATIVE, "log_prob")]
        pairs += [(before.score(plain["usual"]), before.score(plain[split]))]
        pairs += [(both.score(by_split["usual"]), both.score(by_split[split]))]
        truth = np.r_[np.ones(len(usual)), np.zeros(len(rows_by_name[split]))]
        means.append([float(roc_auc_score(truth, finite(np.concatenate(pair)))) for pair in pairs])
        print(f"{split:30}" + "".join(f"{area:10.3f}" for area in means[-1]), flush=True)
    print(f"{'mean':30}" + "".join(f"{area:10.3f}" for area in np.mean(means, 0)))
    print(f"{'lowest':30}" + "".join(f"{area:10.3f}" for area in np.min(means, 0)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=SETS, default=SETS)
    parser.add_argument("--gae", default="ae")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--test", type=int, default=1500)
    given = parser.parse_args()
    for name in given.only:
        measure(name, given.gae, given.rows, given.test)


if __name__ == "__main__":
    main()
