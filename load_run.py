"""Load a run into Python: `module, trainer, (train, valid, test) = load_run("runs/Apr26_09-38-37")`."""

from twostep.experiment.load import load_run

__all__ = ["load_run"]
