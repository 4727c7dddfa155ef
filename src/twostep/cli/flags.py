"""Flags that several commands have, and checks of flags that exclude or require each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from twostep.core.schema import UserError
from twostep.runs.key_values import parse_overrides

BESIDE_LOAD_DIR = "not with --load-dir, whose run has its own: leave it out"
TWICE = "not with the key of the same name: give one of them"
WITHOUT_LOAD_DIR = "only for a run that exists: add --load-dir RUN"

RENAMED = {"epochs": "max_epochs", "batch_size": "train_batch_size", "minutes": "max_minutes", "logger": "loggers"}
"""Keys of flags that are called otherwise."""

FLAG = Parameter(negative=())
Flag = Annotated[bool, FLAG]
Count = Annotated[int | None, Parameter(validator=Number(gte=1))]
Names = Annotated[list[str] | None, Parameter(negative=(), consume_multiple=True)]
Overrides = Annotated[list[str] | None, FLAG]

GaeConfig = Annotated[Overrides, Parameter(help="key=value for the autoencoder of a two-step run; may be repeated.")]
DeConfig = Annotated[Overrides, Parameter(help="key=value for the density of a two-step run; may be repeated.")]
SharedConfig = Annotated[Overrides, Parameter(help="key=value for a two-step run; may be repeated.")]
SingleConfig = Annotated[
    Overrides, Parameter(help="key=value for a single model or its run, like test_metrics=loss; may be repeated.")
]
Dataset = Annotated[
    str | None, Parameter(help="Dataset: a name (see `twostep datasets`), or path of an array, a table or images.")
]
LoadDir = Annotated[Path | None, Parameter(help="Directory of a run to resume and test.")]
MaxEpochs = Annotated[Count, Parameter(help="New epoch limit of a loaded run.")]
OnlyTest = Annotated[bool, FLAG, Parameter(help="Do not train.")]
TestOOD = Annotated[
    bool,
    FLAG,
    Parameter(help="Test also whether scores separate the test rows from another dataset (key ood_dataset)."),
]
RunPath = Annotated[Path, Parameter(help="Directory of the run.")]
BestFirst = Annotated[bool, FLAG, Parameter(help="Prefer the best_valid checkpoint to the latest.")]
Device = Annotated[
    Literal["auto", "cpu", "cuda"] | None, Parameter(help="Where to compute, if not where the run was trained.")
]
DataPath = Annotated[
    Path | None, Parameter(help="Where the run's data are now: their file or folder, or the folder of datasets.")
]
Seed = Annotated[int, Parameter(validator=Number(gte=0, lt=2**63), help="Seed of all random draws.")]
ConfigFile = Annotated[
    list[Path] | None,
    FLAG,
    Parameter(help="A .yaml, .json or .toml file of keys, or the directory of a run; flags win. May be repeated."),
]
PrintConfig = Annotated[bool, FLAG, Parameter(help="Print all keys, as a config file has them, and train nothing.")]
Force = Annotated[bool, FLAG, Parameter(help="Replace existing files.")]


def _check_latent_dim(_: type, value: str | None) -> None:
    if value is not None and value != "auto" and not (value.isdecimal() and int(value) > 0):
        raise ValueError("must be a positive integer, or auto")


@Parameter(name="*")
@dataclass(frozen=True)
class Table:
    """Flags for the keys of a dataset, `dataset_kwargs`; those for columns of a table set the key of their name.

    Args:
        dataset_kwargs: key=value for the dataset, like image_size=64; may be repeated.
        columns: Columns of a table to read, as a,b,c; default: all.
        drop: Columns of a table to leave out, as a,b.
        target_column: Column of labels of a table, which is not modelled.
        index_column: Column that names the rows of a table, which is not modelled.
    """

    dataset_kwargs: Overrides = None
    columns: str | None = None
    drop: str | None = None
    target_column: str | None = None
    index_column: str | None = None

    @property
    def keys(self) -> dict[str, Any]:
        """The keys of the dataset that are given."""
        columns = {key: value for key, value in vars(self).items() if key != "dataset_kwargs" and value is not None}
        return {**parse_overrides(self.dataset_kwargs or []), **columns}

    def add_to(self, run: dict[str, Any]) -> None:
        """Add what is given to the `dataset_kwargs` among the keys of a run."""
        if given := self.keys:
            run["dataset_kwargs"] = {**run.get("dataset_kwargs", {}), **given}

    def typed(self) -> list[str]:
        """Return what is given as the words of a command."""
        given = {f"--{key.replace('_', '-')}": value for key, value in vars(self).items() if value is not None}
        pairs = [(flag, one) for flag, value in given.items() for one in ([value] if isinstance(value, str) else value)]
        return [word for pair in pairs for word in pair]


NO_TABLE = Table()


@Parameter(name="*")
@dataclass(frozen=True)
class MostUsed:
    """Flags for the most used keys of a new run.

    Args:
        seed: Seed of all random numbers (key seed).
        epochs: Epochs to train each model for (key max_epochs).
        latent_dim: Latent coordinates of the autoencoder: a number, or auto (key latent_dim).
        batch_size: Rows of a training batch (key train_batch_size).
        lr: Learning rate of each model (key lr).
        minutes: Minutes to train for at most, all models together (key max_minutes).
        logger: Service that curves and results go to (key loggers); may be repeated.
        to: Directory to make for the run; default: a new one in logdir_root, named by the time.
    """

    seed: Annotated[int | None, Parameter(validator=Number(gte=0, lt=2**64))] = None
    epochs: Count = None
    latent_dim: Annotated[str | None, Parameter(validator=_check_latent_dim)] = None
    batch_size: Count = None
    lr: float | None = None
    minutes: Annotated[float | None, Parameter(validator=Number(gt=0))] = None
    logger: Annotated[list[Literal["wandb", "mlflow"]] | None, FLAG] = None
    to: Path | None = None

    def add_to(self, run: dict[str, Any], models: Mapping[str, dict[str, Any]], flag: str) -> None:
        """Add the keys to those given as `key=value`: of the run by `flag`, and of each model by part.

        Without `models` all are in one, those of `flag`.

        Raises:
            UserError: for a key that is given in both ways.
        """
        of_run = {"seed": self.seed, "batch_size": self.batch_size, **self._of_any_run}
        of_models = {"epochs": self.epochs, "lr": self.lr}
        size = self.latent_dim and (int(self.latent_dim) if self.latent_dim.isdecimal() else self.latent_dim)
        _add(of_run, run, flag)
        if not models:
            _add({**of_models, "latent_dim": size}, run, flag)
        for part, keys in models.items():
            _refuse_twice(of_models, run, flag)
            _add({**of_models, "latent_dim": size if part == "gae" else None}, keys, f"--{part}-config")

    def add_to_loaded(self, run: dict[str, Any], flag: str) -> None:
        """Add the keys that can change in a run that exists, and refuse the others."""
        _add(self._of_any_run, run, flag)
        refuse("for a new run only; for more epochs of this one: --max-epochs-loaded N", epochs=self.epochs)
        others = {name: value for name, value in vars(self).items() if name not in ("epochs", *self._of_any_run)}
        refuse("can't be changed in a run that exists: leave it out, or start a new run", **others)

    @property
    def _of_any_run(self) -> dict[str, Any]:
        return {"minutes": self.minutes, "logger": self.logger}


NONE_USED = MostUsed()


def _add(direct: Mapping[str, Any], keys: dict[str, Any], flag: str) -> None:
    _refuse_twice(direct, keys, flag)
    keys |= {RENAMED.get(name, name): value for name, value in direct.items() if value is not None}


def _refuse_twice(direct: Mapping[str, Any], keys: Mapping[str, Any], flag: str) -> None:
    for name, value in direct.items():
        key = RENAMED.get(name, name)
        if value is not None and key in keys:
            raise UserError(f"--{name.replace('_', '-')}: not with {flag} {key}={keys[key]}: give one of them")


def require(**flags: Any) -> None:
    """Refuse a command in which one of these flags is None."""
    missing = [f"--{name.replace('_', '-')}" for name, value in flags.items() if value is None]
    if missing:
        raise UserError(f"missing: {', '.join(missing)}; see --help")


def refuse(reason: str, **flags: Any) -> None:
    """Refuse a command in which one of these flags is given, with the reason."""
    given = [f"--{name.replace('_', '-')}" for name, value in flags.items() if value not in (None, False)]
    if given:
        raise UserError(f"{', '.join(given)}: {reason}")
