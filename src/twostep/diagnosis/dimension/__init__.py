"""Intrinsic dimension: estimators, their calibration and their consensus."""
