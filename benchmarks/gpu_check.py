"""Does everything that a GPU computes agree with the CPU? Run it once on a machine with a GPU; minutes.

Every model, in each role, on vectors and on small images: two training steps in single and in mixed precision; then, in
single precision, what the trained weights give on the device and on the CPU (embeddings, reconstructions, log-volumes
with TF32 allowed, log-densities, means of samples). Then whole two-step runs on the bundled digits: metrics on the
device and on the CPU, and a run that was stopped and resumed against one that was not.

    python benchmarks/gpu_check.py                  # on the GPU if there is one
    python benchmarks/gpu_check.py --device cpu     # its own control: the CPU against itself

It prints a line for each comparison and ends with status 1 if one of them fails.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import logging
import math
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from twostep.core.schema import DataSpec
from twostep.data.batches import Batches
from twostep.experiment.load import load_finished
from twostep.experiment.prepare import resume, start
from twostep.models import MODELS
from twostep.models.base import DensityEstimator, GeneralizedAutoencoder, Model, Role, evaluating
from twostep.models.ebm import EBM
from twostep.runs.overrides import Request
from twostep.training.engine import Engine
from twostep.training.trainer import Trainer

SPECS = (
    DataSpec(name="vectors", shape=(20,), size=256, low=-4, high=4),
    DataSpec(name="grey images", shape=(1, 12, 12), size=256, low=0, high=255, discrete=True),
    DataSpec(name="colour images", shape=(3, 12, 12), size=256, low=0, high=255, discrete=True),
)
SMALL = {"hidden_units": 32, "ld_steps": 10, "max_length_buffer": 256}
RTOL = 2e-3  # of the largest value, in single precision
DRAWS = 200
SIGMAS = 6.0
RUN_METRICS = ("l2_reconstruction_error", "log_likelihood", "fd", "kid", "sliced_wasserstein", "memorisation")


class Check:
    """Prints each comparison, and counts those that fail."""

    def __init__(self) -> None:
        self.done, self.failed = 0, 0

    def that(self, good: bool, what: str, figures: str = "") -> None:
        self.done += 1
        self.failed += not good
        print(f"{'ok    ' if good else 'FAILED'} {what}{': ' if figures else ''}{figures}", flush=True)

    def equal(self, what: str, found: Tensor, expected: Tensor, rtol: float = RTOL) -> None:
        found, expected = found.detach().cpu().double(), expected.detach().cpu().double()
        finite = bool(found.isfinite().all() and expected.isfinite().all())
        scale = float(expected.abs().max()) or 1.0
        error = float((found - expected).abs().max()) / scale if finite else math.nan
        self.that(finite and error <= rtol, what, f"largest difference {error:.1e} of {scale:.3g}")

    def alike(self, what: str, found: Tensor, expected: Tensor) -> None:
        """Compare the means of two sets of draws `(n, ...)`."""
        one, two = (draws.detach().cpu().double().flatten(1) for draws in (found, expected))
        error = (one.var(0) / len(one) + two.var(0) / len(two)).sqrt().clamp_min(1e-9 * float(two.abs().max()) + 1e-12)
        z = float(((one.mean(0) - two.mean(0)).abs() / error).max())
        self.that(z <= SIGMAS, what, f"means differ by {z:.1f} standard errors at most")

    def attempt(self, what: str, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:
            self.that(False, what, traceback.format_exc())


def data(spec: DataSpec) -> Tensor:
    unit = torch.rand(spec.size, *spec.shape, generator=torch.Generator().manual_seed(1))
    x = spec.low + (spec.high - spec.low) * unit
    return x.floor() if spec.discrete else x


def cases() -> Iterator[tuple[str, Role, DataSpec, dict[str, Any]]]:
    for name, spec in itertools.product(MODELS, SPECS):
        for role in MODELS[name].roles:
            yield name, role, spec, {}
    for spec in SPECS[1:]:
        yield "vae", "gae", spec, {"encoder_net": "cnn", "decoder_net": "cnn"}
        yield "ebm", "de", spec, {"net": "cnn"}
        yield "flow", "de", spec, {"transform": "multiscale"}


def stepped(model: Model, x: Tensor, engine: Engine) -> dict[str, Tensor]:
    """Take two steps on the device, and return the losses of the second."""
    config: Any = model.config
    trainer = Trainer("model", model, config, config.optimizers(), engine, lambda *_: {}, seed=0)
    trainer.set_data(Batches(x, 64, device=engine.device), None)
    for _ in range(2):
        losses = trainer.step(torch.arange(64))
        trainer.steps_done += 1
    return losses


def check_model(check: Check, device: str, name: str, role: Role, spec: DataSpec, keys: dict[str, Any]) -> None:
    label = " ".join([name, role, spec.name, *(f"{key}={value}" for key, value in keys.items())])
    config = MODELS[name]
    small = {key: value for key, value in SMALL.items() if key in config.model_fields}
    x = data(spec)
    for precision in ("32", "bf16"):
        torch.manual_seed(0)
        chosen = config.for_data(spec, role, **{**small, **keys})
        model = chosen.build(spec)
        model.config = chosen
        before = copy.deepcopy(model.state_dict())
        engine = Engine(device, precision)  # type: ignore[arg-type]
        losses = stepped(model, x, engine)
        finite = all(bool(loss.isfinite()) for loss in losses.values())
        moved = any(not torch.equal(value.cpu(), before[key]) for key, value in model.state_dict().items())
        there = {tensor.device.type for tensor in model.state_dict().values()} == {engine.device.type}
        figures = ", ".join(f"{key} {float(loss):.4g}" for key, loss in losses.items())
        check.that(finite and moved and there, f"{label}: two steps in {precision}", figures)
        if precision == "32":
            compare(check, label, role, model, copy.deepcopy(model).cpu(), x[:64])


def compare(check: Check, label: str, role: Role, model: Model, twin: Model, x: Tensor) -> None:
    """Compare a model on the device with its twin on the CPU."""
    place = next(model.parameters()).device
    there = x.to(place)
    with evaluating(model, twin):
        if role == "gae" and isinstance(model, GeneralizedAutoencoder) and isinstance(twin, GeneralizedAutoencoder):
            z = twin.encode(x)
            check.equal(f"{label}: encode", model.encode(there), z)
            check.equal(f"{label}: decode", model.decode(z.to(place)), twin.decode(z))
            check.equal(f"{label}: log_volume", model.log_volume(z.to(place)), twin.log_volume(z))
        if role == "de" and isinstance(model, DensityEstimator) and isinstance(twin, DensityEstimator):
            inside = twin.noise.dequantize(x)
            if model.likelihood == "bound":
                one = torch.stack([model.log_prob(inside.to(place)) for _ in range(DRAWS)])
                two = torch.stack([twin.log_prob(inside) for _ in range(DRAWS)])
                check.alike(f"{label}: log_prob", one, two)
            else:
                check.equal(f"{label}: log_prob", model.log_prob(inside.to(place)), twin.log_prob(inside))
            samples = model.sample(512, torch.Generator(place).manual_seed(0))
            check.that(samples.device.type == place.type, f"{label}: samples are on the device")
            check.alike(f"{label}: sample", samples, twin.sample(512, torch.Generator().manual_seed(1)))
    if role == "de" and isinstance(model, EBM) and isinstance(twin, EBM) and len(model.event_shape) == 1:
        one, two = model.log_normalizer(200, 50), twin.log_normalizer(200, 50)
        check.that(math.isfinite(one.value), f"{label}: log_normalizer", f"{one.value:.4g} and {two.value:.4g} nats")


def check_runs(check: Check, device: str, folder: Path) -> None:
    """Compare a whole run's test on the device with the CPU's, and a resumed run with one that was never stopped."""

    def asked(gae_epochs: int) -> Request:
        run = {"dataset": "digits", "logdir_root": folder, "device": device, "test_metrics": RUN_METRICS}
        gae = {"latent_dim": 4, "max_epochs": gae_epochs}
        return Request({"gae": "ae", "de": "flow"}, {"run": run, "gae": gae, "de": {"max_epochs": 4}})

    whole = start(asked(4))
    whole.fit()
    results = whole.test()["two_step"]
    whole.run.close()
    on_cpu = load_finished(whole.run.path, device="cpu").evaluator
    for name, expected in on_cpu.measure(on_cpu.whole, RUN_METRICS).items():
        found = results[name]
        good = math.isclose(found.value, expected.value, rel_tol=5e-3)
        if found.interval is not None and expected.interval is not None:
            good = found.interval[0] <= expected.interval[1] and expected.interval[0] <= found.interval[1]
        check.that(good, f"run: {name}", f"{found.value:.6g} on the device, {expected.value:.6g} on the CPU")
    stopped = start(asked(2))
    stopped.fit()
    stopped.run.close()
    resumed = resume(stopped.run.path, max_epochs={"gae": 4})
    resumed.fit()
    weights = whole.module.gae.state_dict()
    for key, found in resumed.module.gae.state_dict().items():
        good = torch.allclose(found, weights[key], rtol=1e-3, atol=1e-4)
        exact = torch.equal(found, weights[key])
        check.that(good, f"resume: {key}", "to the last bit" if exact else "up to rounding")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    device = parser.parse_args().device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    for logger in ("twostep", "lightning.fabric", "lightning_fabric"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    print(
        f"torch {torch.__version__}, {torch.cuda.get_device_name() if device == 'cuda' else 'the CPU against itself'}"
    )
    began, check = time.monotonic(), Check()
    for name, role, spec, keys in cases():
        check.attempt(f"{name} {role} {spec.name}", partial(check_model, check, device, name, role, spec, keys))
    with tempfile.TemporaryDirectory() as folder:
        check.attempt("runs", partial(check_runs, check, device, Path(folder)))
    print(f"{check.done - check.failed} of {check.done} comparisons agree; {time.monotonic() - began:.0f} s")
    sys.exit(1 if check.failed else 0)


if __name__ == "__main__":
    main()
