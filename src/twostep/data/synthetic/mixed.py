"""A table of words and numbers whose joint distribution is known: customers with a plan, a region, an age and a spend.

plan ~ P,  region | plan ~ P(. | plan),  age | plan, region ~ N(m, s²),  log spend | all ~ N(a + ρ (age - m) / s, b²)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from pydantic import Field
from torch import Generator, Tensor
from torch.distributions import Normal
from typing_extensions import override

from twostep.core.schema import Frozen, NonNegativeInt, PositiveInt
from twostep.core.seeds import derive
from twostep.core.table import Column, TableSchema
from twostep.data.base import DATASETS, DatasetLoader, Source

NAME = "customers"
COLUMNS = TableSchema(
    columns=(
        Column(name="plan", kind="categorical", dtype="str", levels=("basic", "plus", "pro")),
        Column(name="region", kind="categorical", dtype="str", levels=("east", "north", "south", "west")),
        Column(name="age", kind="continuous", dtype="float64"),
        Column(name="spend", kind="continuous", dtype="float64"),
    )
)
PLAN = torch.tensor([0.5, 0.3, 0.2]).double()
REGION = torch.tensor([[0.7, 0.2, 0.05, 0.05], [0.1, 0.6, 0.2, 0.1], [0.05, 0.15, 0.3, 0.5]]).double()
AGE = torch.tensor([[30.0, 38, 46, 54], [34, 42, 50, 58], [26, 34, 42, 50]]).double()
AGE_STD = torch.tensor([5.0, 3.0, 8.0]).double()
SPEND = torch.tensor([2.0, 3.0, 4.0]).double()
SPEND_STD = 0.5
SLOPE = torch.tensor([0.4, -0.3, 0.1, 0.0]).double()  # of log spend in standardised age, by region


class Customers(Frozen):
    """Keys of the table `customers`, and its distribution over codes `(n, 4)`."""

    n: PositiveInt = Field(10_000, description="number of training rows; the test split has a fifth of that")
    seed: NonNegativeInt = Field(0, description="seed of the rows, independent of the run's seed")

    def sample(self, n: int, generator: Generator) -> Tensor:
        """Draw coded rows `(n, 4)`."""
        plan = torch.multinomial(PLAN, n, replacement=True, generator=generator)
        region = torch.multinomial(REGION[plan], 1, generator=generator).squeeze(1)
        noise = torch.randn(n, 2, generator=generator, dtype=torch.double)
        age = AGE[plan, region] + AGE_STD[plan] * noise[:, 0]
        spend = (SPEND[plan] + SLOPE[region] * noise[:, 0] + SPEND_STD * noise[:, 1]).exp()
        return torch.stack([plan.double(), region.double(), age, spend], 1)

    def log_prob(self, rows: Tensor) -> Tensor:
        """Return log-probabilities of rows `(n, 4)`, `(n,)`, in nats: counting on words, Lebesgue on numbers."""
        plan, region = rows[:, 0].long(), rows[:, 1].long()
        age, log_spend = rows[:, 2].double(), rows[:, 3].double().log()
        score = (age - AGE[plan, region]) / AGE_STD[plan]
        of_words = PLAN[plan].log() + REGION[plan, region].log()
        of_age = Normal(AGE[plan, region], AGE_STD[plan]).log_prob(age)
        of_spend = Normal(SPEND[plan] + SLOPE[region] * score, SPEND_STD).log_prob(log_spend) - log_spend
        return of_words + of_age + of_spend


@dataclass(frozen=True)
class CustomersLoader(DatasetLoader):
    """Rows of `Customers`."""

    @override
    def load(self, data_root: Path, options: Frozen) -> Source:
        drawn = cast(Customers, options)
        train, test = (
            drawn.sample(n, torch.Generator().manual_seed(derive(drawn.seed, split))).float()
            for n, split in ((drawn.n, "train"), (max(1, drawn.n // 5), "test"))
        )
        return Source(train, test, columns=COLUMNS)


DATASETS.register(NAME)(
    CustomersLoader(
        NAME,
        (4,),
        "a table of two columns of words and two of numbers with a known joint distribution",
        f"synthetic; keys: twostep datasets {NAME}",
        keys=Customers,
    )
)
