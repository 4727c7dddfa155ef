"""Diagnosis of a trained model: its decoder's chart, the decay of its density, discontinuities and folds."""
