"""A finished run in Python: its module alone, or with its trainer and its data."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, cast

from twostep.data.batches import Batches
from twostep.experiment.prepare import HERE, Place, build_models, trained
from twostep.experiment.weights import put_weights, refuse_untrained
from twostep.models.base import DensityEstimator, GeneralizedAutoencoder, Model
from twostep.models.two_step import TwoStep
from twostep.runs.directory import Run, tags
from twostep.training.trainer import Trainer


def load_module(path: Path, best_first: bool = False) -> Model | TwoStep:
    """Return a run's trained model on the CPU, in eval mode, without its data: the best weights it has.

    Raises:
        UserError: for a directory that is no run, has no checkpoint, a damaged one, or one with an untrained model.
    """
    run = Run.open(path)
    state = run.load(*tags(best_first))
    models = build_models(run.settings, run.spec)
    steps = {part: state.values.get(f"{part}.steps_done", 0) for part in models if run.settings.trains(part)}
    refuse_untrained(path, steps, best_first)
    for part, model in models.items():
        put_weights(model, state.under(part), f"{path}: the checkpoint is of another {part} than the config describes")
        model.eval()
    if run.settings.is_two_step:
        return TwoStep(cast(GeneralizedAutoencoder, models["gae"]), cast(DensityEstimator, models["de"])).eval()
    return models["model"]


class TwoStepTrainers(NamedTuple):
    """The trainers of a two-step run; a frozen autoencoder has none."""

    gae: Trainer | None
    de: Trainer


class LoadedRun(NamedTuple):
    """A run in Python: `module, trainer, (train, valid, test) = load_run(path)`."""

    module: Model | TwoStep
    trainer: Trainer | TwoStepTrainers
    loaders: tuple[Batches, Batches | None, Batches]

    def __getitem__(self, key: Any) -> Any:
        """Return an entry by its name too, as `load_run(path)["module"]`."""
        return self._asdict()[key] if isinstance(key, str) else tuple.__getitem__(self, key)


def load_run(run_dir: str | Path, best_first: bool = False, place: Place = HERE) -> LoadedRun:
    """Load a run: its module in eval mode with its best weights, its trainer, and its data in batches.

    Args:
        run_dir: directory of a one-step or two-step run.
        best_first: prefer the `best_valid` checkpoint to `latest`.
        place: device and data, where they are not those of its start.

    Raises:
        UserError: as `trained` does.
    """
    experiment = trained(Path(run_dir), best_first, place)
    config, splits, trainers = experiment.settings.run, experiment.splits, experiment.trainers
    loaders = (
        experiment.batches(splits.train, config.train_batch_size),
        None if splits.valid is None else experiment.batches(splits.valid, config.valid_batch_size),
        experiment.batches(splits.test, config.test_batch_size),
    )
    two_step = experiment.settings.is_two_step
    trainer = TwoStepTrainers(trainers.get("gae"), trainers["de"]) if two_step else trainers["model"]
    return LoadedRun(experiment.module.eval(), trainer, loaders)
