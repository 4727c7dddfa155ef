"""Diagnosis: the intrinsic dimension of data, and whether a density overfits their manifold."""

from twostep.diagnosis.diagnosis import Diagnosis, diagnose
from twostep.diagnosis.dimension.consensus import Dimension, dimension_of
from twostep.diagnosis.dimension.local import LocalDimension, local_dimension
from twostep.diagnosis.dimension.score import ScoreDimension, score_dimension
from twostep.diagnosis.overfitting.verdict import Overfitting

__all__ = [
    "Diagnosis",
    "Dimension",
    "LocalDimension",
    "Overfitting",
    "ScoreDimension",
    "diagnose",
    "dimension_of",
    "local_dimension",
    "score_dimension",
]
