"""Whether a density on the data would suffer from manifold overfitting."""
