"""Samples of given labels: how many a classifier of the set gives that label, and their distance, by guidance.

A run whose density is conditioned on labels is loaded, and the classifier is trained on its training images. Samples,
as many of each label as there are test images of it, are compared with the test images in the classifier's features;
the accuracy on test images and on their reconstructions bound that of samples. The guidance is that of `fm`; of `flow`
and `gmm` there is one row. For `fm`, the last lines are the error of the few nodes that show which labels a point can
have (`ROUGH_NODES`), and how many labels of a test image need all nodes.

    twostep train --dataset mnist --gae-model ae --de-model fm --gae-config max_steps=1000 \\
        --de-config condition=label --de-config max_steps=3000 --de-config test_metrics=loss
    python benchmarks/conditional.py RUN
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from twostep.experiment.load import load_module
from twostep.experiment.resolve import load_splits
from twostep.metrics.features.classifier import LAST, classifier, train_classifier
from twostep.metrics.samples.frechet import frechet
from twostep.models.fm import NEGLIGIBLE, FlowMatching
from twostep.models.two_step import TwoStep
from twostep.runs.directory import Run

GUIDANCES = (0.0, 1.0, 1.5, 2.0, 3.0, 4.0)
IMAGES = 10_000  # to train the classifier on
SAMPLES = 2000
POINTS = 100  # at which all labels are computed


def main(path: Path) -> None:
    module, splits = load_module(path), load_splits(Run.open(path).settings.run)
    assert isinstance(module, TwoStep)
    assert splits.train_labels is not None
    assert splits.test_labels is not None
    spec, density = splits.spec, module.de
    state = train_classifier(splits.train[:IMAGES], splits.train_labels[:IMAGES], spec.low, spec.high)
    extract = classifier(state)
    real, labels = splits.test[:SAMPLES].float(), splits.test_labels[:SAMPLES]
    kinds = splits.train_labels.unique()

    def accuracy(features: Tensor) -> float:
        logits = features @ state[f"{LAST}.weight"].T + state[f"{LAST}.bias"]
        return float((kinds[logits.argmax(1)] == labels).double().mean())

    with torch.no_grad():
        features = extract(real)
        again = extract(module.gae.clamp(module.decode(module.encode(real))))
        print(f"test images: accuracy {accuracy(features):.3f}")
        print(f"reconstructions: accuracy {accuracy(again):.3f}, fd to test {frechet(again, features).value:.2f}")
        for guidance in GUIDANCES if isinstance(density, FlowMatching) else (1.0,):
            if isinstance(density, FlowMatching):
                density.guidance = guidance
            start = time.process_time()
            drawn = extract(module.sample(len(real), torch.Generator().manual_seed(0), labels))
            took, fd = time.process_time() - start, frechet(drawn, features).value
            print(f"guidance {guidance:g}: accuracy {accuracy(drawn):.3f}, fd to test {fd:.2f}, {took:.1f} CPU s")
        if isinstance(density, FlowMatching):
            screen(density, module.encode(real[:POINTS]))


def screen(density: FlowMatching, z: Tensor) -> None:
    seen, y = density.seen(), density.transform(z)
    each = torch.stack([density.log_prob(z, label) for label in seen], 1)
    start = time.process_time()
    rough = density.rough(y, seen) + density.transform.log_abs_det_jacobian(z)[:, None]
    took = time.process_time() - start
    best = each.argmax(1, keepdim=True)
    off = (rough - each) - (rough - each).gather(1, best)
    near = each > each.gather(1, best) - NEGLIGIBLE / 2
    kept = (rough > rough.amax(1, keepdim=True) - NEGLIGIBLE).sum(1).double().mean()
    print(f"few nodes: {took:.1f} CPU s for {len(z)} points, labels kept {float(kept):.2f} of {len(seen)}")
    print(
        f"error of differences {float(off.std()):.2f} nats, largest of near labels {float(off[near].abs().max()):.2f}"
    )
    start = time.process_time()
    whole = density.log_prob(z)
    took = time.process_time() - start
    exact = (each + density.log_shares[seen]).logsumexp(1)
    print(f"log p(x): {took:.1f} CPU s, error {float((whole - exact).abs().max()):.2g} nats")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
