"""What every model promises, checked for each name in the registry, each role it has and several kinds of data.

A model gets all of this by being registered. Each check takes a `Case` and asserts; `CASES` and `CHECKS` say which
check is for whom.
"""

import copy
import itertools
import json
import math
from dataclasses import dataclass

import pytest
import torch
from beartype import beartype
from jaxtyping import Float, jaxtyped
from torch import Tensor

from helpers.external import PAIR
from twostep.core.schema import DataSpec, UserError
from twostep.metrics.base import METRICS
from twostep.models import MODELS
from twostep.models.base import (
    DensityEstimator,
    GeneralizedAutoencoder,
    Model,
    ModelConfig,
    Objective,
    Role,
    evaluating,
)

SPECS = (
    DataSpec(name="grey images", shape=(1, 8, 8), size=40, low=0, high=16, discrete=True),
    DataSpec(name="colour images", shape=(3, 6, 5), size=40, low=0, high=255, discrete=True),
    DataSpec(name="vectors", shape=(5,), size=40, low=-4, high=4),
)
SMALL = {
    "module": PAIR,
    "trainable": True,
    "latent_dim": 3,
    "encoder_hidden_dims": (12,),
    "decoder_hidden_dims": (12,),
    "encoder_hidden_channels": (4, 3),
    "decoder_hidden_channels": (3, 4),
    "discriminator_hidden_dims": (12,),
    "noise_dim": 6,
    "energy_func_hidden_dims": (12,),
    "energy_func_hidden_channels": (4, 3),
    "hidden_units": 12,
    "hidden_size": 12,
    "num_layers": 2,
    "num_blocks_per_layer": 1,
    "ld_steps": 5,
    "max_length_buffer": 32,
}


@dataclass(frozen=True)
class Case:
    """A model's name, the role it plays, the data it is for, and keys that differ from its defaults."""

    name: str
    role: Role
    spec: DataSpec
    keys: tuple[tuple[str, object], ...] = ()

    def __str__(self):
        return "-".join([self.name, self.role, self.spec.name, *(f"{key}={value}" for key, value in self.keys)])

    @property
    def kind(self) -> type[ModelConfig]:
        return MODELS[self.name]

    def config(self, **overrides) -> ModelConfig:
        small = {key: value for key, value in SMALL.items() if key in self.kind.model_fields}
        return self.kind.for_data(self.spec, self.role, **{**small, **dict(self.keys), **overrides})

    def build(self, seed=0, data=None, **overrides) -> Model:
        """Return a model whose weights follow from `seed`, with its transform fitted."""
        torch.manual_seed(seed)
        model = self.config(**overrides).build(self.spec)
        model.fit_transform((self.data() if data is None else data).split(16))
        return model

    def data(self, n=40, seed=1) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        unit = torch.rand(n, *self.spec.shape, generator=generator)
        x = self.spec.low + (self.spec.high - self.spec.low) * unit
        return x.round() if self.spec.discrete else x


CASES = [
    Case(name, role, spec) for name, spec in itertools.product(MODELS, SPECS) for role in sorted(MODELS[name].roles)
]


@jaxtyped(typechecker=beartype)
def encoded(
    model: GeneralizedAutoencoder, x: Float[Tensor, "batch *point"]
) -> Float[Tensor, "batch {model.latent_dim}"]:
    return model.encode(x)


@jaxtyped(typechecker=beartype)
def round_trip(
    model: GeneralizedAutoencoder, x: Float[Tensor, "batch *point"], z: Float[Tensor, "batch {model.latent_dim}"]
) -> Float[Tensor, "batch *point"]:
    return model.decode(z)


@jaxtyped(typechecker=beartype)
def reconstruction_error(model: GeneralizedAutoencoder, x: Float[Tensor, "batch *point"]) -> Float[Tensor, " batch"]:
    return model.reconstruction_error(x)


@jaxtyped(typechecker=beartype)
def log_volume(model: GeneralizedAutoencoder, z: Float[Tensor, "batch {model.latent_dim}"]) -> Float[Tensor, " batch"]:
    return model.log_volume(z)


@jaxtyped(typechecker=beartype)
def log_prob(model: DensityEstimator, x: Float[Tensor, "batch *point"]) -> Float[Tensor, " batch"]:
    return model.log_prob(x)


@jaxtyped(typechecker=beartype)
def sampled(
    model: DensityEstimator, n: int, like: Float[Tensor, "batch *point"], seed: int
) -> Float[Tensor, "{n} *point"]:
    return model.sample(n, torch.Generator().manual_seed(seed))


@jaxtyped(typechecker=beartype)
def loss_of(objective: Objective, x: Float[Tensor, "batch *point"]) -> Float[Tensor, ""]:
    return objective.loss(x)


def answers(model: Model, x: Tensor) -> dict[str, Tensor]:
    """Return all that a model says in evaluation, with the same random numbers at every call."""
    said = {}
    with evaluating(model):
        if isinstance(model, GeneralizedAutoencoder):
            z = encoded(model, x)
            said |= {"encode": z, "decode": round_trip(model, x, z), "error": reconstruction_error(model, x)}
            said |= {"log_volume": log_volume(model, z)}
        if isinstance(model, DensityEstimator):
            torch.manual_seed(0)
            said |= {"log_prob": log_prob(model, x)}
            said |= {"sample": sampled(model, 7, x, seed=3)}
    return said


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# ---- configs


def check_the_class_says_what_it_is(case: Case) -> None:
    assert case.kind.model_fields["name"].default == case.name
    assert len(set(case.kind.roles)) == len(case.kind.roles) > 0
    assert case.kind.summary
    model = case.build()
    assert isinstance(model, {"gae": GeneralizedAutoencoder, "de": DensityEstimator}[case.role])
    if isinstance(model, DensityEstimator):
        assert model.likelihood in ("exact", "bound", "unnormalised")


def check_every_key_has_a_description(case: Case) -> None:
    bare = [key for key, field in case.kind.model_fields.items() if key != "name" and not field.description]
    assert bare == []
    assert case.kind.adjustable <= case.kind.model_fields.keys()


def check_the_preset_survives_json(case: Case) -> None:
    config = case.config()
    assert case.kind.parse(json.loads(config.model_dump_json()), case.name) == config


def check_overrides_win_over_the_preset(case: Case) -> None:
    keys = {"max_epochs": 7, "scale_data": False, "max_grad_norm": 0.5}
    assert case.config(**keys).model_dump().items() >= keys.items()


def check_a_misspelt_key_is_refused_with_its_neighbour(case: Case) -> None:
    with pytest.raises(UserError) as caught:
        case.kind.for_data(case.spec, case.role, max_epoch=3)
    assert str(caught.value) == f"max_epoch: no such key of {case.name}; did you mean max_epochs?"


def check_the_presets_metrics_exist_and_fit(case: Case) -> None:
    config, model = case.config(), case.build()
    stop = [config.early_stopping_metric] if config.early_stopping_metric else []
    for metric in (*config.test_metrics, *config.valid_metrics, *stop):
        assert METRICS[metric].refusal(model) == ""
    assert set(stop) <= set(config.valid_metrics)


# ---- training


def check_objectives_match_their_optimisers(case: Case) -> None:
    model = case.build()
    objectives = model.objectives()
    names = [objective.name for objective in objectives]
    assert len(set(names)) == len(names) > 0
    assert set(case.config().optimizers()) == set(names)
    own = {id(parameter) for parameter in model.parameters()}
    moved = [id(parameter) for objective in objectives for parameter in objective.parameters]
    assert set(moved) == own, "every parameter is trained, and nothing else"
    for objective in objectives:
        assert len({id(parameter) for parameter in objective.parameters}) == len(objective.parameters)
        assert objective.every >= 1


def check_losses_and_gradients_are_finite(case: Case) -> None:
    model = case.build()
    for objective in model.objectives():
        loss = loss_of(objective, case.data(16))
        assert torch.isfinite(loss)
        gradients = torch.autograd.grad(loss, objective.parameters)
        assert all(torch.isfinite(gradient).all() for gradient in gradients)
        assert any((gradient != 0).any() for gradient in gradients)


def check_mixed_precision_has_the_gradients_of_single_precision(case: Case) -> None:
    model, x = case.build(), case.data(16)
    for objective in model.objectives():
        found: list[Tensor] = []
        for mixed in (False, True):
            torch.manual_seed(5)
            with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
                loss = objective.loss(x)
            grads = torch.autograd.grad(loss, objective.parameters)
            found.append(torch.cat([grad.flatten() for grad in grads]))
        assert torch.cosine_similarity(*found, dim=0) > 0.8


def check_each_objective_moves_only_its_own_parameters(case: Case) -> None:
    model = case.build()
    for objective in model.objectives():
        before = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
        own = {id(parameter) for parameter in objective.parameters}
        optimizer = torch.optim.SGD(objective.parameters, lr=1e-4)
        optimizer.zero_grad()
        loss_of(objective, case.data(16)).backward(inputs=list(objective.parameters))
        optimizer.step()
        if objective.after:
            objective.after(lambda rows: rows)
        moved = {key: not torch.equal(before[key], parameter) for key, parameter in model.named_parameters()}
        assert any(moved.values())
        assert all(id(parameter) in own or not moved[key] for key, parameter in model.named_parameters())


def check_steps_lower_the_first_loss(case: Case) -> None:
    model, x = case.build(), case.data()
    objective = model.objectives()[0]
    optimizer = torch.optim.Adam(objective.parameters, lr=1e-3)
    losses = []
    for _ in range(12):
        torch.manual_seed(0)
        loss = objective.loss(x)
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward(inputs=list(objective.parameters))
        optimizer.step()
    assert losses[-1] < losses[0]


def check_the_same_seed_gives_the_same_loss(case: Case) -> None:
    def losses():
        model = case.build()
        torch.manual_seed(5)
        return [float(objective.loss(case.data(16)).detach()) for objective in model.objectives()]

    assert losses() == losses()


def check_a_batch_of_one_is_enough(case: Case) -> None:
    model, x = case.build(), case.data(1)
    for objective in model.objectives():
        loss = loss_of(objective, x)
        gradients = torch.autograd.grad(loss, objective.parameters)
        assert all(torch.isfinite(found).all() for found in (loss, *gradients))
    for answer in answers(model, x).values():
        assert not answer.isnan().any()


def check_a_density_without_a_loss_has_no_weights_to_train(case: Case) -> None:
    model = case.build()
    assert model.objectives() == ()
    assert list(model.parameters()) == []
    assert case.config().optimizers() == {}


def check_the_same_seed_gives_the_same_fit(case: Case) -> None:
    assert same(case.build(seed=3).state_dict(), case.build(seed=3).state_dict())


def check_a_new_fit_forgets_the_one_before(case: Case) -> None:
    refitted, fresh = case.build(seed=1), case.build(seed=2, data=2 * case.data(50, seed=2))
    torch.manual_seed(2)
    case.config().build(case.spec)  # draws what building `fresh` drew
    refitted.fit_transform((2 * case.data(50, seed=2)).split(16))
    assert same(refitted.state_dict(), fresh.state_dict())


def check_the_size_of_batches_does_not_matter(case: Case) -> None:
    config, x = case.config(dequantize=False), case.data()
    models = [config.build(case.spec) for _ in range(2)]
    for model, size in zip(models, (7, 40), strict=True):
        torch.manual_seed(1)
        model.fit_transform(x.split(size))
    with evaluating(*models):
        one, other = (model.log_prob(x) for model in models)
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


# ---- evaluation


def check_shapes_and_numbers(case: Case) -> None:
    model, x = case.build(), case.data(6)
    said = answers(model, x)
    for key, answer in said.items():
        assert torch.isfinite(answer).all() or (key == "log_volume" and not answer.isnan().any())
    if "error" in said:
        expected = (x - said["decode"]).square().flatten(1).sum(1)
        assert torch.allclose(said["error"], expected, rtol=1e-5)


def check_double_precision_stays_double(case: Case) -> None:
    model = case.build().double()
    said = answers(model, case.data(6).double())
    assert {answer.dtype for answer in said.values()} == {torch.float64}
    for objective in model.objectives():
        assert objective.loss(case.data(6).double()).dtype == torch.float64


def check_everything_is_made_where_the_model_is(case: Case) -> None:
    """With another default device, whatever is made without naming the model's own one cannot meet its weights."""
    model, x = case.build(), case.data(6)
    before = answers(model, x)
    with torch.device("meta"):
        said = answers(model, x)
        losses: list[Tensor] = []
        for objective in model.objectives():
            losses.append(objective.loss(x))
            losses.extend(torch.autograd.grad(losses[-1], objective.parameters))
            if objective.after:
                objective.after(lambda rows: rows)
        model.fit_transform([x])
    assert {found.device.type for found in (*said.values(), *losses, *model.state_dict().values())} == {"cpu"}
    assert same(said, before)


def check_the_state_gives_equal_answers(case: Case) -> None:
    trained, fresh = case.build(seed=0), case.build(seed=1, data=2 * case.data(seed=2) + 1)
    x = case.data(6)
    assert not same(answers(fresh, x), answers(trained, x))
    fresh.load_state_dict(trained.state_dict())
    assert same(answers(fresh, x), answers(trained, x))


def check_a_copy_is_a_model_of_its_own(case: Case) -> None:
    model, x = case.build(), case.data(6)
    before = answers(model, x)
    twin = copy.deepcopy(model)
    assert same(answers(twin, x), before)
    twin.fit_transform([3 * case.data(seed=5).flip(-1) + 1])
    loaded = case.build(seed=1)
    loaded.load_state_dict(twin.state_dict())
    assert same(answers(twin, x), answers(loaded, x))
    assert same(answers(model, x), before)


def check_evaluation_leaves_no_trace(case: Case) -> None:
    model, x = case.build(), case.data(6)
    model.train()
    for first in list(model.parameters())[:1]:
        first.requires_grad_(False)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    flags = [parameter.requires_grad for parameter in model.parameters()]
    modes = [module.training for module in model.modules()]
    data = x.clone()
    answers(model, x)
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(x, data)


def check_evaluation_builds_no_graph(case: Case) -> None:
    assert not any(answer.requires_grad for answer in answers(case.build(), case.data(6)).values())


def check_embeddings_repeat_and_draw_nothing(case: Case) -> None:
    model, x = case.build().eval(), case.data(6)
    before = torch.get_rng_state()
    z = encoded(model, x)
    assert torch.equal(encoded(model, x), z)
    assert torch.allclose(torch.cat([encoded(model, row) for row in x.split(1)]), z, atol=1e-5), "a row is itself"
    round_trip(model, x, z)
    log_volume(model, z)
    assert torch.equal(torch.get_rng_state(), before)


def check_the_volume_is_that_of_decode(case: Case) -> None:
    model = case.build().double().eval()
    z = encoded(model, case.data(6).double()).detach()
    got = log_volume(model, z).detach()
    for point, value in zip(z, got, strict=True):
        J = torch.autograd.functional.jacobian(lambda z: model.decode(z[None]).flatten(), point)
        if math.isinf(float(value)):
            assert torch.linalg.matrix_rank(J) < model.latent_dim
        else:
            assert float(value) == pytest.approx(float(torch.linalg.slogdet(J.T @ J).logabsdet / 2), abs=1e-8)


def check_neither_bins_nor_clamps_bend_the_decoder(case: Case) -> None:
    """A step in the decoder, as of `floor`, would leave no volume, and a clamp none outside of the range."""
    plain = case.build().eval()
    cut = case.build(clamp_samples=True, dequantize=case.spec.discrete).eval()
    cut.load_state_dict(plain.state_dict())
    z = 5 * torch.randn(6, plain.latent_dim, generator=torch.Generator().manual_seed(3))
    assert torch.equal(round_trip(cut, case.data(6), z), round_trip(plain, case.data(6), z))
    assert torch.equal(log_volume(cut, z), log_volume(plain, z))


def check_samples_follow_from_the_generator_alone(case: Case) -> None:
    model, x = case.build().eval(), case.data(1)
    with torch.no_grad():
        torch.manual_seed(0)
        before = torch.get_rng_state()
        one = sampled(model, 5, x, seed=9)
        assert torch.equal(torch.get_rng_state(), before), "another generator is left alone"
        torch.manual_seed(1)
        assert torch.equal(sampled(model, 5, x, seed=9), one)
        assert not torch.equal(sampled(model, 5, x, seed=10), one)
        assert len(one.flatten(1).unique(dim=0)) == 5, "points differ"


def check_samples_are_clamped_if_asked(case: Case) -> None:
    beyond = 5 * case.data()
    free, clamped = case.build(data=beyond), case.build(data=beyond, clamp_samples=True)
    with evaluating(free, clamped):
        x = case.data(1)
        wild, tame = sampled(free, 50, x, seed=0), sampled(clamped, 50, x, seed=0)
    assert torch.equal(tame, wild.clamp(case.spec.low, case.spec.high))
    assert not torch.equal(tame, wild)


def check_a_change_of_units_moves_the_density_by_its_jacobian(case: Case) -> None:
    """With the same weights and data in units s times smaller, `log p` falls by exactly `D log s`."""
    scale = 37.0
    spec = case.spec.model_copy(update={"discrete": False})
    plain = Case(case.name, case.role, spec)
    sigma = plain.config().denoising_sigma  # of noise in units of the data
    model, other = plain.build().double(), plain.build(denoising_sigma=scale * sigma).double()
    x = plain.data(200).double()  # more than dimensions, so that no two axes of the data are alike
    model.transform.fit([x])
    other.transform.fit([scale * x])
    with evaluating(model, other):
        torch.manual_seed(4)
        one = model.log_prob(x)
        torch.manual_seed(4)
        two = other.log_prob(scale * x)
        if model.likelihood != "unnormalised":
            assert torch.allclose(two, one - spec.dim * math.log(scale), rtol=0, atol=1e-8)
        draws, scaled = sampled(model, 5, x, seed=2), sampled(other, 5, x, seed=2)
        assert torch.allclose(scaled, scale * draws, rtol=1e-9, atol=1e-9 * scale)


CONFIG_CHECKS = [
    check_the_class_says_what_it_is,
    check_every_key_has_a_description,
    check_the_preset_survives_json,
    check_overrides_win_over_the_preset,
    check_a_misspelt_key_is_refused_with_its_neighbour,
    check_the_presets_metrics_exist_and_fit,
]
TRAINING_CHECKS = [
    check_objectives_match_their_optimisers,
    check_losses_and_gradients_are_finite,
    check_mixed_precision_has_the_gradients_of_single_precision,
    check_each_objective_moves_only_its_own_parameters,
    check_steps_lower_the_first_loss,
    check_the_same_seed_gives_the_same_loss,
    check_a_batch_of_one_is_enough,
]
EVALUATION_CHECKS = [
    check_shapes_and_numbers,
    check_double_precision_stays_double,
    check_everything_is_made_where_the_model_is,
    check_the_state_gives_equal_answers,
    check_a_copy_is_a_model_of_its_own,
    check_evaluation_leaves_no_trace,
    check_evaluation_builds_no_graph,
]
FIT_CHECKS = [
    check_a_density_without_a_loss_has_no_weights_to_train,
    check_the_same_seed_gives_the_same_fit,
    check_a_new_fit_forgets_the_one_before,
    check_the_size_of_batches_does_not_matter,
]
ROLE_CHECKS = {
    "gae": [
        check_embeddings_repeat_and_draw_nothing,
        check_the_volume_is_that_of_decode,
        check_neither_bins_nor_clamps_bend_the_decoder,
    ],
    "de": [
        check_samples_follow_from_the_generator_alone,
        check_samples_are_clamped_if_asked,
        check_a_change_of_units_moves_the_density_by_its_jacobian,
    ],
}
GREY, COLOUR, VECTORS = SPECS
LINE = DataSpec(name="one coordinate", shape=(1,), size=40, low=-2, high=3)
EMBEDDINGS = DataSpec(name="grids", shape=(4,), size=40, low=-4, high=4, grid=(1, 2, 2))
GRID = {"latent_shape": "2x2x2", "latent_dim": 8}
CNN = {"encoder_net": "cnn", "decoder_net": "cnn"}
VARIANTS = [
    Case(name, role, spec, tuple(keys.items()))
    for name, role, spec, keys in (
        *((name, "de", LINE, {}) for name in MODELS if "de" in MODELS[name].roles),
        *(
            (name, "gae", GREY, {**CNN, "latent_dim": 1})
            for name in MODELS
            if "encoder_net" in MODELS[name].model_fields
        ),
        ("bigan", "gae", VECTORS, {"wasserstein": False}),
        ("bigan", "gae", VECTORS, {"gradient_penalty": False}),
        ("vae", "de", COLOUR, {"single_sigma": False}),
        ("avb", "de", COLOUR, {"single_sigma": False}),
        ("avb", "de", VECTORS, {"preset": "reference"}),
        ("ebm", "de", GREY, {"preset": "reference"}),
        ("ebm", "de", VECTORS, {"preset": "reference"}),
        ("ebm", "de", GREY, {"net": "cnn"}),
        ("flow", "de", GREY, {"preset": "reference"}),
        ("vae", "de", VECTORS, {"preset": "reference"}),
        ("vae", "gae", COLOUR, {"preset": "reference", "padding": False}),
        ("avb", "gae", COLOUR, {"preset": "reference", "padding": False}),
        ("wae", "gae", GREY, {"padding": False}),
        ("ae", "gae", COLOUR, {"encoder_net": "pcamlp", "decoder_net": "pcamlp", "latent_noise": 0.1}),
        ("vae", "de", VECTORS, {"encoder_net": "pcamlp", "decoder_net": "pcamlp"}),
        ("ae", "gae", COLOUR, {**GRID, "latent_noise": 0.1}),
        ("vae", "gae", GREY, GRID),
        ("fm", "de", EMBEDDINGS, {"net": "unet", "num_layers": 1}),
    )
]


def checks_of(case: Case):
    """Return the checks of a model: of its training, or of its fit where it has no loss, and of what it gives."""
    training = TRAINING_CHECKS if case.kind.rates else FIT_CHECKS
    return (*training, *EVALUATION_CHECKS, *ROLE_CHECKS[case.role])


CHECKS = [(check, case) for case in CASES for check in (*CONFIG_CHECKS, *checks_of(case))]
CHECKS += [(check, case) for case in VARIANTS for check in checks_of(case)]
FROZEN = Case("external", "gae", VECTORS, (("trainable", False),))
CHECKS += [(check, FROZEN) for check in (*EVALUATION_CHECKS, *ROLE_CHECKS["gae"])]
