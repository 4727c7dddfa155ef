"""Estimators in scikit-learn's form: fit a density, detect outliers, estimate a dimension, on arrays and frames."""

from twostep.estimators.density import DensityModel, TwoStepDensity

__all__ = ["DensityModel", "TwoStepDensity"]
