"""Parts of models: networks by config, couplings, Langevin sampling, base distributions."""
