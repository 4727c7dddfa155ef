"""Diagnosis: of which dimension data are."""

from twostep.diagnosis.consensus import Dimension, dimension_of

__all__ = ["Dimension", "dimension_of"]
