"""The command line: `twostep train | train-single | evaluate | sample | report | models | datasets`.

Nothing heavy is imported before a command needs it, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from twostep import console
from twostep.schema import UserError

if TYPE_CHECKING:
    from twostep.experiment import Experiment

USER_MISTAKE, NOT_FINITE, INTERRUPTED = 2, 3, 130

Overrides = Annotated[list[str] | None, Parameter(negative=())]
Flag = Annotated[bool, Parameter(negative=())]

app = App(
    name="twostep",
    help="Two-step deep generative models: an autoencoder, then a density on its embeddings.",
    version_flags=(),
    help_format="plaintext",
)


@app.command
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
    max_epochs_loaded: int | None = None,
    max_epochs_loaded_gae: int | None = None,
    max_epochs_loaded_de: int | None = None,
    only_test: Flag = False,
    test_ood: Flag = False,
) -> int:
    """Train and test a two-step model; with --load-dir, go on with one.

    Args:
        dataset: Name of a data set (see `twostep datasets`), or path of an own .npy or .npz file.
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
        max_epochs_loaded_de: New epoch limit of the density of a loaded run.
        only_test: Do not train.
        test_ood: Test out-of-distribution detection too.
    """
    from twostep.config import parse_overrides
    from twostep.experiment import Limits, Request, resume, start

    _refuse_ood(test_ood)
    overrides = {
        "run": parse_overrides(shared_config or []),
        "gae": parse_overrides(gae_config or []),
        "de": parse_overrides(de_config or []),
    }
    limits = Limits(max_epochs_loaded, max_epochs_loaded_gae, max_epochs_loaded_de)
    if load_dir is not None and not load_pretrained_gae:
        _refuse_beside_load_dir(
            dataset=dataset, gae_model=gae_model, de_model=de_model, freeze_pretrained_gae=freeze_pretrained_gae or None
        )
        _require_kind(load_dir, two_step=True)
        return _carry_out(lambda: resume(load_dir, overrides, load_best_valid_first, limits), only_test)
    if load_pretrained_gae:
        _require(load_dir=load_dir, de_model=de_model)
        _refuse_beside_load_dir(gae_model=gae_model)
        assert load_dir is not None
        overrides["run"] = _of_pretrained(load_dir, freeze_pretrained_gae) | overrides["run"]
    elif freeze_pretrained_gae:
        raise UserError("--freeze-pretrained-gae goes with --load-dir RUN --load-pretrained-gae")
    if dataset is not None:
        overrides["run"]["dataset"] = dataset
    _require(dataset=overrides["run"].get("dataset"), de_model=de_model)
    _refuse_testing_nothing(only_test)
    models = {"de": str(de_model)}
    if not load_pretrained_gae:
        _require(gae_model=gae_model)
        models = {"gae": str(gae_model), **models}
    request = Request(models, overrides)
    return _carry_out(lambda: start(request, load_best_valid_first, limits), only_test)


@app.command
def train_single(
    *,
    dataset: str | None = None,
    model: str | None = None,
    is_gae: Flag = False,
    config: Overrides = None,
    load_dir: Path | None = None,
    load_best_valid_first: Flag = False,
    max_epochs_loaded: int | None = None,
    only_test: Flag = False,
    test_ood: Flag = False,
) -> int:
    """Train and test one model alone; with --load-dir, go on with one.

    Args:
        dataset: Name of a data set (see `twostep datasets`), or path of an own .npy or .npz file.
        model: Name of the model (see `twostep models`).
        is_gae: Take the defaults of an autoencoder for a second step, and keep its config as gae_config.json.
        config: key=value for the model or the run; may be repeated.
        load_dir: Directory of a run to finish and test.
        load_best_valid_first: Prefer the best_valid checkpoint to the latest.
        max_epochs_loaded: New epoch limit of a loaded run.
        only_test: Do not train.
        test_ood: Test out-of-distribution detection too.
    """
    from twostep.config import parse_overrides, split_single
    from twostep.experiment import Limits, Request, resume, start
    from twostep.models import MODELS
    from twostep.runs import Run

    _refuse_ood(test_ood)
    given = parse_overrides(config or [])
    if load_dir is not None:
        _refuse_beside_load_dir(dataset=dataset, model=model, is_gae=is_gae or None)
        _require_kind(load_dir, two_step=False)
        loaded = Run.open(load_dir).settings.models["model"]
        overrides = split_single(given, type(loaded), loaded.name)
        return _carry_out(
            lambda: resume(load_dir, overrides, load_best_valid_first, Limits(max_epochs_loaded)), only_test
        )
    if dataset is not None:
        given["dataset"] = dataset
    _require(dataset=given.get("dataset"), model=model)
    _refuse_testing_nothing(only_test)
    kind = MODELS[str(model)]
    overrides = split_single(given, kind, str(model))
    request = Request({"model": str(model)}, overrides, is_gae=is_gae or "de" not in kind.roles)
    return _carry_out(lambda: start(request), only_test)


@app.command
def evaluate(
    run: Path,
    *,
    config: Overrides = None,
    gae_config: Overrides = None,
    de_config: Overrides = None,
    shared_config: Overrides = None,
    load_best_valid_first: Flag = False,
) -> int:
    """Test a run again, without training it.

    Args:
        run: Its directory.
        config: key=value for the model or the run of one model alone, like test_metrics="['loss']".
        gae_config: key=value for the autoencoder of a two-step run.
        de_config: key=value for the density of a two-step run.
        shared_config: key=value for a two-step run.
        load_best_valid_first: Prefer the best_valid checkpoint to the latest.
    """
    from twostep.runs import Run

    if Run.open(run).settings.is_two_step:
        if config:
            raise UserError("--config is for a model alone: use --gae-config, --de-config or --shared-config")
        return train(
            gae_config=gae_config,
            de_config=de_config,
            shared_config=shared_config,
            load_dir=run,
            load_best_valid_first=load_best_valid_first,
            only_test=True,
        )
    if gae_config or de_config or shared_config:
        raise UserError(f"{run} is a run of one model alone: use --config")
    return train_single(config=config, load_dir=run, load_best_valid_first=load_best_valid_first, only_test=True)


@app.command
def sample(
    run: Path,
    *,
    number: Annotated[int, Parameter(name=["-n", "--number"])] = 64,
    to: Path = Path("samples.png"),
    seed: int = 0,
    load_best_valid_first: Flag = False,
) -> int:
    """Draw samples from a run's model.

    Args:
        run: Its directory.
        number: How many.
        to: A .png (a grid, for images), or a .npz (key `samples`) or .npy with arrays in units of the data.
        seed: The same seed gives the same samples.
        load_best_valid_first: Prefer the best_valid checkpoint to the latest.
    """
    import torch

    from twostep.experiment import load_module
    from twostep.models.base import DensityEstimator, evaluating
    from twostep.models.two_step import TwoStep
    from twostep.pictures import write_samples

    if number < 1:
        raise UserError(f"-n {number}: ask for at least one sample")
    module = load_module(run, load_best_valid_first)
    if not isinstance(module, DensityEstimator | TwoStep):
        raise UserError(f"{run}: an {module.config.name} has no density to sample from; train a second step on it")
    with evaluating(module):
        samples = module.sample(number, torch.Generator().manual_seed(seed))
    write_samples(samples, module.spec, to)
    console.logger.info("%d samples: %s", number, to)
    return 0


@app.command
def report(run: Path) -> int:
    """Write the page report.html of a run anew.

    Args:
        run: Its directory.
    """
    from twostep.report import write_report
    from twostep.runs import Run

    console.logger.info("report: %s", write_report(Run.open(run)))
    return 0


@app.command
def models(name: str | None = None, *, dataset: str = "fashion-mnist", role: str | None = None) -> int:
    """List the models, or the keys of one with default, type and meaning.

    Args:
        name: A model.
        dataset: Whose defaults to show: a data set's name or path, or `embeddings`.
        role: `gae` or `de`; the model's first one if it is left out.
    """
    from twostep.listing import model_keys, model_list

    _print(model_list() if name is None else model_keys(name, dataset, role))
    return 0


@app.command
def datasets(*, clear_cache: Flag = False) -> int:
    """List the data sets and where their files are looked for.

    Args:
        clear_cache: Remove the decoded arrays that are kept between runs instead.
    """
    from twostep.listing import dataset_list

    if clear_cache:
        from twostep.data import cache

        files, size = cache.clear()
        console.logger.info("removed %d files, %.0f MB", files, size / 1e6)
    else:
        _print(dataset_list())
    return 0


@app.meta.default
def launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    verbose: Annotated[bool, Parameter(name=["-v", "--verbose"], negative=())] = False,
    quiet: Annotated[bool, Parameter(name=["-q", "--quiet"], negative=())] = False,
    debug: Flag = False,
    version: Flag = False,
) -> int:
    """Run a command.

    Args:
        verbose: Say more.
        quiet: Say only what went wrong.
        debug: Show the traceback of an error.
        version: Show the version.
    """
    if version:
        from importlib.metadata import version as installed

        _print(f"twostep {installed('twostep')}")
        return 0
    level = console.VERBOSE if verbose else console.QUIET if quiet else console.NORMAL
    with console.logging_to_terminal(level):
        try:
            return int(_parse(app, tokens) or 0)
        except (UserError, CycloptsError) as error:
            return _fail(error, USER_MISTAKE, debug)
        except KeyboardInterrupt:
            console.logger.error("interrupted")
            return INTERRUPTED


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    try:
        status = int(_parse(app.meta, sys.argv[1:] if arguments is None else arguments) or 0)
    except CycloptsError as error:
        status = USER_MISTAKE
        sys.stderr.write(f"{_one_line(error)}\n")
    sys.exit(status)


def _parse(parser: App, tokens: Sequence[str]) -> Any:
    return parser(tokens, exit_on_error=False, print_error=False, result_action="return_value")


def _carry_out(prepare: Callable[[], Experiment], only_test: bool) -> int:
    """Train, test, draw and report; an interrupted or failed training leaves a run that can go on."""
    from twostep.report import write_report
    from twostep.training.trainer import InterruptedTraining, NonFiniteLossError

    experiment = prepare()
    path = experiment.run.path
    try:
        if not only_test:
            experiment.fit()
        experiment.test()
        experiment.draw()
    except NonFiniteLossError as error:
        console.logger.error("%s", error)
        return NOT_FINITE
    except (InterruptedTraining, KeyboardInterrupt):
        command = "train" if experiment.settings.is_two_step else "train-single"
        console.logger.error("interrupted; go on with: twostep %s --load-dir %s", command, path)
        return INTERRUPTED
    finally:
        experiment.run.close()
    if experiment.engine.is_main:
        console.logger.info("report: %s", write_report(experiment.run))
    return 0


def _of_pretrained(path: Path, freeze: bool) -> dict[str, Any]:
    """Return the keys of the run that follow from a pretrained autoencoder: its data, and their split."""
    from twostep.runs import Run

    earlier = Run.open(path).settings.run
    kept = earlier.model_dump(include={"dataset", "data_root", "seed", "make_valid_loader"})
    return {**kept, "pretrained_gae": path.resolve(), "freeze_pretrained_gae": freeze}


def _require_kind(path: Path, two_step: bool) -> None:
    from twostep.runs import Run

    if Run.open(path).settings.is_two_step != two_step:
        raise UserError(
            f"{path} is a run of one model alone: use single_main.py or `twostep train-single`, or add "
            "--load-pretrained-gae"
            if two_step
            else f"{path} is a two-step run: use main.py or `twostep train`"
        )


def _require(**flags: Any) -> None:
    missing = [f"--{name.replace('_', '-')}" for name, value in flags.items() if value is None]
    if missing:
        raise UserError(f"missing: {', '.join(missing)}; see --help")


def _refuse_beside_load_dir(**flags: Any) -> None:
    given = [f"--{name.replace('_', '-')}" for name, value in flags.items() if value is not None]
    if given:
        raise UserError(f"{', '.join(given)}: not beside --load-dir: the run in that directory has its own")


def _refuse_testing_nothing(only_test: bool) -> None:
    if only_test:
        raise UserError("--only-test needs a trained model: add --load-dir RUN")


def _refuse_ood(test_ood: bool) -> None:
    if test_ood:
        raise UserError("--test-ood: not yet: this version has loss, l2_reconstruction_error and log_likelihood")


def _fail(error: Exception, status: int, debug: bool) -> int:
    console.logger.error("%s", _one_line(error), exc_info=error if debug else None)
    return status


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
