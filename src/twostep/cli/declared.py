"""Names and keys that the source declares, read without importing it: torch takes seconds, and a refusal should not.

Configs are found by their class statements, so this is never out of date; what can't be evaluated without their modules
(a type of their own, a validator) is left to the configs themselves.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import pydantic
from pydantic import create_model

import twostep
from twostep.core import keys, schema
from twostep.core.schema import Frozen

PACKAGE = Path(twostep.__file__).parent
CONFIGS = ("core/keys.py", "nn/transforms.py", "models", "models/parts", "runs/config.py")
DATA = ("data/named.py", "data/synthetic")
METRICS = ("metrics/rows.py", "metrics/samples/table.py", "metrics/ood/ood.py")


class Declared(NamedTuple):
    """A config class: bases, fields with the text of their types, those with a validator, other names of fields, ..."""

    bases: tuple[str, ...]
    fields: dict[str, str]
    validated: set[str]  # only the config itself knows what it accepts
    aliases: dict[str, tuple[str, ...]]
    roles: tuple[str, ...]
    model: str | None


@functools.cache
def model_roles() -> dict[str, tuple[str, ...]]:
    """Return the roles of each model by name."""
    return {one.model: _roles(name) for name, one in _classes().items() if one.model}


@functools.cache
def model_keys(model: str) -> type[Frozen]:
    """Return a config of a model's keys, as far as their types are known."""
    return _config(next(name for name, one in _classes().items() if one.model == model))


@functools.cache
def run_keys(two_step: bool) -> type[Frozen]:
    """Return a config of a run's keys, as far as their types are known."""
    return _config("TwoStepRunConfig" if two_step else "RunConfig")


@functools.cache
def dataset_names() -> frozenset[str]:
    """Return the names of datasets."""
    found: set[str] = set()
    for node in (node for tree in _trees(DATA) for node in tree.body):
        calls: list[ast.AST] = [node.value] if isinstance(node, ast.Expr) else []
        calls += node.decorator_list if isinstance(node, ast.ClassDef) else []
        if isinstance(node, ast.For) and isinstance(node.iter, ast.Tuple):  # of classes, names and more
            found |= {text for one in node.iter.elts if isinstance(one, ast.Tuple) for text in _texts(one.elts[1])}
        for call in calls:
            while isinstance(call, ast.Call):  # the name is the first argument of the innermost call
                found |= (
                    _texts(call.args[0]) if call.args and isinstance(call.func, ast.Name | ast.Attribute) else set()
                )
                call = call.func
    return frozenset(found)


@functools.cache
def metric_names() -> frozenset[str]:
    """Return the names of metrics."""
    found: set[str] = set()
    for tree in _trees(METRICS):
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _called(node) in ("SampleMetric", "OODAccuracy") and node.args:
                found |= _texts(node.args[0])
            if isinstance(node, ast.ClassDef):
                found |= {text for one in node.body if isinstance(one, ast.Assign) for text in _named(one, "name")}
    return frozenset(found)


@functools.cache
def _classes() -> dict[str, Declared]:
    nodes = [node for tree in _trees(CONFIGS) for node in tree.body if isinstance(node, ast.ClassDef)]
    return {node.name: _declared(node) for node in nodes if node.name.endswith(("Config", "Keys"))}


def _declared(node: ast.ClassDef) -> Declared:
    fields: dict[str, str] = {}
    aliases: dict[str, tuple[str, ...]] = {}
    validated: set[str] = set()
    roles: tuple[str, ...] = ()
    for line in node.body:
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            name, kind = line.target.id, ast.unparse(line.annotation)
            if name == "roles" and line.value is not None:
                roles = tuple(ast.literal_eval(line.value))
            if kind.startswith("ClassVar"):
                continue
            fields[name] = kind
            if isinstance(line.value, ast.Call) and (others := _other_names(line.value)):
                aliases[name] = others
        elif isinstance(line, ast.FunctionDef):
            for one in (one for one in line.decorator_list if isinstance(one, ast.Call)):
                if _called(one) == "field_validator":
                    validated |= {text for argument in one.args for text in _texts(argument)}
    calls = [one for one in node.decorator_list if isinstance(one, ast.Call) and one.args]
    names = [text for one in calls for text in _texts(one.args[0])]
    bases = tuple(base.id for base in node.bases if isinstance(base, ast.Name))
    return Declared(bases, fields, validated, aliases, roles, names[0] if names else None)


def _other_names(field: ast.Call) -> tuple[str, ...]:
    """Return the other names of a field; they may lie in a constant of the module."""
    for given in (one.value for one in field.keywords if one.arg == "validation_alias"):
        choices = _constants().get(given.id) if isinstance(given, ast.Name) else given
        if isinstance(choices, ast.Call):
            return tuple(text for one in choices.args for text in _texts(one))
    return ()


@functools.cache
def _constants() -> dict[str, ast.expr]:
    """Return what the modules of configs assign to names, as types of several keys."""
    return {
        target.id: node.value
        for tree in _trees(CONFIGS)
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


class _Known(dict[str, Any]):
    """Names that types are made of, and those assigned in the modules of configs, when they are needed."""

    def __missing__(self, name: str) -> Any:
        if name not in _constants():
            raise KeyError(name)
        return eval(ast.unparse(_constants()[name]), {}, self)


def _lineage(name: str) -> Iterator[Declared]:
    """Yield a class's bases before itself."""
    if name in _classes():
        for base in reversed(_classes()[name].bases):
            yield from _lineage(base)
        yield _classes()[name]


def _roles(name: str) -> tuple[str, ...]:
    return next(one.roles for one in reversed([*_lineage(name)]) if one.roles)


def _config(name: str) -> type[Frozen]:
    kinds: dict[str, str] = {}
    aliases: dict[str, tuple[str, ...]] = {}
    lineage = [*_lineage(name)]
    for one in lineage:
        kinds |= one.fields
        aliases |= one.aliases
    kinds |= {key: "Any" for one in lineage for key in one.validated if key in kinds}
    fields: dict[str, Any] = {
        key: (_type(kind), pydantic.Field(None, validation_alias=pydantic.AliasChoices(*aliases[key])))
        if key in aliases
        else (_type(kind), None)
        for key, kind in kinds.items()
    }
    return create_model(name, __base__=Frozen, **fields)


def _type(text: str) -> Any:
    """Return the type of a key, of this package's own source; `Any` if its names are not known here."""
    known = _Known({**vars(pydantic), **vars(schema), **vars(keys), "Path": Path})
    known |= {"Annotated": Annotated, "Literal": Literal}
    try:
        kind = eval(text, {}, known)
        pydantic.TypeAdapter(kind)
    except (NameError, TypeError, pydantic.PydanticUserError):
        return Any
    return kind


def _trees(places: tuple[str, ...]) -> Iterator[ast.Module]:
    for place in places:
        path = PACKAGE / place
        for file in [path] if path.is_file() else sorted(path.glob("*.py")):
            yield ast.parse(file.read_text(encoding="utf-8"))


def _called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")


def _named(node: ast.Assign, name: str) -> set[str]:
    return _texts(node.value) if any(isinstance(one, ast.Name) and one.id == name for one in node.targets) else set()


def _texts(node: ast.AST) -> set[str]:
    return {node.value} if isinstance(node, ast.Constant) and isinstance(node.value, str) else set()
