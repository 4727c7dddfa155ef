"""Whole commands in processes of their own: the README's examples, kills and signals in the middle.

Each test checks the exit status and what the command left behind. Sets are small files with the real ones' schema.
"""

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from helpers.arguments import only_run, repeated
from helpers.commands import ROOT, assert_equal, check_finished, environment, epochs, results, started, tensors

pytestmark = pytest.mark.cmd

TWO_EPOCHS = ("max_epochs=2",)
SMALL_CNN = (*TWO_EPOCHS, "encoder_hidden_channels=[4,4]", "decoder_hidden_channels=[4,4]", "latent_dim=4")
SMALL_FLOW = (*TWO_EPOCHS, "hidden_units=8", "num_layers=1")


# --- the README's examples


@pytest.mark.parametrize(
    ("dataset", "model", "flags", "config", "images"),
    [
        ("fashion-mnist", "vae", ("--is-gae",), TWO_EPOCHS, ("samples", "reconstructions")),
        ("svhn", "flow", (), SMALL_FLOW, ("samples",)),
        ("cifar10", "vae", (), SMALL_CNN, ("samples", "reconstructions")),
    ],
)
def test_one_model_alone(shell, tmp_path, dataset, model, flags, config, images):
    shell("single_main.py", "--dataset", dataset, "--model", model, *flags, *repeated("--config", config))
    run = only_run(tmp_path / "runs")
    check_finished(run, ("model",), images)
    assert epochs(run) == {"model": 2}
    assert (run / ("gae_config.json" if flags else "config.json")).exists()


def test_two_steps_with_convolutions_on_colour(shell, tmp_path):
    arguments = ("--dataset", "cifar10", "--gae-model", "avb", "--de-model", "vae")
    shell("main.py", *arguments, *repeated("--gae-config", SMALL_CNN), *repeated("--de-config", TWO_EPOCHS))
    run = only_run(tmp_path / "runs")
    check_finished(run, ("gae", "de", "two_step"))
    assert json.loads((run / "gae_config.json").read_text())["encoder_net"] == "cnn"
    assert epochs(run) == {"gae": 2, "de": 2}


def test_a_pretrained_autoencoder_frozen_and_trained_further(shell, tmp_path):
    small = (*repeated("--de-config", SMALL_FLOW), "--de-model", "flow")
    stop = ("early_stopping_metric=l2_reconstruction_error", *TWO_EPOCHS)
    shell("single_main.py", "--dataset", "fashion-mnist", "--model", "vae", "--is-gae", *repeated("--config", stop))
    gae = only_run(tmp_path / "runs")
    pretrained = ("--load-dir", gae, "--load-pretrained-gae", "--load-best-valid-first", *small)
    shell("main.py", *pretrained, "--freeze-pretrained-gae", *repeated("--shared-config", ("logdir_root=frozen",)))
    frozen = only_run(tmp_path / "frozen")
    check_finished(frozen, ("gae", "de", "two_step"))
    assert epochs(frozen) == {"de": 2}
    best = {name.removeprefix("model.best."): value for name, value in tensors(gae).items() if ".best." in name}
    taken = {n.removeprefix("gae.model."): v for n, v in tensors(frozen).items() if n.startswith("gae.model.")}
    assert taken.keys() == best.keys()
    assert all(np.array_equal(taken[name], best[name]) for name in best)
    shell("main.py", *pretrained, "--max-epochs-loaded-gae", 3, *repeated("--shared-config", ("logdir_root=further",)))
    further = only_run(tmp_path / "further")
    check_finished(further, ("gae", "de", "two_step"))
    assert epochs(further) == {"gae": 3, "de": 2}


def test_an_avb_alone_then_frozen_under_a_vae_then_compared_with_other_data(shell, tmp_path):
    shell("single_main.py", *("--dataset", "fashion-mnist", "--model", "avb", "--is-gae", "--config", "max_epochs=2"))
    avb = only_run(tmp_path / "runs")
    check_finished(avb, ("model",))
    pretrained = ("--load-dir", avb, "--load-pretrained-gae", "--load-best-valid-first", "--freeze-pretrained-gae")
    keys = ("--de-model", "vae", "--de-config", "max_epochs=2", "--shared-config", "logdir_root=both")
    shell("main.py", *pretrained, *keys)
    both = only_run(tmp_path / "both")
    check_finished(both, ("gae", "de", "two_step"))
    only_test = ("--load-best-valid-first", "--only-test", "--test-ood")
    for script, run, part, files in (("single_main.py", avb, "model", 4), ("main.py", both, "two_step", 8)):
        shell(script, "--load-dir", run, *only_test)
        assert 0 <= results(run, part)["likelihood_ood_acc"]["value"] <= 1
        assert len(list((run / "ood").glob("log_prob*_t*.npy"))) == files


def test_a_run_is_trained_further_and_tested_only(shell, tmp_path):
    arguments = ("--dataset", "fashion-mnist", "--gae-model", "ae", "--de-model", "flow")
    stop = (*SMALL_FLOW, "early_stopping_metric=loss")
    shell("main.py", *arguments, *repeated("--gae-config", TWO_EPOCHS), *repeated("--de-config", stop))
    run = only_run(tmp_path / "runs")
    first = results(run, "two_step")
    (run / "metrics" / "test.json").unlink()
    latest = (run / "checkpoints" / "latest.safetensors").read_bytes()
    for flags in ((), ("--load-best-valid-first",)):
        shell("main.py", "--load-dir", run, "--only-test", *flags)
        assert results(run, "two_step") == first
    assert (run / "checkpoints" / "latest.safetensors").read_bytes() == latest
    shell("main.py", "--load-dir", run, "--max-epochs-loaded-gae", 3, "--max-epochs-loaded-de", 4)
    assert epochs(run) == {"gae": 3, "de": 4}
    shell("main.py", "--load-dir", run, "--max-epochs-loaded", 5)
    assert epochs(run) == {"gae": 5, "de": 5}
    check_finished(run, ("gae", "de", "two_step"))
    assert results(run, "gae")["l2_reconstruction_error"]["value"] < first["l2_reconstruction_error"]["value"]
    shell("main.py", "--load-dir", run, "--only-test", "--test-ood")
    check_finished(run, ("gae", "de"))
    assert "fashion-mnist against mnist" in results(run, "two_step")["likelihood_ood_auroc_low_dim"]["note"]
    assert len(list((run / "ood").glob("log_prob*_t*.npy"))) == 8


def test_a_single_run_is_loaded_in_python(shell, tmp_path, sets):
    shell("single_main.py", "--dataset", "digits", "--model", "vae", *repeated("--config", TWO_EPOCHS))
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from load_run import load_run\n"
        "module, trainer, (train, valid, test) = load_run(sys.argv[2])\n"
        "import torch\n"
        "with torch.no_grad(): x = torch.cat(list(test)); print(module.training, len(x), trainer.epochs_done)\n"
        "print(float(module.reconstruction_error(x).mean()))\n"
    )
    run = only_run(tmp_path / "runs")
    command = [sys.executable, "-c", program, str(ROOT), str(run)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(sets), timeout=120)
    assert done.returncode == 0, done.stderr
    facts, error = done.stdout.strip().splitlines()[-2:]
    assert facts == "False 359 2"
    shell("single_main.py", "--load-dir", run, "--only-test", "--config", "test_metrics=l2_reconstruction_error")
    assert float(error) == pytest.approx(results(run, "model")["l2_reconstruction_error"]["value"], rel=1e-4)


# --- stopped in the middle


LONG = (
    *("--dataset", "digits", "--gae-model", "vae", "--de-model", "flow"),
    *repeated("--gae-config", ("max_epochs=4", "latent_dim=3", "use_lr_scheduler=True")),
    *repeated("--de-config", ("max_epochs=4", "num_layers=1", "early_stopping_metric=loss")),
)


@pytest.fixture(scope="module")
def uninterrupted(sets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    process = started(sets, folder, "main.py", *LONG)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return only_run(folder / "runs")


def stop_at(process, text, number):
    """Send a signal to a process as soon as it has written a line with this text."""
    for line in process.stdout:
        if text in line:
            process.send_signal(number)
            break
    else:
        pytest.fail(f"ended without a line with {text}: {process.stderr.read()}")
    out, err = process.communicate(timeout=120)
    return out, err


@pytest.mark.parametrize("line", ["gae vae: epoch 2/4", "de flow: epoch 1/4"])
def test_killed_and_started_again_equals_never_stopped(shell, sets, tmp_path, uninterrupted, line):
    process = started(sets, tmp_path, "main.py", *LONG)
    stop_at(process, line, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    run = only_run(tmp_path / "runs")
    assert not (run / "metrics" / "test.json").exists()
    shell("main.py", "--load-dir", run)
    assert_equal(run, uninterrupted)
    assert_equal(run, uninterrupted, "best_valid")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_interrupted_and_resumed_by_the_line_that_it_names(shell, sets, tmp_path, uninterrupted, number):
    process = started(sets, tmp_path, "main.py", *LONG)
    _, err = stop_at(process, "gae vae: epoch 1/4", number)
    assert process.returncode == 128 + number
    assert err.count("\n") == 2, "that steps are few, and what resumes the run"
    run = only_run(tmp_path / "runs")
    assert (run / "checkpoints" / "latest.safetensors").exists()
    assert not (run / "metrics" / "test.json").exists()
    words = shlex.split(err.partition("resume with: ")[2])
    assert words == ["twostep", "train", "--load-dir", f"runs/{run.name}"]
    shell("main.py", *words[2:])
    assert_equal(run, uninterrupted)


def test_a_second_interrupt_ends_at_once(sets, tmp_path):
    process = started(sets, tmp_path, "main.py", *LONG[:6], "--gae-config", "max_epochs=1000")
    for line in process.stdout:
        if "epoch 1/1000" in line:
            break
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert time.monotonic() - begun < 15, "a thousand epochs take minutes"
    assert "resume with: twostep train --load-dir runs/" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_while_a_command_starts_is_one_line(sets, tmp_path, number):
    """While the parser is imported, and while torch imports numpy, in C."""
    for library in ("_pydantic_core", "_multiarray_umath"):
        process = started(sets, tmp_path, "main.py", *LONG[:6], "--gae-config", "max_epochs=1000")
        maps = Path(f"/proc/{process.pid}/maps")
        while process.poll() is None and library not in maps.read_text():
            time.sleep(0.01)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 128 + number, (library, err)
        assert err.startswith(f"interrupted by {signal.Signals(number).name}; "), (library, err)
        assert err.count("\n") == 1


FULL = """
import resource, sys
from twostep.experiment.progress import Lines
epoch = Lines.epoch
def fill(self, trainer):
    epoch(self, trainer)
    if trainer.epochs_done == 2:  # from now on no file grows, the log and the curves neither
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
Lines.epoch = fill
from twostep.__main__ import main
main(sys.argv[1:])
"""


def test_a_disk_that_fills_while_training_is_one_line_and_the_run_is_resumed(shell, sets, tmp_path, uninterrupted):
    command = [sys.executable, "-c", FULL, "train", *LONG]
    done = subprocess.run(command, cwd=tmp_path, env=environment(sets), capture_output=True, text=True, timeout=240)
    run = only_run(tmp_path / "runs")
    assert done.returncode == 3
    assert done.stderr.count("\n") == 2, "that steps are few, and what resumes the run"
    line = f"(File too large); resume with: twostep train --load-dir runs/{run.name}\n"
    assert done.stderr.endswith(line)
    assert not list(run.rglob(".*"))
    shell("main.py", "--load-dir", run)
    assert_equal(run, uninterrupted)


def test_a_lost_rank_is_one_line_and_no_defect(sets, tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "0"]
    lose = (
        "import os, signal, sys\n"
        "from twostep.experiment.progress import StopOnSignal\n"
        "step = StopOnSignal.step\n"
        "def lost(self, trainer, losses):\n"
        "    if trainer.steps_done == 3 and os.environ['RANK'] == '1': os.kill(os.getpid(), signal.SIGKILL)\n"
        "    step(self, trainer, losses)\n"
        "StopOnSignal.step = lost\n"
        "from twostep.__main__ import main\n"
        "main(sys.argv[1:])\n"
    )
    (tmp_path / "lose.py").write_text(lose)
    command = [*launch, "lose.py", "train", *LONG]
    done = subprocess.run(command, cwd=tmp_path, env=environment(sets), capture_output=True, text=True, timeout=240)
    assert done.returncode != 0
    assert "this is a defect" not in done.stderr
    run = only_run(tmp_path / "runs")
    reported = [line for line in done.stderr.splitlines() if line.endswith(f"twostep train --load-dir runs/{run.name}")]
    assert len(reported) == 1, done.stderr


def test_nohup_is_respected(sets, tmp_path):
    command = [
        "nohup",
        str(ROOT / "single_main.py"),
        "--dataset",
        "digits",
        "--model",
        "ae",
        "--config",
        "max_epochs=3",
    ]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment(sets), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    out, err = stop_at(process, "epoch 1/3", signal.SIGHUP)
    assert process.returncode == 0, err
    assert "epoch 3/3" in out


def test_two_runs_started_together_have_a_directory_each(sets, tmp_path):
    arguments = ("--dataset", "digits", "--model", "ae", "--config", "max_epochs=1", "--config", "latent_dim=2")
    processes = [started(sets, tmp_path, "single_main.py", *arguments) for _ in range(2)]
    for process in processes:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    first, second = sorted((tmp_path / "runs").iterdir())
    assert_equal(first, second)


def on_two_ranks(sets, folder, *arguments):
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(ROOT / "main.py")]
    command = [*launch, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment(sets), capture_output=True, text=True, timeout=240)


def test_a_mistake_on_all_ranks_is_reported_once(sets, tmp_path):
    arguments = ("--dataset", "digits", "--gae-model", "ae", "--de-model", "flow")
    done = on_two_ranks(sets, tmp_path, *arguments, "--gae-config", "latnt_dim=3")
    assert done.returncode != 0
    assert done.stderr.count("latnt_dim: no such key of ae; did you mean latent_dim?\n") == 1


def test_a_run_in_use_is_refused_to_others_until_its_process_dies(shell, sets, tmp_path):
    first = started(sets, tmp_path, "main.py", *LONG[:6], "--gae-config", "max_epochs=1000")
    try:
        for line in first.stdout:
            if "epoch 1/1000" in line:
                break
        run = only_run(tmp_path / "runs")
        says = f"{run}: another process writes into it; wait until it ends, or stop it\n"
        assert shell("main.py", "--load-dir", run, status=2).stderr == says
        done = on_two_ranks(sets, tmp_path, "--load-dir", run)
        assert done.returncode != 0
        assert done.stderr.count(says) == 1
    finally:
        first.kill()
        first.communicate()
    shell("main.py", "--load-dir", run, "--only-test")
    assert len(json.loads((run / "environment.json").read_text())["later"]) == 1


def test_two_ranks_write_one_run_and_end_in_peace(sets, tmp_path):
    arguments = ("--dataset", "fashion-mnist", "--gae-model", "ae", "--de-model", "flow")
    small = (*repeated("--gae-config", TWO_EPOCHS), *repeated("--de-config", SMALL_FLOW))
    done = on_two_ranks(sets, tmp_path, *arguments, *small)
    assert done.returncode == 0, done.stderr
    run = only_run(tmp_path / "runs")
    check_finished(run, ("gae", "de", "two_step"))
    assert done.stdout == (run / "stdout").read_text()
    assert json.loads((run / "environment.json").read_text())["ranks"] == 2
    assert epochs(run) == {"gae": 2, "de": 2}
