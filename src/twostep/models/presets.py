"""Defaults of `ebm` and `avb` for each kind of data: those of the papers' code, and those that replace them."""

from __future__ import annotations

from typing import Any

from twostep.core.schema import DataSpec
from twostep.models.base import Role

# A step is half the noise's variance, so that chains sample exp(-E); the buffer holds eight batches, so that no
# chain is much older than its energy; rates end at 0, where the chains catch up.
EBM_GAUSSIAN_BASE: dict[str, Any] = {
    "base": "gaussian",
    "scale_data": False,
    "spectral_norm": False,
    "x_lims": (-100.0, 100.0),
    "max_length_buffer": 1024,
    "ld_grad_clamp": None,
    "use_lr_scheduler": True,
}
EBM_VECTORS: dict[str, Any] = {
    "energy_func_hidden_dims": (128, 64),
    "loss_alpha": 0.001,
    "ld_steps": 40,
    "ld_step_size": 0.03,
    "ld_sigma": 0.06**0.5,
    "ld_eps_new": 0.5,
    "lr": 5e-4,
}
EBM_IMAGES: dict[str, Any] = {
    "energy_func_hidden_dims": (512, 256),
    "loss_alpha": 3e-4,
    "ld_steps": 12,
    "ld_step_size": 0.1,
    "ld_sigma": 0.2**0.5,
    "lr": 1e-3,
}
EBM_NOISE = 0.15  # std on images, as a share of their range
EBM_ROWS = 400_000  # that training passes over, in at least 40 epochs and at most 300

AVB_ROWS = 200_000  # that a density passes over, in at most 150 epochs
# Two steps of the discriminator to one of the others, which are slower and larger. The std is a parameter that starts
# small: a calibrated one starts at the data's spread, at which latents carry no information
# (tests/models/test_avb.py).
AVB_VECTORS: dict[str, Any] = {
    "num_discriminator_steps": 2,
    "nll_lr": 5e-4,
    "encoder_hidden_dims": (512,),
    "decoder_hidden_dims": (512, 512),
    "max_bad_valid_epochs": 20,
    "sigma_from": "parameter",
}
AVB_REFERENCE_DENSITY: dict[str, Any] = {
    "max_epochs": 100,
    "early_stopping_metric": None,
    "valid_metrics": ("loss",),
    "test_metrics": ("log_likelihood", "loss"),
}


def ebm_reference(spec: DataSpec) -> dict[str, Any]:
    """Return the paper's values for this kind of data: a smooth network, in the box of scaled pixels, for images."""
    if not spec.is_image:
        return {"scale_data": True}
    return {
        "scale_data": True,
        "net": "cnn" if spec.shape[0] == 3 else "mlp",
        "energy_func_hidden_dims": (256, 128),
        "spectral_norm": True,
        "x_lims": (-1.0 if spec.low < 0 else 0.0, 1.0),
        "loss_alpha": 1.0,
        "lr": 3e-4,
    }


def ebm_defaults(spec: DataSpec) -> dict[str, Any]:
    """Return what replaces them: nothing on colour images, whose convolutions are too slow for many steps."""
    if not spec.is_image:
        found = EBM_VECTORS
    elif spec.shape[0] == 3:
        return {}
    else:
        found = {**EBM_IMAGES, "denoising_sigma": EBM_NOISE * (spec.high - spec.low)}
    return {**EBM_GAUSSIAN_BASE, **found, "max_epochs": min(300, max(40, EBM_ROWS // spec.size))}


def avb_reference(role: Role, net: str) -> dict[str, Any]:
    """Return the paper's code's values, where the metric is the error of reconstructions in both roles."""
    return {
        **_evaluated_by("l2_reconstruction_error"),
        "noise_dim": 256 if role == "gae" else 128,
        "max_epochs": 50 if net == "mlp" else 100,
        "adaptive_contrast": False,
        "num_discriminator_steps": 1,
        "nll_lr": 1e-3,
        "encoder_hidden_dims": (256,),
        "decoder_hidden_dims": (256,),
        "max_bad_valid_epochs": 10,
    }


def avb_defaults(spec: DataSpec, role: Role, net: str) -> dict[str, Any]:
    """Return what a density has instead: its likelihood as metric, more epochs on few rows, adaptive contrast."""
    if role == "gae":
        return {}
    epochs = max(avb_reference(role, net)["max_epochs"], min(150, AVB_ROWS // spec.size))
    keys = {**_evaluated_by("log_likelihood"), "max_epochs": epochs, "adaptive_contrast": True}
    return keys if spec.is_image else {**keys, **AVB_VECTORS, "max_epochs": max(100, epochs)}


def _evaluated_by(metric: str) -> dict[str, Any]:
    return {"early_stopping_metric": metric, "valid_metrics": (metric,), "test_metrics": (metric,)}
