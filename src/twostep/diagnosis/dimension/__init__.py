"""Intrinsic dimension: estimators, their calibration by reference distributions, and their consensus."""
