"""The commands that train: `train`, `train-single`."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twostep.cli import early, flags
from twostep.cli.config_file import BY_FLAG, read_config_files, to_config_file
from twostep.cli.output import plain_values, show
from twostep.core.console import log_to_files
from twostep.core.files import WriteError
from twostep.core.schema import LostRankError, UserError
from twostep.core.signals import Interrupted
from twostep.runs.key_values import parse_overrides, share
from twostep.runs.summary import RunSummary

if TYPE_CHECKING:
    from twostep.experiment.experiment import Experiment
    from twostep.runs.overrides import Request

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
    config_file: flags.ConfigFile = None,
    print_config: flags.PrintConfig = False,
    most_used: flags.MostUsed = flags.NONE_USED,
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
    run, gae, de = (parse_overrides(items or []) for items in (shared_config, gae_config, de_config))
    for key in BY_FLAG:
        if key in run:
            raise UserError(f"{key}: set by a flag: --load-dir RUN --load-pretrained-gae [--freeze-pretrained-gae]")
    if "dataset" in run:
        flags.refuse(flags.TWICE, dataset=dataset)
    if load_dir is not None:
        flags.refuse(flags.BESIDE_LOAD_DIR, **asdict(table))
    limits = {"max_epochs_loaded": max_epochs_loaded, "max_epochs_loaded_gae": max_epochs_loaded_gae}
    of_models = {"gae": max_epochs_loaded_gae or max_epochs_loaded, "de": max_epochs_loaded_de or max_epochs_loaded}
    max_epochs = {name: limit for name, limit in of_models.items() if limit is not None}
    if load_dir is not None and not load_pretrained_gae:
        flags.refuse(flags.BESIDE_LOAD_DIR, dataset=dataset, gae_model=gae_model, de_model=de_model)
        flags.refuse(flags.BESIDE_LOAD_DIR, config_file=config_file, print_config=print_config)
        most_used.add_to_loaded(run, "--shared-config")
        flags.refuse("only with --load-pretrained-gae", freeze_pretrained_gae=freeze_pretrained_gae)
        source = RunSummary.read(load_dir)
        if "de" not in source.models:
            raise UserError(
                f"{load_dir} is a run of a single model: use single_main.py or `twostep train-single`, or add "
                "--load-pretrained-gae"
            )
        overrides = share(run, gae=gae, de=de)
        early.check_keys(source.models, overrides)
        early.check_adjustable(source.models, overrides)
        if source.keys.get("freeze_pretrained_gae") and max_epochs_loaded_gae is None:
            max_epochs.pop("gae", None)
        return resume_run(load_dir, overrides, load_best_valid_first, max_epochs, only_test, test_ood)
    stored = read_config_files(config_file or [], two_step=True)
    de_model = de_model or stored.names.get("de_model")
    most_used.add_to(run, {"de": de} if load_pretrained_gae else {"gae": gae, "de": de}, "--shared-config")
    if load_pretrained_gae:
        flags.require(load_dir=load_dir, de_model=de_model)
        assert load_dir is not None
        flags.refuse(flags.BESIDE_LOAD_DIR, gae_model=gae_model)
        flags.refuse("that of the autoencoder in --load-dir: leave it out", latent_dim=most_used.latent_dim)
        flags.refuse("the density is new and must be trained", only_test=only_test)
        if max_epochs_loaded_de is not None:
            if "max_epochs" in de:
                flags.refuse("conflicts with --de-config max_epochs", max_epochs_loaded_de=max_epochs_loaded_de)
            de["max_epochs"] = max_epochs_loaded_de
        if freeze_pretrained_gae:
            flags.refuse("conflicts with --freeze-pretrained-gae, which trains the autoencoder no further", **limits)
        models, of_its_data = {"de": str(de_model)}, _data_of(load_dir)
        run = {
            **of_its_data,
            "pretrained_gae": load_dir.resolve(),
            "freeze_pretrained_gae": freeze_pretrained_gae,
            **run,
        }
    else:
        flags.refuse("only with --load-dir RUN --load-pretrained-gae", freeze_pretrained_gae=freeze_pretrained_gae)
        limits |= {"max_epochs_loaded_de": max_epochs_loaded_de}
        given = {"only_test": only_test, "load_best_valid_first": load_best_valid_first}
        flags.refuse(flags.WITHOUT_LOAD_DIR, **given, **limits)
        gae_model = gae_model or stored.names.get("gae_model")
        named = dataset or run.get("dataset") or stored.keys["shared_config"].get("dataset")
        flags.require(dataset=named, gae_model=gae_model, de_model=de_model)
        models = {"gae": str(gae_model), "de": str(de_model)}
    in_files = share(stored.keys["shared_config"], gae=stored.keys["gae_config"], de=stored.keys["de_config"])
    overrides = {part: {**in_files[part], **keys} for part, keys in share(run, gae=gae, de=de).items()}
    table.add_to(overrides["run"])
    if load_pretrained_gae:
        overrides["gae"] = gae  # keys of a run that exists, which shares none
    if dataset is not None:
        overrides["run"]["dataset"] = dataset
    early.check_request(models, overrides)

    from twostep.experiment.prepare import start
    from twostep.runs.overrides import Request

    request = Request(models, overrides, to=most_used.to)
    if print_config:
        return _print_config(request)
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
    config_file: flags.ConfigFile = None,
    print_config: flags.PrintConfig = False,
    most_used: flags.MostUsed = flags.NONE_USED,
) -> int:
    """Train and test a single model, or resume one with --load-dir.

    Args:
        model: Name of the model (see `twostep models`).
        is_gae: Use the defaults of an autoencoder for a second step, and store its config as gae_config.json.
    """
    given = parse_overrides(config or [])
    if load_dir is not None:
        flags.refuse(flags.BESIDE_LOAD_DIR, dataset=dataset, model=model, is_gae=is_gae, **asdict(table))
        flags.refuse(flags.BESIDE_LOAD_DIR, config_file=config_file, print_config=print_config)
        most_used.add_to_loaded(given, "--config")
        return resume_run(
            *(load_dir, single_overrides(load_dir, given), load_best_valid_first),
            *({} if max_epochs_loaded is None else {"model": max_epochs_loaded}, only_test, test_ood),
        )
    flags.refuse(
        flags.WITHOUT_LOAD_DIR,
        only_test=only_test,
        load_best_valid_first=load_best_valid_first,
        max_epochs_loaded=max_epochs_loaded,
    )
    if "dataset" in given:
        flags.refuse(flags.TWICE, dataset=dataset)
    stored = read_config_files(config_file or [], two_step=False)
    most_used.add_to(given, {}, "--config")
    given = {**stored.keys["config"], **given, **({} if dataset is None else {"dataset": dataset})}
    table.add_to(given)
    model, is_gae = model or stored.names.get("model"), is_gae or stored.names.get("is_gae") is True
    flags.require(dataset=given.get("dataset"), model=model)
    early.check_single(str(model), given, is_gae)

    from twostep.experiment.prepare import start
    from twostep.models import MODELS
    from twostep.runs.overrides import Request, split_single

    kind = MODELS[str(model)]
    overrides = split_single(given, kind, str(model))
    request = Request({"model": str(model)}, overrides, is_gae or "de" not in kind.roles, most_used.to)
    if print_config:
        return _print_config(request)
    return _carry_out(lambda: start(request, test_ood=test_ood), only_test=False)


def single_overrides(path: Path, given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Split overrides for a run of a single model into those of the run and those of its model."""
    stored = RunSummary.read(path)
    if "de" in stored.models:
        raise UserError(f"{path} is a two-step run: use main.py or `twostep train`")
    early.check_single_keys(stored.title, given)
    overrides = early.split_single(given)
    early.check_adjustable(stored.models, overrides)
    return overrides


def resume_run(
    path: Path,
    overrides: Mapping[str, Mapping[str, Any]],
    best_first: bool,
    max_epochs: Mapping[str, int],
    only_test: bool,
    test_ood: bool,
) -> int:
    """Resume a run, or test it again, and return the exit status."""
    from twostep.experiment.load import require_checkpoint
    from twostep.experiment.prepare import resume
    from twostep.runs.directory import Run

    if only_test:
        require_checkpoint(Run.open(path))
    return _carry_out(lambda: resume(path, overrides, best_first, max_epochs, True, test_ood), only_test)


def _data_of(path: Path) -> dict[str, Any]:
    """Return the keys of a run's data."""
    from twostep.runs.directory import Run

    keys = {"dataset", "dataset_kwargs", "data_root", "seed", "make_valid_loader"}
    return Run.open(path).settings.run.model_dump(include=keys)


def _print_config(request: Request) -> int:
    """Print all keys of a new run, as a config file holds them, and make none."""
    import yaml

    from twostep.experiment.prepare import settings_of

    settings = settings_of(request)
    names = {part: config.name for part, config in settings.models.items()}
    values = to_config_file(names, settings.files(), settings.is_gae)
    show(yaml.safe_dump(plain_values(values), sort_keys=False, allow_unicode=True).rstrip(), values)
    return 0


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
        results = experiment.test()
        experiment.draw()
        if is_main:
            logger.info("report: %s", write_report(run))
            show(None, {"run": run.path, "test": results})
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
