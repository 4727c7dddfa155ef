"""The command `evaluate`: measures of a finished run."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from twostep.cli.options import SEEDS, Count, Devices, Flag, Names, Overrides, refuse
from twostep.cli.train import train, train_single
from twostep.core.schema import UserError

logger = logging.getLogger("twostep")


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
    """Measure a finished run; without --metrics, --ood and --check-density, repeat its own test.

    Args:
        run: Directory of the run.
        metrics: Metrics to measure: --metrics fd kid.
        part: What to measure: model; or gae, de or two_step.
        samples: Number of samples to compare, with as many rows of data at most.
        features: Features in which samples are compared (key features of metric_kwargs).
        ood: Datasets, by name or path, to detect as out-of-distribution.
        check_density: Check whether the density is normalised, by integrating it.
        seed: Seed of all random draws.
        config: key=value for a single model or its run, like test_metrics="['loss']".
        gae_config: key=value for the autoencoder of a two-step run.
        de_config: key=value for the density of a two-step run.
        shared_config: key=value for a two-step run.
        load_best_valid_first: Prefer the best_valid checkpoint to the latest.
        test_ood: Test also whether scores separate the test rows from another dataset (key ood_dataset).
        device: Where to compute, if not where the run was trained.
        data: Where the run's data are now: their file or folder, or the folder of datasets.
    """
    from twostep.analysis.evaluate import EvaluationRequest, evaluate_run
    from twostep.cli.tables import result_list
    from twostep.experiment.resolve import moved
    from twostep.runs.directory import Run

    keys = {name: value for name, value in (("gen_samples", samples), ("features", features)) if value is not None}
    request = EvaluationRequest(tuple(metrics or ()), part, keys, tuple(ood or ()), check_density, seed)
    configs = {"config": config, "gae_config": gae_config, "de_config": de_config, "shared_config": shared_config}
    if request.any:
        refuse("only without --metrics, --ood and --check-density", **configs, test_ood=test_ood)
        _, path = evaluate_run(
            run,
            request,
            load_best_valid_first,
            device,
            data,
            lambda found: sys.stdout.write(f"{result_list(found)}\n"),
        )
        logger.info("results: %s", path)
        return 0
    refuse("only with --metrics, --ood or --check-density", part=part, samples=samples, features=features, seed=seed)
    settings = Run.open(run).settings
    place = [f"{key}={str(value)!r}" for key, value in moved(settings.run, device, data).items()]
    if settings.two_step:
        if config:
            raise UserError("--config is for a single model: use --gae-config, --de-config or --shared-config")
        shared_config = [*(shared_config or []), *place]
        return train(
            load_dir=run,
            gae_config=gae_config,
            de_config=de_config,
            shared_config=shared_config,
            load_best_valid_first=load_best_valid_first,
            only_test=True,
            test_ood=test_ood,
        )
    if gae_config or de_config or shared_config:
        raise UserError(f"{run} is a run of a single model: use --config")
    return train_single(
        load_dir=run,
        config=[*(config or []), *place],
        load_best_valid_first=load_best_valid_first,
        only_test=True,
        test_ood=test_ood,
    )
