"""The commands that train: `train`, `train-single`."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twostep.cli.options import (
    BESIDE_LOAD_DIR,
    TWICE,
    WITHOUT_LOAD_DIR,
    Count,
    Flag,
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
    from twostep.runs.directory import Run

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
    """Train and test a two-step model, or resume one with --load-dir.

    Args:
        dataset: Name of a dataset, or path of an array, a table or a folder of images (see `twostep datasets`).
        gae_model: Autoencoder (see `twostep models`).
        de_model: Density on its embeddings (see `twostep models`).
        gae_config: key=value for the autoencoder; may be repeated.
        de_config: key=value for the density; may be repeated.
        shared_config: key=value for the run; may be repeated.
        load_dir: Directory of a run to resume and test.
        load_best_valid_first: Prefer the best_valid checkpoint to the latest.
        load_pretrained_gae: Start a new run with the autoencoder of the run in --load-dir.
        freeze_pretrained_gae: Do not train that autoencoder further.
        max_epochs_loaded: New epoch limit of both models of a loaded run.
        max_epochs_loaded_gae: New epoch limit of the autoencoder of a loaded run.
        max_epochs_loaded_de: New epoch limit of the density of a loaded run; epochs of a new one.
        only_test: Do not train.
        test_ood: Test also whether scores separate the test rows from another dataset (key ood_dataset).
    """
    from twostep.experiment.prepare import start
    from twostep.runs.directory import Run
    from twostep.runs.overrides import Request, parse_overrides, share

    overrides = {
        "run": parse_overrides(shared_config or []),
        "gae": parse_overrides(gae_config or []),
        "de": parse_overrides(de_config or []),
    }
    refuse_keys_of_flags(overrides["run"])
    if "dataset" in overrides["run"]:
        refuse(TWICE, dataset=dataset)
    limits = {"gae": max_epochs_loaded_gae or max_epochs_loaded, "de": max_epochs_loaded_de or max_epochs_loaded}
    max_epochs = {name: limit for name, limit in limits.items() if limit is not None}
    if load_dir is not None and not load_pretrained_gae:
        refuse(BESIDE_LOAD_DIR, dataset=dataset, gae_model=gae_model, de_model=de_model)
        refuse("only with --load-pretrained-gae", freeze_pretrained_gae=freeze_pretrained_gae)
        run = Run.open(load_dir)
        if not run.settings.two_step:
            raise UserError(
                f"{load_dir} is a run of a single model: use single_main.py or `twostep train-single`, or add "
                "--load-pretrained-gae"
            )
        if run.settings.freezes_gae and max_epochs_loaded_gae is None:
            max_epochs.pop("gae", None)
        return _resume(run, share(overrides, ["gae", "de"]), load_best_valid_first, max_epochs, only_test, test_ood)
    if load_pretrained_gae:
        require(load_dir=load_dir, de_model=de_model)
        refuse(BESIDE_LOAD_DIR, gae_model=gae_model)
        refuse("the density is new and must be trained", only_test=only_test)
        if max_epochs_loaded_de is not None:
            if "max_epochs" in overrides["de"]:
                refuse("conflicts with --de-config max_epochs", max_epochs_loaded_de=max_epochs_loaded_de)
            overrides["de"]["max_epochs"] = max_epochs_loaded_de
        if freeze_pretrained_gae:
            frozen = {"max_epochs_loaded": max_epochs_loaded, "max_epochs_loaded_gae": max_epochs_loaded_gae}
            refuse("conflicts with --freeze-pretrained-gae, which trains the autoencoder no further", **frozen)
        assert load_dir is not None
        overrides["run"] = _of_pretrained(Run.open(load_dir), freeze_pretrained_gae) | overrides["run"]
        overrides = {**share(overrides, ["de"]), "gae": overrides["gae"]}
        models = {"de": str(de_model)}
    else:
        refuse("only with --load-dir RUN --load-pretrained-gae", freeze_pretrained_gae=freeze_pretrained_gae)
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
        models = {"gae": str(gae_model), "de": str(de_model)}
    if dataset is not None:
        overrides["run"]["dataset"] = dataset
    request = Request(models, overrides)
    return _carry_out(lambda: start(request, load_best_valid_first, max_epochs, test_ood), only_test=False)


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
    """Train and test a single model, or resume one with --load-dir.

    Args:
        dataset: Name of a dataset, or path of an array, a table or a folder of images (see `twostep datasets`).
        model: Name of the model (see `twostep models`).
        is_gae: Use the defaults of an autoencoder for a second step, and store its config as gae_config.json.
        config: key=value for the model or the run; may be repeated.
        load_dir: Directory of a run to resume and test.
        load_best_valid_first: Prefer the best_valid checkpoint to the latest.
        max_epochs_loaded: New epoch limit of a loaded run.
        only_test: Do not train.
        test_ood: Test also whether scores separate the test rows from another dataset (key ood_dataset).
    """
    from twostep.experiment.prepare import start
    from twostep.models import MODELS
    from twostep.runs.directory import Run
    from twostep.runs.overrides import Request, parse_overrides, split_single

    given = parse_overrides(config or [])
    if load_dir is not None:
        refuse(BESIDE_LOAD_DIR, dataset=dataset, model=model, is_gae=is_gae)
        run = Run.open(load_dir)
        if run.settings.two_step:
            raise UserError(f"{load_dir} is a two-step run: use main.py or `twostep train`")
        loaded = run.settings.models["model"]
        overrides = split_single(given, type(loaded), loaded.name)
        max_epochs = {} if max_epochs_loaded is None else {"model": max_epochs_loaded}
        return _resume(run, overrides, load_best_valid_first, max_epochs, only_test, test_ood)
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


def _resume(
    run: Run,
    overrides: dict[str, dict[str, Any]],
    best_first: bool,
    max_epochs: dict[str, int],
    only_test: bool,
    test_ood: bool,
) -> int:
    from twostep.experiment.load import require_checkpoint
    from twostep.experiment.prepare import resume

    if only_test:
        require_checkpoint(run)
    return _carry_out(lambda: resume(run.path, overrides, best_first, max_epochs, True, test_ood), only_test)


def _carry_out(prepare: Callable[[], Experiment], only_test: bool) -> int:
    """Train, test, draw and report; an interrupted or failed training leaves a run that can be resumed."""
    from twostep.analysis.report import write_report
    from twostep.training.callbacks import NonFiniteLossError

    experiment = prepare()
    path, is_main = experiment.run.path, experiment.engine.is_main
    if is_main:
        log_to_files(path)
    for config in (experiment.settings.run, *experiment.settings.models.values()):
        logger.debug("%r", config)
    try:
        if not only_test:
            experiment.fit()
        experiment.test()
        experiment.draw()
        if is_main:
            logger.info("report: %s", write_report(experiment.run))
    except NonFiniteLossError as error:  # of the mean over ranks
        if is_main:
            saved = "; the last checkpoint is intact" if experiment.run.has_checkpoint() else ""
            logger.error("%s%s", error, saved)
        return FAILED
    except (WriteError, LostRankError) as error:
        if not is_main:
            raise
        logger.error("%s; resume with: %s", error, _resuming(experiment, only_test))
        return FAILED
    except Interrupted as stop:
        if is_main:
            logger.error("interrupted by %s; resume with: %s", stop.signal_name, _resuming(experiment, only_test))
        return stop.status
    finally:
        experiment.run.close()
    return 0


def _resuming(experiment: Experiment, only_test: bool) -> str:
    """Return the command that resumes a run."""
    command = "train" if experiment.settings.two_step else "train-single"
    flags = [*(["--only-test"] if only_test else []), *(["--test-ood"] if experiment.ood else [])]
    return shlex.join(["twostep", command, "--load-dir", str(experiment.run.path), *flags])


def _of_pretrained(run: Run, freeze: bool) -> dict[str, Any]:
    """Return the keys of a run that follow from its pretrained autoencoder: the data, and their split."""
    keys = {"dataset", "dataset_kwargs", "data_root", "seed", "make_valid_loader"}
    kept = run.settings.run.model_dump(include=keys)
    return {**kept, "pretrained_gae": run.path.resolve(), "freeze_pretrained_gae": freeze}
