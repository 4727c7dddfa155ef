"""What the tests of whole commands share: small sets with the real ones' schema, what a finished run must hold."""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from twostep.cli import main

ROOT = Path(__file__).parents[2]
SETS = {
    "fashion-mnist": ((28, 28), "image", "label"),
    "mnist": ((28, 28), "image", "label"),
    "cifar10": ((32, 32, 3), "img", "label"),
    "svhn": ((32, 32, 3), "image", "label"),
}


def make_sets(folder):
    """Write small parquet files of each image set's schema into a folder: 300 training and 60 test images."""
    import datasets

    random = np.random.default_rng(0)
    for name, (shape, image, label) in SETS.items():
        (folder / name).mkdir()
        for split, count in (("train", 300), ("test", 60)):
            rows = {
                image: [{"bytes": png(blob(random, shape)), "path": None} for _ in range(count)],
                label: random.integers(0, 10, count).tolist(),
            }
            table = datasets.Dataset.from_dict(rows).cast_column(image, datasets.Image(decode=False))
            table.to_parquet(str(folder / name / f"{split}-00000-of-00001.parquet"))


def blob(random, shape):
    """Return a bright spot somewhere on a dark ground, so that there is something to learn."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    top, left = random.uniform(8, 20, 2)
    spot = 200 * np.exp(-((rows - top) ** 2 + (columns - left) ** 2) / 30)
    noise = random.uniform(0, 30, shape)
    return (spot.reshape(*shape[:2], *[1] * (len(shape) - 2)) + noise).astype(np.uint8)


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def run_script(sets, folder, script, *arguments, status=0):
    """Run one of the scripts in a folder, check its exit status, and return the finished process."""
    command = [str(ROOT / script), *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment(sets), capture_output=True, text=True, timeout=240)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


def run_here(sets, folder, script, *arguments, status=0):
    """Do what `run_script` does in this process, which has imported everything already."""
    command = {"main.py": "train", "single_main.py": "train-single"}[script]
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.dict(os.environ, {"TWOSTEP_DATA": str(sets)}),
        pytest.raises(SystemExit) as ended,
    ):
        main([command, *map(str, arguments)])
    assert ended.value.code == status, err.getvalue()
    assert "Traceback" not in err.getvalue()
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())


def environment(sets):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "TWOSTEP_DATA": str(sets), "PYTHONUNBUFFERED": "1"}


def started(sets, folder, script, *arguments):
    command = [str(ROOT / script), *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=folder, env=environment(sets), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def results(run, part):
    """Return the test results of one model by name."""
    return json.loads((run / "metrics" / "test.json").read_text())[part]


def epochs(run):
    history = json.loads((run / "metrics" / "history.json").read_text())
    return {part: len(entries) for part, entries in history.items()}


def tensors(run, tag="latest"):
    return load_file(run / "checkpoints" / f"{tag}.safetensors")


def check_finished(run, parts, images=("samples", "reconstructions")):
    """Check what a finished run's directory must hold."""
    for part in parts:
        measured = results(run, part)
        assert measured
        for name, result in measured.items():
            assert np.isfinite(result["value"]), (part, name)
            assert result["n"] == 60 or name == "log_normalizer"  # of chains
    for name in images:
        with Image.open(run / "samples" / f"{name}.png") as image:
            assert np.asarray(image).std() > 0
    assert list(run.glob("events.*"))
    assert "<svg" in (run / "report.html").read_text()
    assert "test " in (run / "stdout").read_text()
    assert not [
        name for name, value in tensors(run).items() if value.dtype.kind == "f" and not np.isfinite(value).all()
    ]


def assert_equal(first, second, tag="latest"):
    """Check that two runs ended with the same weights, optimisers, results and histories, to the last bit."""
    one, two = tensors(first, tag), tensors(second, tag)
    assert one.keys() == two.keys()
    assert not [name for name in one if not np.array_equal(one[name], two[name])]
    for name in ("test", "history"):
        path = Path("metrics") / f"{name}.json"
        assert json.loads((first / path).read_text()) == json.loads((second / path).read_text())
