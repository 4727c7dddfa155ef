"""Estimators in scikit-learn's form: fit a density, detect outliers, estimate a dimension, on arrays and frames."""

from twostep.estimators.density import DensityModel, TwoStepDensity
from twostep.estimators.dimension import IntrinsicDimension
from twostep.estimators.outlier import TwoStepOutlierDetector

__all__ = ["DensityModel", "IntrinsicDimension", "TwoStepDensity", "TwoStepOutlierDetector"]
