"""Diagnosis of a trained model: its decoder's chart, its density's thickness, discontinuities and folds."""
