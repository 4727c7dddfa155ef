"""Models that remember the config that built them, for tests that train with its rates."""


def built(config, spec):
    """Return the config's model, with the config as an attribute."""
    model = config.build(spec)
    model.config = config
    return model
