"""Diagnosis: the intrinsic dimension of data, and whether a density overfits their manifold."""

from twostep.diagnosis.diagnosis import Diagnosis, diagnose
from twostep.diagnosis.dimension.consensus import Dimension, dimension_of
from twostep.diagnosis.overfitting.verdict import Overfitting

__all__ = ["Diagnosis", "Dimension", "Overfitting", "diagnose", "dimension_of"]
