"""What every other folder stands on: schema, registry, seeds, files, checkpoints, the console."""
