"""Diagnosis: of which dimension data are, and whether a density on them can be honest."""
