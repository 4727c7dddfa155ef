"""Flags that several commands have, and checks of flags that exclude or require each other."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from twostep.core.schema import UserError

BESIDE_LOAD_DIR = "not with --load-dir, whose run has its own: leave it out"
TWICE = "not with the key of the same name: give one of them"
WITHOUT_LOAD_DIR = "only for a run that exists: add --load-dir RUN"

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
Force = Annotated[bool, FLAG, Parameter(help="Replace existing files.")]


@Parameter(name="*")
@dataclass(frozen=True)
class Table:
    """Flags for the columns of a table; each sets the key of `dataset_kwargs` of its name.

    Args:
        columns: Columns of a table to read, as a,b,c; default: all.
        drop: Columns of a table to leave out, as a,b.
        target_column: Column of labels of a table, which is not modelled.
        index_column: Column that names the rows of a table, which is not modelled.
    """

    columns: str | None = None
    drop: str | None = None
    target_column: str | None = None
    index_column: str | None = None

    def add_to(self, keys: dict[str, Any]) -> None:
        """Add what is given to the keys of a dataset."""
        keys |= {key: value for key, value in asdict(self).items() if value is not None}


NO_TABLE = Table()


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
