"""Runs of an earlier version, interrupted in training: they load, resume to the same result, and score.

`single` is a VAE alone on digits, stopped after 2 of 4 epochs; `two_step` an AE and a flow on von-mises-circle, stopped
in the density's second epoch of 4. `expected.safetensors` and `expected_test.json` are what that version made of them.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from helpers.experiments import drawn
from twostep import load_module, load_run
from twostep.analysis.score import score
from twostep.core.schema import UserError
from twostep.experiment.prepare import resume

FIXTURES = Path(__file__).parents[1] / "fixtures"
KINDS = ("single", "two_step")
CLOSE = {"rtol": 1e-4, "atol": 1e-5}  # bit-equal on one machine; other CPUs sum in another order, over a few epochs


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def old(kind, tmp_path):
    """Give a copy of an old run."""
    return Path(shutil.copytree(FIXTURES / kind, tmp_path / kind))


def test_an_old_run_resumes_to_the_same_samples_and_results(old):
    expected = json.loads((old / "expected_test.json").read_text())
    experiment = resume(old, writing=True)
    experiment.fit()
    results = experiment.test()
    experiment.run.close()
    torch.testing.assert_close(drawn(experiment), load_file(old / "expected.safetensors")["samples"], **CLOSE)
    found = {name: {key: result.value for key, result in part.items()} for name, part in results.items()}
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert {key: found[name][key] for key in values} == pytest.approx(values, rel=1e-4)


def test_an_old_run_that_was_resumed_loads_and_scores(old):
    experiment = resume(old, writing=True)
    experiment.fit()
    experiment.run.close()
    samples = drawn(experiment)
    module, _, (_, valid, test) = load_run(old)
    for loaded in (module, load_module(old)):
        again = (
            loaded.sample(7, torch.Generator().manual_seed(4))
            if hasattr(loaded, "sample")
            else loaded.decode(loaded.encode(test.data.float()))
        )
        assert torch.equal(again, samples)
    assert valid is not None
    np.save(old.parent / "rows.npy", test.data[:9].numpy())
    scored = score(old, old.parent / "rows.npy")
    assert len(scored.columns["row"]) == 9
    assert np.isfinite(scored.columns["p_value"]).all()


def test_an_old_run_loads_before_it_is_resumed(old, kind):
    _, trainer, _ = load_run(old)
    last = trainer if kind == "single" else trainer.de
    assert last.epochs_done == 2
    assert load_module(old).training is False


def test_an_old_run_whose_density_is_not_trained_is_refused(tmp_path):
    from twostep.core import checkpoint

    old = Path(shutil.copytree(FIXTURES / "two_step", tmp_path / "run"))
    path = old / "checkpoints" / "latest.safetensors"
    state = checkpoint.load(path)
    state.values |= {"de.steps_done": 0, "de.epochs_done": 0, "de.batches_done": 0}
    checkpoint.save(path, state)
    for load in (load_module, load_run):
        with pytest.raises(UserError, match="de "):
            load(old)
