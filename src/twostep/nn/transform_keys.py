"""Keys of the transform between data and a network, and the transform that they build."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from twostep.core.schema import DataSpec, Frozen, NonNegativeFloat, UserError
from twostep.nn.transforms import Chain, DataTransform, Flatten, Logit, Noise, Scale, Whiten


class TransformKeys(Frozen):
    """How data are transformed before a network sees them."""

    flatten: bool | None = Field(None, description="follows from the network; may be set only to agree with it")
    denoising_sigma: NonNegativeFloat = Field(0.0, description="std of Gaussian noise on training data, in data units")
    dequantize: bool = Field(False, description="add uniform noise on [0, 1) to integers")
    scale_data: bool = Field(False, description="divide by the largest absolute value of the training data")
    whitening_transform: bool = Field(False, description="mean 0 and std 1 for every feature, after all the others")
    logit_transform: bool = Field(False, description="map [0, 1] to the real line by a logit, after scaling")
    clamp_samples: bool = Field(False, description="clamp samples to the range of the training data")

    @field_validator("denoising_sigma", mode="before")
    @classmethod
    def _none_is_no_noise(cls, value: Any) -> Any:
        return 0.0 if value is None else value

    def build_noise(self) -> Noise:
        """Return the noise of training."""
        return Noise(self.dequantize, self.denoising_sigma)

    def build_transform(self, spec: DataSpec, flat: bool) -> Chain:
        """Return the map from data to what the network sees, not fitted yet.

        Args:
            spec: of the data.
            flat: whether the network takes vectors.

        Raises:
            UserError: if `flatten` contradicts the network, `dequantize` is set for data that are not integers, or
                `logit_transform` where values lie outside the unit interval.
        """
        if spec.is_image and self.flatten not in (None, flat):
            shape = "vectors" if flat else "images of shape (C, H, W)"
            raise UserError(f"flatten={self.flatten}: the network takes {shape}; leave the key out")
        if self.dequantize and not spec.discrete:
            raise UserError(f"dequantize=True: {spec.name} does not hold integers; leave the key out")
        if self.logit_transform and (wrong := self._beyond_unit_interval(spec)):
            raise UserError(f"logit_transform=True needs data between 0 and 1: {wrong}")
        shape = (spec.dim,) if flat else spec.shape
        steps: list[DataTransform] = [Flatten(spec.shape)] if flat else []
        if self.scale_data:
            steps.append(Scale(dequantized=self.dequantize))
        if self.logit_transform:
            steps.append(Logit())
        if self.whitening_transform:
            steps.append(Whiten(shape))
        return Chain(steps)

    def _beyond_unit_interval(self, spec: DataSpec) -> str:
        if spec.low < 0:
            return f"{spec.name} has values down to {spec.low:g}; leave the key out"
        if self.denoising_sigma:
            return "noise goes beyond; set denoising_sigma=0"
        if spec.high > 1 and not self.scale_data:
            return f"{spec.name} has values up to {spec.high:g}; set scale_data=True"
        return ""
