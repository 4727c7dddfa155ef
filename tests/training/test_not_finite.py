"""Whatever is trained, a loss that is not finite ends it, and what was saved before is good."""

import pytest
import torch

from helpers.experiments import ALONE, EVERY_PAIR, asked
from twostep.experiment.prepare import resume, start
from twostep.training.callbacks import Callback, NonFiniteLossError


@pytest.mark.parametrize("models", [*ALONE, *EVERY_PAIR], ids=" + ".join)
def test_a_loss_that_is_not_finite_ends_the_training(own_images, tmp_path, models):
    """Weights become NaN in the second of four epochs, of three steps each."""
    experiment = start(asked(models, own_images, tmp_path))
    part = "model" if len(models) == 1 else "de"

    def poison(trainer, losses):
        if trainer.name == part and trainer.steps_done == 4:
            with torch.no_grad():
                for parameter in trainer.model.parameters():
                    parameter.fill_(torch.nan)

    experiment.callbacks.append(Callback())
    experiment.callbacks[-1].step = poison
    with pytest.raises(NonFiniteLossError, match=rf"^{part}: the \S+ of {models[-1]} is nan at step 4 \(epoch 2"):
        experiment.fit()
    experiment.run.close()
    saved = resume(experiment.run.path)
    last = saved.trainers[-1]
    assert last.epochs_done == 1
    assert not [name for name, value in last.model.state_dict().items() if not value.isfinite().all()]
    saved.run.close()
