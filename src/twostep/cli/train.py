"""The commands that train and test: `train`, `train-single`, `evaluate`."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from twostep.cli.options import (
    BESIDE_LOAD_DIR,
    SEEDS,
    TWICE,
    WITHOUT_LOAD_DIR,
    Count,
    Devices,
    Flag,
    Names,
    Overrides,
    refuse,
    refuse_keys_of_flags,
    require,
)
from twostep.core.console import log_to_files
from twostep.core.files import WriteError
from twostep.core.schema import LostRankError, UserError
from twostep.core.signals import Interrupted

if TYPE_CHECKING:
    from twostep.experiment.experiment import Experiment

FAILED = 3

logger = logging.getLogger("twostep")


def train(
    *,
    dataset: str | None = None,
    gae_model: str | None = None,
    de_model: str | None = None,
    gae_config: Overrides = None,
    de_config: Overrides = None,
    shared_config: Overrides = None,
    load_dir: Path | None = None,
    load_best_valid_first: Flag = False,
    load_pretrained_gae: Flag = False,
    freeze_pretrained_gae: Flag = False,
    max_epochs_loaded: Count = None,
    max_epochs_loaded_gae: Count = None,
    max_epochs_loaded_de: Count = None,
    only_test: Flag = False,
    test_ood: Flag = False,
) -> int:
    """Train and test a two-step model; with --load-dir, go on with one.

    Args:
        dataset: Name of a data set, path of an own array, table or folder of pictures (see `twostep datasets`).
        gae_model: Autoencoder (see `twostep models`).
        de_model: Density on its embeddings (see `twostep models`).
        gae_config: key=value for the autoencoder; may be repeated.
        de_config: key=value for the density; may be repeated.
        shared_config: key=value for the run; may be repeated.
        load_dir: Directory of a run to finish and test.
        load_best_valid_first: Prefer the best_valid checkpoint to the latest.
        load_pretrained_gae: --load-dir holds an autoencoder alone; start a new run on its embeddings.
        freeze_pretrained_gae: Do not train that autoencoder further.
        max_epochs_loaded: New epoch limit of both models of a loaded run.
        max_epochs_loaded_gae: New epoch limit of the autoencoder of a loaded run.
        max_epochs_loaded_de: New epoch limit of the density of a loaded run; epochs of a new one.
        only_test: Do not train.
        test_ood: Test too whether its densities tell the test rows from another data set (key ood_dataset).
    """
    from twostep.experiment.prepare import require_checkpoint, resume, start
    from twostep.runs.config import parse_overrides
    from twostep.runs.request import Limits, Request, share

    overrides = {
        "run": parse_overrides(shared_config or []),
        "gae": parse_overrides(gae_config or []),
        "de": parse_overrides(de_config or []),
    }
    refuse_keys_of_flags(overrides["run"])
    if "dataset" in overrides["run"]:
        refuse(TWICE, dataset=dataset)
    limits = Limits(max_epochs_loaded, max_epochs_loaded_gae, max_epochs_loaded_de)
    if load_pretrained_gae:
        require(load_dir=load_dir, de_model=de_model)
        refuse(BESIDE_LOAD_DIR, gae_model=gae_model)
        refuse("the density is new: no test without training it", only_test=only_test)
        if max_epochs_loaded_de is not None:
            if "max_epochs" in overrides["de"]:
                refuse("not beside --de-config max_epochs", max_epochs_loaded_de=max_epochs_loaded_de)
            overrides["de"]["max_epochs"] = max_epochs_loaded_de
        if freeze_pretrained_gae:
            frozen = {"max_epochs_loaded": max_epochs_loaded, "max_epochs_loaded_gae": max_epochs_loaded_gae}
            refuse("not beside --freeze-pretrained-gae, which trains the autoencoder no further", **frozen)
        assert load_dir is not None
        overrides["run"] = _of_pretrained(load_dir, freeze_pretrained_gae) | overrides["run"]
        overrides = {**share(overrides, ["de"]), "gae": overrides["gae"]}
    elif load_dir is not None:
        overrides = share(overrides, ["gae", "de"])
        refuse(BESIDE_LOAD_DIR, dataset=dataset, gae_model=gae_model, de_model=de_model)
        refuse("goes with --load-pretrained-gae", freeze_pretrained_gae=freeze_pretrained_gae)
        _require_kind(load_dir, two_step=True)
        if only_test:
            require_checkpoint(load_dir)
        return _carry_out(lambda: resume(load_dir, overrides, load_best_valid_first, limits, True, test_ood), only_test)
    else:
        refuse("goes with --load-dir RUN --load-pretrained-gae", freeze_pretrained_gae=freeze_pretrained_gae)
        refuse(
            WITHOUT_LOAD_DIR,
            only_test=only_test,
            load_best_valid_first=load_best_valid_first,
            max_epochs_loaded=max_epochs_loaded,
            max_epochs_loaded_gae=max_epochs_loaded_gae,
            max_epochs_loaded_de=max_epochs_loaded_de,
        )
        overrides = share(overrides, ["gae", "de"])
        require(dataset=dataset or overrides["run"].get("dataset"), gae_model=gae_model, de_model=de_model)
    if dataset is not None:
        overrides["run"]["dataset"] = dataset
    models = {"de": str(de_model)} if load_pretrained_gae else {"gae": str(gae_model), "de": str(de_model)}
    request = Request(models, overrides)
    return _carry_out(lambda: start(request, load_best_valid_first, limits, test_ood), only_test=False)


def train_single(
    *,
    dataset: str | None = None,
    model: str | None = None,
    is_gae: Flag = False,
    config: Overrides = None,
    load_dir: Path | None = None,
    load_best_valid_first: Flag = False,
    max_epochs_loaded: Count = None,
    only_test: Flag = False,
    test_ood: Flag = False,
) -> int:
    """Train and test one model alone; with --load-dir, go on with one.

    Args:
        dataset: Name of a data set, path of an own array, table or folder of pictures (see `twostep datasets`).
        model: Name of the model (see `twostep models`).
        is_gae: Take the defaults of an autoencoder for a second step, and keep its config as gae_config.json.
        config: key=value for the model or the run; may be repeated.
        load_dir: Directory of a run to finish and test.
        load_best_valid_first: Prefer the best_valid checkpoint to the latest.
        max_epochs_loaded: New epoch limit of a loaded run.
        only_test: Do not train.
        test_ood: Test too whether its densities tell the test rows from another data set (key ood_dataset).
    """
    from twostep.experiment.prepare import require_checkpoint, resume, start
    from twostep.models import MODELS
    from twostep.runs.config import parse_overrides, split_single
    from twostep.runs.directory import Run
    from twostep.runs.request import Limits, Request

    given = parse_overrides(config or [])
    if load_dir is not None:
        refuse(BESIDE_LOAD_DIR, dataset=dataset, model=model, is_gae=is_gae)
        _require_kind(load_dir, two_step=False)
        if only_test:
            require_checkpoint(load_dir)
        loaded = Run.open(load_dir).settings.models["model"]
        overrides = split_single(given, type(loaded), loaded.name)
        limits = Limits(max_epochs_loaded)
        return _carry_out(lambda: resume(load_dir, overrides, load_best_valid_first, limits, True, test_ood), only_test)
    refuse(
        WITHOUT_LOAD_DIR,
        only_test=only_test,
        load_best_valid_first=load_best_valid_first,
        max_epochs_loaded=max_epochs_loaded,
    )
    if "dataset" in given:
        refuse(TWICE, dataset=dataset)
    if dataset is not None:
        given["dataset"] = dataset
    require(dataset=given.get("dataset"), model=model)
    kind = MODELS[str(model)]
    overrides = split_single(given, kind, str(model))
    request = Request({"model": str(model)}, overrides, is_gae=is_gae or "de" not in kind.roles)
    return _carry_out(lambda: start(request, test_ood=test_ood), only_test=False)


def evaluate(
    run: Path,
    *,
    metrics: Names = None,
    part: str | None = None,
    samples: Count = None,
    features: str | None = None,
    ood: Names = None,
    check_density: Flag = False,
    seed: Annotated[int | None, Parameter(validator=SEEDS)] = None,
    config: Overrides = None,
    gae_config: Overrides = None,
    de_config: Overrides = None,
    shared_config: Overrides = None,
    load_best_valid_first: Flag = False,
    test_ood: Flag = False,
    device: Devices = None,
    data: Path | None = None,
) -> int:
    """Measure a finished run; without --metrics, --ood and --check-density, do its own test again.

    Args:
        run: Its directory.
        metrics: Metrics to measure, after the fact: --metrics fd kid.
        part: What to measure: model; or gae, de or two_step.
        samples: How many samples are compared, with as many rows of data at most.
        features: Features that samples are compared in (key features of metric_kwargs).
        ood: Data sets, by name or path, that the run's own is to be told from.
        check_density: Integrate the density: is it one?
        seed: Of all that is drawn; the same seed gives the same digits.
        config: key=value for the model or the run of one model alone, like test_metrics="['loss']".
        gae_config: key=value for the autoencoder of a two-step run.
        de_config: key=value for the density of a two-step run.
        shared_config: key=value for a two-step run.
        load_best_valid_first: Prefer the best_valid checkpoint to the latest.
        test_ood: Test too whether its densities tell the test rows from another data set (key ood_dataset).
        device: Where to compute, if not where the run was trained.
        data: Where the run's data are now: their file or folder, or the folder of data sets.
    """
    from twostep.analysis.evaluate import Questions, assess
    from twostep.cli.tables import result_list
    from twostep.experiment.prepare import Place
    from twostep.runs.directory import Run

    keys = {name: value for name, value in (("gen_samples", samples), ("features", features)) if value is not None}
    questions = Questions(tuple(metrics or ()), part, keys, tuple(ood or ()), check_density, seed)
    if questions.any:
        own = {"config": config, "gae_config": gae_config, "de_config": de_config, "shared_config": shared_config}
        refuse("goes with the run's own test: leave out --metrics, --ood and --check-density", **own, test_ood=test_ood)
        place = Place(device, data)
        _, path = assess(
            run, questions, load_best_valid_first, place, lambda found: sys.stdout.write(f"{result_list(found)}\n")
        )
        logger.info("results: %s", path)
        return 0
    refuse("goes with --metrics, --ood or --check-density", part=part, samples=samples, features=features, seed=seed)
    settings = Run.open(run).settings
    two_step = settings.is_two_step
    place = [f"{key}={str(value)!r}" for key, value in Place(device, data).keys(settings.run).items()]
    if two_step and config:
        raise UserError("--config is for a model alone: use --gae-config, --de-config or --shared-config")
    if not two_step and (gae_config or de_config or shared_config):
        raise UserError(f"{run} is a run of one model alone: use --config")
    again: dict[str, Any] = {
        "load_dir": run,
        "load_best_valid_first": load_best_valid_first,
        "only_test": True,
        "test_ood": test_ood,
    }
    if two_step:
        return train(
            gae_config=gae_config, de_config=de_config, shared_config=[*(shared_config or []), *place], **again
        )
    return train_single(config=[*(config or []), *place], **again)


def _carry_out(prepare: Callable[[], Experiment], only_test: bool) -> int:
    """Train, test, draw and report; an interrupted or failed training leaves a run that can go on."""
    from twostep.analysis.report import write_report
    from twostep.training.trainer import NonFiniteLossError

    experiment = prepare()
    path = experiment.run.path
    if experiment.engine.is_main:
        log_to_files(path)
    for config in (experiment.settings.run, *experiment.settings.models.values()):
        logger.debug("%r", config)
    try:
        if not only_test:
            experiment.fit()
        experiment.test()
        experiment.draw()
        if experiment.engine.is_main:
            logger.info("report: %s", write_report(experiment.run))
    except NonFiniteLossError as error:  # of the mean over ranks
        if experiment.engine.is_main:
            saved = "; what was saved before is good" if experiment.run.has_checkpoint() else ""
            logger.error("%s%s", error, saved)
        return FAILED
    except (WriteError, LostRankError) as error:
        if not experiment.engine.is_main:
            raise
        logger.error("%s; resume with: %s", error, _resuming(experiment, only_test))
        return FAILED
    except Interrupted as stop:
        if experiment.engine.is_main:
            logger.error("interrupted by %s; resume with: %s", stop.signal_name, _resuming(experiment, only_test))
        return stop.status
    finally:
        experiment.run.close()
    return 0


def _resuming(experiment: Experiment, only_test: bool) -> str:
    """Return the command that goes on where a run was stopped."""
    command = "train" if experiment.settings.is_two_step else "train-single"
    flags = [*(["--only-test"] if only_test else []), *(["--test-ood"] if experiment.ood else [])]
    return shlex.join(["twostep", command, "--load-dir", str(experiment.run.path), *flags])


def _of_pretrained(path: Path, freeze: bool) -> dict[str, Any]:
    """Return the keys of the run that follow from a pretrained autoencoder: its data, and their split."""
    from twostep.runs.directory import Run

    earlier = Run.open(path).settings.run
    kept = earlier.model_dump(include={"dataset", "dataset_kwargs", "data_root", "seed", "make_valid_loader"})
    return {**kept, "pretrained_gae": path.resolve(), "freeze_pretrained_gae": freeze}


def _require_kind(path: Path, two_step: bool) -> None:
    from twostep.runs.directory import Run

    if Run.open(path).settings.is_two_step != two_step:
        raise UserError(
            f"{path} is a run of one model alone: use single_main.py or `twostep train-single`, or add "
            "--load-pretrained-gae"
            if two_step
            else f"{path} is a two-step run: use main.py or `twostep train`"
        )
