"""The tables of `twostep models`, `datasets` and `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

from twostep.cli.output import Listing, table
from twostep.core.keys import AUTO
from twostep.core.result import Result
from twostep.core.schema import DataSpec, Frozen
from twostep.data.base import DATASETS
from twostep.data.load import default_data_root, load_data
from twostep.data.synthetic import SYNTHETIC
from twostep.models import MODELS
from twostep.models.base import DensityEstimator, Role
from twostep.models.two_step import latent_spec
from twostep.runs.config import TwoStepRunConfig
from twostep.runs.overrides import config_class

EMBEDDINGS = "embeddings"
MODEL_COLUMNS = ("model", "roles", "density", "what it is", "paper")


def model_list() -> Listing:
    """Return a table of all models."""
    return Listing(MODEL_COLUMNS, model_rows())


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


def model_keys(name: str, dataset: str, role: Role | None) -> Listing:
    """Return a table of a model's keys with default, type and meaning, for a dataset and a role.

    Raises:
        UserError: for an unknown model or dataset, or a role that the model can't play.
    """
    role = role or MODELS[name].roles[0]
    values = config_class(name, role).for_data(_spec(dataset), role)
    return Listing(("key", f"default for {dataset}", "type", "meaning"), _key_rows(values))


def shared_keys() -> Listing:
    """Return a table of the keys of a run (`--shared-config`) with default, type and meaning."""
    rows = _key_rows(TwoStepRunConfig.parse({"dataset": ""}, "the run"))
    return Listing(("key of the run", "default", "type", "meaning"), [row for row in rows if row[0] != "dataset"])


def dataset_keys(name: str) -> Listing:
    """Return a table of a dataset's keys with default, type and meaning."""
    keys = DATASETS[name].keys
    if not keys.model_fields:
        return Listing((), [], f"{name} has no keys")
    return Listing(("key of dataset_kwargs", "default", "type", "meaning"), _key_rows(keys.parse({}, name)))


def dataset_list() -> Listing:
    """Return a table of all datasets and the folder that holds their files."""
    loaders = [DATASETS[name] for name in DATASETS]
    rows = [(loader.name, "x".join(map(str, loader.shape)), loader.description, loader.files) for loader in loaders]
    own = [
        ("PATH.npy, PATH.npz", "any", "an array file: `train` and `test`, or one array that is split", "the path"),
        ("PATH.csv, PATH.parquet", "any", "a table of numbers, which is split", "the path"),
        ("FOLDER", "any", "images, of one size or resized by the key image_size", "the folder"),
        ("OWNER/NAME", "any", "a dataset of images on the hub; key image_size", "the hub"),
    ]
    place = f"data_root: {default_data_root().resolve()}"
    return Listing(("dataset", "shape", "description", "files"), [*rows, *own], place)


def own_data(name: str, kwargs: Mapping[str, Any]) -> Listing:
    """Return what a file or folder of the user's holds: the kind of each column of a table, else the shape of a row.

    Raises:
        UserError: if it can't be read, with everything that is wrong.
    """
    spec = load_data(name, make_valid=False, kwargs=kwargs).spec
    shape = "x".join(map(str, spec.shape))
    about = f"{spec.size:,} training rows of shape {shape}, values {spec.low:g} to {spec.high:g}"
    rows = [
        (
            *(one.name, one.kind, "yes" if one.gaps else "", f"{len(one.levels):,}" if one.nominal else ""),
            f"{one.omitted}{f' of {one.repeats}' * bool(one.repeats)}: not modelled" if one.omitted else "",
        )
        for one in (spec.columns.columns if spec.columns else ())
    ]
    return Listing(("column", "kind", "missing values", "levels", "note"), rows, about)


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
    kept = [place for place in range(len(columns)) if any(row[place] for row in rows)]
    shown = table([columns[place] for place in kept], [[row[place] for place in kept] for row in rows])
    noted: dict[str, list[str]] = {}
    for name, one in results.items():
        for piece in one.note.split("; ") if one.note else ():
            noted.setdefault(piece, []).append(name)
    return "\n".join([shown, *(f"{_named(names, results)}: {piece}" for piece, names in noted.items())])


def _named(names: list[str], results: Mapping[str, Result]) -> str:
    return "all" if 1 < len(names) == len(results) else ", ".join(names)


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
    if origin is dict:
        return "dictionary"
    if arguments:
        return " | ".join(_type_name(argument) for argument in arguments)
    return "None" if annotation is type(None) else annotation.__name__
