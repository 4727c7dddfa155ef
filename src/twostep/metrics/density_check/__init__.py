"""Whether a density is normalised: quadrature and importance sampling."""
