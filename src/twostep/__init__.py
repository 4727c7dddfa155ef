"""Two-step deep generative models: an autoencoder learns the manifold, a density estimator its embeddings."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "MODELS": "models",
    "DensityModel": "estimators",
    "IntrinsicDimension": "estimators",
    "TwoStep": "models.two_step",
    "TwoStepDensity": "estimators",
    "TwoStepOutlierDetector": "estimators",
    "UserError": "core.schema",
    "diagnose": "diagnosis",
    "fit": "training.fit",
    "from_pretrained": "experiment.sharing",
    "load_data": "data.load",
    "load_module": "experiment.load",
    "load_run": "experiment.load",
    "push_to_hub": "experiment.sharing",
    "save_pretrained": "experiment.sharing",
}

__all__ = list(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that the command line starts without torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f"twostep.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
