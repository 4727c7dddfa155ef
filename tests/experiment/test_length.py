"""What a run says of the length of its training."""

import logging

import numpy as np
import pytest

from helpers.experiments import asked, start
from twostep.experiment.length import judge

pytestmark = pytest.mark.usefixtures("advice")


def curve(epochs, floor, rate=0.1, rise=0.0):
    """A loss that falls to its floor and rises again."""
    return [floor + (1 - rate) ** epoch + rise * epoch for epoch in range(epochs)]


@pytest.mark.parametrize(
    ("values", "keeps_best", "expected"),
    [
        (curve(20, 1.0), True, "undertrained"),
        (curve(20, -50.0), True, "undertrained"),  # a log-density, of either sign
        (curve(100, 1.0), True, None),
        (curve(100, 1.0, rise=0.01), True, None),
        (curve(100, 1.0, rise=0.01), False, "overfitted"),
        (curve(9, 1.0), True, None),  # too few to tell
        ([1.0] * 50, False, None),
        ([*range(50)], True, None),
    ],
)
def test_a_training_is_judged_by_its_curve(values, keeps_best, expected):
    assert judge(values, keeps_best) == expected


@pytest.mark.parametrize(("epochs", "said"), [(12, True), (2, False)])
def test_a_run_says_that_it_was_still_improving(epochs, said, tmp_path, caplog):
    path = tmp_path / "rows.npy"
    np.save(path, np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32))
    keys = {"max_epochs": epochs, "lr": 1e-4, "early_stopping_metric": "loss"}
    with caplog.at_level(logging.WARNING, "twostep"):
        experiment = start(asked(("ae",), path, tmp_path, model=keys))
        experiment.fit()
        results = experiment.test()
    experiment.run.close()
    assert any("undertrained" in line for line in caplog.messages) == said
    assert any("undertrained" in result.note for result in results["model"].values()) == said
