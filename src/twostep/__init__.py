"""Two-step deep generative models: an autoencoder finds the manifold, a density estimator models what lies on it."""
