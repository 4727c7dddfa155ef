"""Command lines that train small models in a moment."""

from pathlib import Path

SMALL_GAE = ("latent_dim=2", "encoder_hidden_dims=[8]", "decoder_hidden_dims=[8]", "max_epochs=2")
SMALL_FLOW = ("hidden_units=4", "num_layers=1", "num_blocks_per_layer=1", "max_epochs=2")


def repeated(flag, items):
    """Return `flag item flag item ...`."""
    return [part for item in items for part in (flag, item)]


def two_step_arguments(dataset, root):
    """Return what trains a small VAE + flow, the flow with early stopping, in a moment."""
    return [
        *("train", "--dataset", dataset, "--gae-model", "vae", "--de-model", "flow"),
        *repeated("--gae-config", SMALL_GAE),
        *repeated("--de-config", (*SMALL_FLOW, "early_stopping_metric=loss")),
        *repeated("--shared-config", ("train_batch_size=16", f"logdir_root={root}", "device=cpu")),
    ]


def single_arguments(dataset, root, model="ae"):
    """Return what trains a small model alone, in a moment."""
    keys = {"ae": SMALL_GAE, "vae": SMALL_GAE, "flow": SMALL_FLOW}[model]
    config = (*keys, "train_batch_size=16", f"logdir_root={root}", "device=cpu")
    return ["train-single", "--dataset", dataset, "--model", model, *repeated("--config", config)]


def only_run(root):
    """Return the one run directory in a folder."""
    (path,) = Path(root).iterdir()
    return path
