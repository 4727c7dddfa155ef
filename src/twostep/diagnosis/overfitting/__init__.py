"""Whether a density fitted to the data would suffer from manifold overfitting."""
