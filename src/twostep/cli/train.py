"""The commands that train: `train`, `train-single`."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from twostep.cli import flags
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
    dataset: flags.Dataset = None,
    gae_model: str | None = None,
    de_model: str | None = None,
    gae_config: flags.GaeConfig = None,
    de_config: flags.DeConfig = None,
    shared_config: flags.SharedConfig = None,
    load_dir: flags.LoadDir = None,
    load_best_valid_first: flags.BestFirst = False,
    load_pretrained_gae: flags.Flag = False,
    freeze_pretrained_gae: flags.Flag = False,
    max_epochs_loaded: flags.MaxEpochs = None,
    max_epochs_loaded_gae: flags.Count = None,
    max_epochs_loaded_de: flags.Count = None,
    only_test: flags.OnlyTest = False,
    test_ood: flags.TestOOD = False,
    table: flags.Table = flags.NO_TABLE,
) -> int:
    """Train and test a two-step model, or resume one with --load-dir.

    Args:
        gae_model: Autoencoder (see `twostep models`).
        de_model: Density on its embeddings (see `twostep models`).
        load_pretrained_gae: Start a new run with the autoencoder of the run in --load-dir.
        freeze_pretrained_gae: Do not train that autoencoder further.
        max_epochs_loaded_gae: New epoch limit of the autoencoder of a loaded run.
        max_epochs_loaded_de: New epoch limit of the density of a loaded run; epochs of a new one.
    """
    from twostep.experiment.prepare import start
    from twostep.runs.directory import Run
    from twostep.runs.overrides import Request, parse_overrides, share

    run, gae, de = (parse_overrides(items or []) for items in (shared_config, gae_config, de_config))
    for key in ("pretrained_gae", "freeze_pretrained_gae"):
        if key in run:
            raise UserError(f"{key}: set by a flag: --load-dir RUN --load-pretrained-gae [--freeze-pretrained-gae]")
    if "dataset" in run:
        flags.refuse(flags.TWICE, dataset=dataset)
    if load_dir is not None:
        flags.refuse(flags.BESIDE_LOAD_DIR, **asdict(table))
    elif table != flags.NO_TABLE:
        table.add_to(run.setdefault("dataset_kwargs", {}))
    limits = {"max_epochs_loaded": max_epochs_loaded, "max_epochs_loaded_gae": max_epochs_loaded_gae}
    of_models = {"gae": max_epochs_loaded_gae or max_epochs_loaded, "de": max_epochs_loaded_de or max_epochs_loaded}
    max_epochs = {name: limit for name, limit in of_models.items() if limit is not None}
    if load_dir is not None and not load_pretrained_gae:
        flags.refuse(flags.BESIDE_LOAD_DIR, dataset=dataset, gae_model=gae_model, de_model=de_model)
        flags.refuse("only with --load-pretrained-gae", freeze_pretrained_gae=freeze_pretrained_gae)
        stored = Run.open(load_dir)
        if not stored.settings.two_step:
            raise UserError(
                f"{load_dir} is a run of a single model: use single_main.py or `twostep train-single`, or add "
                "--load-pretrained-gae"
            )
        if stored.settings.freezes_gae and max_epochs_loaded_gae is None:
            max_epochs.pop("gae", None)
        return resume_run(stored, share(run, gae=gae, de=de), load_best_valid_first, max_epochs, only_test, test_ood)
    if load_pretrained_gae:
        flags.require(load_dir=load_dir, de_model=de_model)
        assert load_dir is not None
        flags.refuse(flags.BESIDE_LOAD_DIR, gae_model=gae_model)
        flags.refuse("the density is new and must be trained", only_test=only_test)
        if max_epochs_loaded_de is not None:
            if "max_epochs" in de:
                flags.refuse("conflicts with --de-config max_epochs", max_epochs_loaded_de=max_epochs_loaded_de)
            de["max_epochs"] = max_epochs_loaded_de
        if freeze_pretrained_gae:
            flags.refuse("conflicts with --freeze-pretrained-gae, which trains the autoencoder no further", **limits)
        source = Run.open(load_dir)
        of_its_data = {"dataset", "dataset_kwargs", "data_root", "seed", "make_valid_loader"}
        run = {
            **source.settings.run.model_dump(include=of_its_data),
            **{"pretrained_gae": source.path.resolve(), "freeze_pretrained_gae": freeze_pretrained_gae},
            **run,
        }
        overrides, models = {**share(run, de=de), "gae": gae}, {"de": str(de_model)}
    else:
        flags.refuse("only with --load-dir RUN --load-pretrained-gae", freeze_pretrained_gae=freeze_pretrained_gae)
        limits |= {"max_epochs_loaded_de": max_epochs_loaded_de}
        given = {"only_test": only_test, "load_best_valid_first": load_best_valid_first}
        flags.refuse(flags.WITHOUT_LOAD_DIR, **given, **limits)
        flags.require(dataset=dataset or run.get("dataset"), gae_model=gae_model, de_model=de_model)
        overrides, models = share(run, gae=gae, de=de), {"gae": str(gae_model), "de": str(de_model)}
    if dataset is not None:
        overrides["run"]["dataset"] = dataset
    request = Request(models, overrides)
    return _carry_out(lambda: start(request, load_best_valid_first, max_epochs, test_ood), only_test=False)


def train_single(
    *,
    dataset: flags.Dataset = None,
    model: str | None = None,
    is_gae: flags.Flag = False,
    config: flags.SingleConfig = None,
    load_dir: flags.LoadDir = None,
    load_best_valid_first: flags.BestFirst = False,
    max_epochs_loaded: flags.MaxEpochs = None,
    only_test: flags.OnlyTest = False,
    test_ood: flags.TestOOD = False,
    table: flags.Table = flags.NO_TABLE,
) -> int:
    """Train and test a single model, or resume one with --load-dir.

    Args:
        model: Name of the model (see `twostep models`).
        is_gae: Use the defaults of an autoencoder for a second step, and store its config as gae_config.json.
    """
    from twostep.experiment.prepare import start
    from twostep.models import MODELS
    from twostep.runs.directory import Run
    from twostep.runs.overrides import Request, parse_overrides, split_single

    given = parse_overrides(config or [])
    if load_dir is not None:
        flags.refuse(flags.BESIDE_LOAD_DIR, dataset=dataset, model=model, is_gae=is_gae, **asdict(table))
        run = Run.open(load_dir)
        if run.settings.two_step:
            raise UserError(f"{load_dir} is a two-step run: use main.py or `twostep train`")
        overrides = split_single(given, type(run.settings.first), run.settings.first.name)
        max_epochs = {} if max_epochs_loaded is None else {"model": max_epochs_loaded}
        return resume_run(run, overrides, load_best_valid_first, max_epochs, only_test, test_ood)
    flags.refuse(
        flags.WITHOUT_LOAD_DIR,
        only_test=only_test,
        load_best_valid_first=load_best_valid_first,
        max_epochs_loaded=max_epochs_loaded,
    )
    if "dataset" in given:
        flags.refuse(flags.TWICE, dataset=dataset)
    if dataset is not None:
        given["dataset"] = dataset
    if table != flags.NO_TABLE:
        table.add_to(given.setdefault("dataset_kwargs", {}))
    flags.require(dataset=given.get("dataset"), model=model)
    kind = MODELS[str(model)]
    request = Request({"model": str(model)}, split_single(given, kind, str(model)), is_gae or "de" not in kind.roles)
    return _carry_out(lambda: start(request, test_ood=test_ood), only_test=False)


def resume_run(
    run: Run,
    overrides: Mapping[str, Mapping[str, Any]],
    best_first: bool,
    max_epochs: Mapping[str, int],
    only_test: bool,
    test_ood: bool,
) -> int:
    """Resume a run, or test it again, and return the exit status."""
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
    run, is_main = experiment.run, experiment.engine.is_main
    if is_main:
        log_to_files(run.path)
    for config in (experiment.settings.run, *experiment.settings.models.values()):
        logger.debug("%r", config)
    command = ["twostep", "train" if experiment.settings.two_step else "train-single", "--load-dir", str(run.path)]
    command += [*(["--only-test"] if only_test else []), *(["--test-ood"] if experiment.ood else [])]
    resuming = f"resume with: {shlex.join(command)}"
    try:
        if not only_test:
            experiment.fit()
        experiment.test()
        experiment.draw()
        if is_main:
            logger.info("report: %s", write_report(run))
    except NonFiniteLossError as error:  # of the mean over ranks
        if is_main:
            logger.error("%s%s", error, "; the last checkpoint is intact" if run.has_checkpoint() else "")
        return FAILED
    except (WriteError, LostRankError) as error:
        if not is_main:
            raise
        logger.error("%s; %s", error, resuming)
        return FAILED
    except Interrupted as stop:
        if is_main:
            logger.error("interrupted by %s; %s", stop.signal_name, resuming)
        return stop.status
    finally:
        run.close()
    return 0
