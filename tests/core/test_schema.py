"""Configs and facts of data: what is refused, and in which words."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AliasChoices, Field, ValidationError, field_validator

from twostep.core.schema import (
    DataSpec,
    Frozen,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    UserError,
    nearest,
)


class Layers(Frozen):
    width: PositiveInt = 8
    dims: tuple[PositiveInt, ...] = (4,)
    skip: NonNegativeInt = 0
    rate: PositiveFloat = 0.1
    sigma: NonNegativeFloat = 0.0
    weight: float = Field(1.0, validation_alias=AliasChoices("_lambda", "lambda"))

    @field_validator("skip")
    @classmethod
    def _even(cls, value):
        if value % 2:
            raise ValueError("Odd numbers are no use")
        return value


class Named(Frozen):
    name: str
    size: int


class Placed(Frozen):
    folder: Path = Path("runs")
    options: dict[str, int] = Field({})


def refusal(config=Layers, **values):
    """Return the one line that `values` are refused with."""
    with pytest.raises(UserError) as caught:
        config.parse(values, "layers")
    line = str(caught.value)
    assert "\n" not in line
    assert caught.value.__suppress_context__, "pydantic's own error must not show"
    return line


def test_a_misspelt_key_gets_its_nearest_neighbour():
    assert refusal(widht=3) == "widht: no such key of layers; did you mean width?"
    assert refusal(lambd=3) == "lambd: no such key of layers; did you mean lambda?"
    assert refusal(WIDTH=3) == "WIDTH: no such key of layers; did you mean width?"


def test_a_key_like_no_other_gets_the_list_of_keys():
    assert refusal(zzz=3) == "zzz: no such key of layers; its keys are: dims, rate, sigma, skip, weight, width"


def test_every_error_is_reported_at_once():
    assert refusal(width=0, rate="fast", widht=1).split("; ") == [
        "width = 0: input should be greater than 0 (key of layers)",
        "rate = 'fast': input should be a valid number (key of layers)",
        "widht: no such key of layers",
        "did you mean width?",
    ]


def test_a_bad_part_of_a_list_is_named_by_its_place():
    assert refusal(dims=[4, -1]) == "dims.1 = -1: input should be greater than 0 (key of layers)"


def test_a_missing_key_is_called_missing_without_showing_the_others():
    assert refusal(Named, name="a") == "size: missing (key of layers)"


def test_a_validators_own_words_are_shown():
    assert refusal(skip=1) == "skip = 1: odd numbers are no use (key of layers)"


@pytest.mark.parametrize("key", ["width", "skip", "rate", "sigma"])
@pytest.mark.parametrize("value", [True, "3", None])
def test_truth_values_and_strings_are_no_numbers(key, value):
    assert refusal(**{key: value}).startswith(f"{key} = {value!r}: ")


@pytest.mark.parametrize("value", [2.0, 2.5])
def test_fractions_are_no_integers(value):
    assert refusal(width=value).startswith(f"width = {value}: ")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_rates_and_deviations_are_finite_and_not_negative(value):
    assert "rate = " in refusal(rate=value)
    assert "sigma = " in refusal(sigma=value)


def test_a_whole_number_is_a_fine_rate_and_zero_a_fine_deviation():
    assert Layers.parse({"rate": 1, "sigma": 0}, "layers").rate == 1.0
    assert "rate = 0" in refusal(rate=0)


@pytest.mark.parametrize("alias", ["_lambda", "lambda"])
def test_name_and_aliases_set_the_same_field(alias):
    assert Layers.parse({alias: 2.0}, "layers") == Layers.parse({"weight": 2.0}, "layers") != Layers()
    assert Layers.aliases()[alias] == "weight"
    assert alias in Layers.keys()  # noqa: SIM118


@pytest.mark.parametrize("values", [{"weight": 1.0, "lambda": 2.0}, {"_lambda": 1.0, "lambda": 2.0}])
def test_a_key_under_two_names_is_refused_as_that(values):
    assert "given under two names (key of layers)" in refusal(**values)


def test_forms_are_reported_as_a_user_writes_them():
    assert refusal(dims=3) == "dims = 3: write a list, like [3] (key of layers)"
    assert refusal(Named, name=2024, size=1) == "name = 2024: write a string, like \"'2024'\" (key of layers)"
    assert refusal(Placed, folder=2024) == "folder = 2024: write a string, like \"'2024'\" (key of layers)"
    assert "write a dictionary, like \"{'name': 1}\"" in refusal(Placed, options="{name:1}")


def test_configs_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Layers().width = 3


def test_json_gives_the_config_back():
    config = Layers.parse({"dims": [3, 5], "lambda": 0.25}, "layers")
    assert Layers.model_validate_json(config.model_dump_json()) == config


@given(st.text(max_size=20))
def test_a_hint_is_a_choice_or_nothing(name):
    choices = ["latent_dim", "lr", "seed"]
    assert nearest(name, choices) in {"", *(f"; did you mean {choice}?" for choice in choices)}


def test_a_user_error_is_a_value_error():
    assert issubclass(UserError, ValueError)


@pytest.mark.parametrize(
    ("shape", "dim", "is_image"),
    [((3, 4, 5), 60, True), ((1, 28, 28), 784, True), ((7,), 7, False), ((2, 3), 6, False)],
)
def test_dimension_and_kind_follow_from_the_shape(shape, dim, is_image):
    spec = DataSpec(name="set", shape=shape, size=9, low=0, high=1)
    assert (spec.dim, spec.is_image, spec.discrete) == (dim, is_image, False)


@pytest.mark.parametrize("values", [{"shape": (0, 3)}, {"shape": (-1,)}, {"size": 0}])
def test_a_set_without_points_or_coordinates_is_refused(values):
    with pytest.raises(UserError, match="should be greater than 0"):
        DataSpec.parse({"name": "set", "shape": (3,), "size": 1, "low": 0, "high": 1} | values, "data")
