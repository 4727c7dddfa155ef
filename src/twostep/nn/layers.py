"""Names of activation functions to modules."""

from typing import Literal

from torch import nn

Activation = Literal["relu", "tanh", "swish"]

ACTIVATIONS: dict[Activation, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "swish": nn.SiLU}
