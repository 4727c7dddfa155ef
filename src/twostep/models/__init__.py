"""All models: one file each, filed in `MODELS` by the import below."""

from twostep.models import ae, arm, avb, ebm, flow, vae
from twostep.models.base import MODELS

__all__ = ["MODELS", "ae", "arm", "avb", "ebm", "flow", "vae"]
