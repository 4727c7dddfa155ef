"""The command `evaluate`: measures of a finished run."""

from __future__ import annotations

import logging

from twostep.cli import early, flags
from twostep.cli.output import show
from twostep.cli.train import resume_run, single_overrides
from twostep.core.schema import UserError
from twostep.runs.key_values import parse_overrides, share
from twostep.runs.summary import RunSummary

logger = logging.getLogger("twostep")


def evaluate(
    run: flags.RunPath,
    *,
    metrics: flags.Names = None,
    part: str | None = None,
    samples: flags.Count = None,
    features: str | None = None,
    ood: flags.Names = None,
    check_density: flags.Flag = False,
    seed: flags.Seed | None = None,
    config: flags.SingleConfig = None,
    gae_config: flags.GaeConfig = None,
    de_config: flags.DeConfig = None,
    shared_config: flags.SharedConfig = None,
    load_best_valid_first: flags.BestFirst = False,
    test_ood: flags.TestOOD = False,
    device: flags.Device = None,
    data: flags.DataPath = None,
) -> int:
    """Measure a finished run; without --metrics, --ood and --check-density, repeat its own test.

    Args:
        metrics: Metrics to measure: --metrics fd kid.
        part: What to measure: model; or gae, de or two_step.
        samples: Number of samples to compare, with as many rows of data at most.
        features: Features in which samples are compared (key features of metric_kwargs).
        ood: Datasets, by name or path, to detect as out-of-distribution.
        check_density: Check whether the density is normalised, by integrating it.
    """
    stored = RunSummary.read(run)
    early.check_metric_names(metrics or [])
    for name in ood or []:
        early.check_dataset(name)
    two_step = {"gae_config": gae_config, "de_config": de_config, "shared_config": shared_config}
    if metrics or ood or check_density:
        flags.refuse("only without --metrics, --ood and --check-density", config=config, **two_step, test_ood=test_ood)
        from twostep.analysis.evaluate import evaluate_run
        from twostep.cli.tables import result_list

        keys = {name: value for name, value in (("gen_samples", samples), ("features", features)) if value is not None}
        _, path = evaluate_run(
            run,
            *(metrics or [], ood or [], check_density, part, keys, seed, load_best_valid_first, device, data),
            show=lambda found: show(result_list(found), found),
        )
        logger.info("results: %s", path)
        return 0
    flags.refuse(
        "only with --metrics, --ood or --check-density", part=part, samples=samples, features=features, seed=seed
    )
    if "de" in stored.models:
        if config:
            raise UserError("--config is for a single model: use --gae-config, --de-config or --shared-config")
        shared, gae, de = (parse_overrides(items or []) for items in (shared_config, gae_config, de_config))
        overrides = share(shared, gae=gae, de=de)
        early.check_keys(stored.models, overrides)
        early.check_adjustable(stored.models, overrides)
    else:
        if gae_config or de_config or shared_config:
            raise UserError(f"{run} is a run of a single model: use --config")
        overrides = single_overrides(run, parse_overrides(config or []))

    from twostep.experiment.resolve import moved
    from twostep.runs.directory import Run

    overrides["run"] |= moved(Run.open(run).settings.run, device, data)
    return resume_run(run, overrides, load_best_valid_first, {}, True, test_ood)
