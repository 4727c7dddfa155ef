"""The tables of `twostep models`, `datasets`, `evaluate` and `compare`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from rich.console import Console
from rich.table import Table

from twostep.core.schema import DataSpec, Frozen, UserError
from twostep.data.base import DATASETS
from twostep.data.load import default_data_root, load_data
from twostep.data.synthetic import SYNTHETIC
from twostep.metrics import Result
from twostep.models import MODELS
from twostep.models.base import DensityEstimator, Role
from twostep.models.parts.networks import AUTO
from twostep.models.two_step import latent_spec
from twostep.runs.directory import Run
from twostep.runs.overrides import config_class

EMBEDDINGS = "embeddings"
MODEL_COLUMNS = ("model", "roles", "density", "what it is", "paper")
PIPE_WIDTH = 100_000  # in a file or a pipe, a row is a line


def model_list() -> str:
    """Return a table of all models."""
    return _table(MODEL_COLUMNS, model_rows())


def model_rows() -> list[tuple[str, ...]]:
    """Return name, roles, kind of density, meaning and source of each model."""
    rows: list[tuple[str, ...]] = []
    for name in sorted(MODELS):
        config, density = MODELS[name], "none"
        if "de" in config.roles:
            model = config.for_data(_spec(EMBEDDINGS), "de").build(_spec(EMBEDDINGS))
            assert isinstance(model, DensityEstimator)
            density = model.likelihood
        rows.append((name, ", ".join(config.roles), density, config.summary, config.paper))
    return rows


def model_keys(name: str, dataset: str, role: Role | None) -> str:
    """Return a table of a model's keys with default, type and meaning, for a dataset and a role.

    Raises:
        UserError: for an unknown model or dataset, or a role that the model can't play.
    """
    role = role or MODELS[name].roles[0]
    values = config_class(name, role).for_data(_spec(dataset), role)
    return _table(("key", f"default for {dataset}", "type", "meaning"), _key_rows(values))


def dataset_keys(name: str) -> str:
    """Return a table of a dataset's keys with default, type and meaning."""
    keys = DATASETS[name].keys
    if not keys.model_fields:
        return f"{name} has no keys"
    return _table(("key of dataset_kwargs", "default", "type", "meaning"), _key_rows(keys.parse({}, name)))


def dataset_list() -> str:
    """Return a table of all datasets and the folder that holds their files."""
    loaders = [DATASETS[name] for name in DATASETS]
    rows = [(loader.name, "x".join(map(str, loader.shape)), loader.description, loader.files) for loader in loaders]
    own = [
        ("PATH.npy, PATH.npz", "any", "an array file: `train` and `test`, or one array that is split", "the path"),
        ("PATH.csv, PATH.parquet", "any", "a table of numbers, which is split", "the path"),
        ("FOLDER", "any", "images, of one size or resized by the key image_size", "the folder"),
        ("OWNER/NAME", "any", "a dataset of images on the hub; key image_size", "the hub"),
    ]
    table = _table(("dataset", "shape", "description", "files"), [*rows, *own])
    return f"{table}\ndata_root: {default_data_root().resolve()}"


def result_list(results: Mapping[str, Result]) -> str:
    """Return a table of results, each with unit, kind and measure; notes follow below."""
    columns = ("metric", "value", "± error [95 %]", "held-out data", "unit", "kind", "measure", "n")
    rows = [
        (
            *(name, one.shown, one.uncertainty, "" if one.reference is None else f"{one.reference:.6g}"),
            *(one.unit, one.kind, one.measure, f"{one.n:,}"),
        )
        for name, one in results.items()
    ]
    notes = [f"{name}: {one.note}" for name, one in results.items() if one.note]
    return "\n".join([_table(columns, rows), *notes])


def comparison(runs: Sequence[Path]) -> str:
    """Return a table of the test results of runs, with a row for each component.

    A column holds results of one unit, kind and measure: a bound is never listed with exact densities.

    Raises:
        UserError: for a directory that is no run, or was not tested.
    """
    rows: list[tuple[str, str, dict[tuple[str, ...], str]]] = []
    for path in runs:
        run = Run.open(path)
        tested = run.read_metrics("test")
        if not tested:
            raise UserError(f"{path}: was not tested: twostep evaluate {path}")
        names = {part: config.name for part, config in run.settings.models.items()}
        for part, results in tested.items():
            cells = {
                (name, one.unit, one.kind, one.measure): f"{one.shown} {one.uncertainty}".strip()
                for name, one in results.items()
            }
            rows.append((str(path), names.get(part, " + ".join(names.values())), cells))
    found = list(dict.fromkeys(column for *_, cells in rows for column in cells))
    columns = sorted(found, key=lambda column: [name for name, *_ in found].index(column[0]))
    heads = ["\n".join(text for text in column if text) for column in columns]
    table = [(path, model, *(cells.get(column, "") for column in columns)) for path, model, cells in rows]
    return _table(("run", "model", *heads), table)


def _key_rows(values: Frozen) -> list[tuple[str, ...]]:
    return [
        (
            *(key, _shown(getattr(values, key))),
            _type_name(field.annotation) + (f" | {AUTO!r}" if key == "latent_dim" else ""),
            field.description or "",
        )
        for key, field in type(values).model_fields.items()
        if key != "name"
    ]


def _shown(value: Any) -> str:
    if isinstance(value, Frozen):
        return repr(value.model_dump())
    return repr(list(value)) if isinstance(value, tuple) else repr(value)


def _spec(dataset: str) -> DataSpec:
    if dataset == EMBEDDINGS:
        return latent_spec(DataSpec(name="data", shape=(1,), size=1, low=0, high=1), 20)
    if dataset in DATASETS and dataset not in SYNTHETIC:
        return DataSpec(name=dataset, shape=DATASETS[dataset].shape, size=1, low=0, high=255, discrete=True)
    return load_data(dataset).spec


def _type_name(annotation: Any) -> str:
    """Return a type as a user writes it: `int`, `list of int`, `"adam" | "sgd"`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_name(arguments[0])
    if origin is Literal:
        return " | ".join(repr(value) for value in arguments)
    if origin is tuple:
        return f"list of {_type_name(arguments[0])}"
    if arguments:
        return " | ".join(_type_name(argument) for argument in arguments)
    return "None" if annotation is type(None) else annotation.__name__


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*row)
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, markup=False, emoji=False, highlight=False)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())
