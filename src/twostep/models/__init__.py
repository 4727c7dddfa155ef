"""All models: one file each, filed in `MODELS` by the import below."""

from twostep.models import ae, arm, avb, bigan, ebm, flow, vae, wae
from twostep.models.base import MODELS

__all__ = ["MODELS", "ae", "arm", "avb", "bigan", "ebm", "flow", "vae", "wae"]
